//! Records under good checksums that no log writes: whatever a checksum says, what they say is
//! looked at.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{RecordHeader, RecordKind};
use towline_wal::{
    Control, CutMark, DAMAGE_MAX, Damage, Level, Options, Wal, WalError, cut, read_log, repair,
};

use crate::forged::Forged;
use crate::support::*;

const SIZE: u64 = SegmentSize::MIN.bytes();

/// A log of two segments whose promises are all in its last record, if there are any: opening reads
/// all of it.
fn unread(promises: bool) -> (TempDir, PathBuf) {
    let (folder, dir) = founded("a");
    let options = Options { threads: false, ..Options::default() };
    let wal = Wal::open(&dir, options).unwrap().0;
    begin(&wal, 1);
    append_all(&wal, 0..500);
    if promises {
        wal.flush().unwrap();
        append(&wal, b"everything before it is on the disk");
    }
    (folder, dir)
}

/// A log of some segments of which opening reads the newest one only.
fn closed() -> (TempDir, PathBuf) {
    let (folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    append_all(&wal, 0..900);
    begin(&wal, 2);
    append_all(&wal, 900..1_600);
    wal.shutdown().unwrap();
    (folder, dir)
}

fn forge(dir: &Path, base: u64, forge: impl Fn(&mut Forged, &[RecordHeader])) {
    let mut file = Forged::open(dir, base);
    let records = file.records();
    forge(&mut file, &records);
    file.save();
}

fn sealed(records: &[RecordHeader]) -> &RecordHeader {
    records.last().filter(|last| last.kind == RecordKind::Seal).unwrap()
}

type Forgery = fn(&mut Forged, &[RecordHeader]);

/// What is put into the oldest segment, at which of its records, and what is said of it.
const FORGERIES: [(Forgery, Option<usize>, &str); 7] = [
    (|file, records| file.change(sealed(records)), None, "a SEAL with another digest"),
    (|file, records| file.change(&records[9]), None, "a SEAL with another digest"),
    (
        |file, records| file.put(&records[0], RecordKind::Barrier, &[9]),
        Some(0),
        "barrier.version: 9 is unknown",
    ),
    (
        |file, records| file.put(&records[0], RecordKind::Data, b"no BARRIER"),
        Some(0),
        "a segment that nothing leads to",
    ),
    (
        |file, records| {
            // The epoch's number, behind the version.
            let mut payload = file.payload(&records[0]);
            payload[1] ^= 2;
            file.put(&records[0], RecordKind::Barrier, &payload);
        },
        Some(0),
        "a BARRIER that does not follow",
    ),
    (
        |file, records| {
            let barrier = file.payload(&records[0]);
            file.put(&records[9], RecordKind::Barrier, &barrier);
        },
        Some(9),
        "a BARRIER that does not follow",
    ),
    (
        |file, records| {
            file.put_header(&RecordHeader { len: SIZE as u32, ..records[9] });
        },
        Some(9),
        "the record is cut short",
    ),
];

#[test]
fn what_no_log_says_is_damage_below_a_promise_and_ends_a_log_above_it() {
    for (number, (forgery, place, says)) in FORGERIES.into_iter().enumerate() {
        for promises in [true, false] {
            let (_folder, dir) = unread(promises);
            let records = Forged::open(&dir, 0).records();
            let place = place.map_or(*sealed(&records), |place| records[place]).lsn;
            forge(&dir, 0, forgery);
            let before = files(&dir);
            let mut reader = read_log(&dir).unwrap();
            assert_eq!(reader.by_ref().filter(Result::is_err).count(), 0);
            let verdict = reader.verdict().unwrap().clone();
            match open(&dir) {
                Err(WalError::Corrupt { at, what, path, .. }) if promises => {
                    assert_eq!((at, path), (place, segment(&dir, 0)), "{number}: {what}");
                    assert!(what.contains(says), "{number}: {what}");
                    assert!(files(&dir) == before, "{number}: nothing was changed");
                    assert!(verdict.is_corrupt() || verdict.stopped > place, "{verdict:?}");
                }
                Ok((wal, report)) if !promises => {
                    let (at, what) = report.torn.unwrap();
                    assert_eq!(at, place, "{number}: {what}");
                    assert!(what.contains(says), "{number}: {what}");
                    assert!(wal.appended() <= place, "{number}");
                }
                other => panic!("{number}: {other:?}"),
            }
        }
    }
}

fn damage_of(dir: &Path) -> Vec<Damage> {
    let wal = opened(dir);
    wal.scrub(None).flat_map(|check| check.unwrap().damaged).collect()
}

#[test]
fn a_scrub_sees_what_a_digest_alone_can_tell() {
    let (_folder, dir) = closed();
    let whole = files(&dir);
    let barrier = |base: &u64| Forged::open(&dir, *base).records().last().unwrap().kind;
    let ended = (0..).step_by(SIZE as usize).find(|base| barrier(base) != RecordKind::Seal);
    for (base, says) in [(0, "that its SEAL says"), (ended.unwrap(), "that the next BARRIER says")]
    {
        restore(&dir, &whole);
        forge(&dir, base, |file, records| file.change(&records[9]));
        let records = Forged::open(&dir, base).records();
        let last = records.last().unwrap();
        let to = if base == 0 { last.lsn } else { last.end() };
        let damage = damage_of(&dir);
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert_eq!((damage[0].from, damage[0].to), (records[0].lsn, to));
        assert!(damage[0].what.contains(says), "{}", damage[0].what);
        assert_eq!(damage[0].path, segment(&dir, base));
    }
}

#[test]
fn a_scrub_tells_where_damage_ends() {
    let (_folder, dir) = closed();
    let whole = files(&dir);
    // A header: up to the next whole one. A length no file has room for: up to the segment's end.
    forge(&dir, 0, |file, records| file.damage(&records[9]));
    let records = Forged::open(&dir, SIZE).records();
    let damage = damage_of(&dir);
    assert_eq!((damage.len(), damage[0].to.get() < SIZE), (1, true), "{damage:?}");
    restore(&dir, &whole);
    forge(&dir, SIZE, |file, records| {
        file.put_header(&RecordHeader { len: SIZE as u32, ..records[9] });
    });
    let damage = damage_of(&dir);
    assert_eq!((damage[0].from, damage[0].to.get()), (records[9].lsn, 2 * SIZE));
    assert_eq!(damage[0].what, "the record is cut short");
    restore(&dir, &whole);
    forge(&dir, SIZE, |file, records| file.damage(sealed(records)));
    let damage = damage_of(&dir);
    assert_eq!((damage[0].from, damage[0].to.get()), (sealed(&records).lsn, 2 * SIZE));
    // More of it than is told apart: the last one is all the rest.
    restore(&dir, &whole);
    forge(&dir, SIZE, |file, records| {
        records.iter().step_by(2).for_each(|record| file.damage(record));
    });
    let damage = damage_of(&dir);
    assert_eq!((damage.len(), damage[DAMAGE_MAX - 1].to.get()), (DAMAGE_MAX, 2 * SIZE));
}

#[test]
fn a_repair_is_refused_if_the_digest_says_that_the_rest_is_another_logs() {
    let ((_folder, dir), (_other, peer_dir)) = (closed(), founded("b"));
    let whole = files(&dir);
    restore(
        &peer_dir,
        &whole
            .iter()
            .map(|(path, bytes)| (peer_dir.join(path.file_name().unwrap()), bytes.clone()))
            .collect(),
    );
    let peer = opened(&peer_dir);
    let ended =
        |base: &u64| Forged::open(&dir, *base).records().last().unwrap().kind != RecordKind::Seal;
    let ended = (0..).step_by(SIZE as usize).find(ended).unwrap();
    for (base, says) in [(0, "the SEAL says"), (ended, "of the BARRIER")] {
        forge(&dir, base, |file, records| {
            file.change(&records[9]);
            file.damage(&records[20]);
        });
        let damaged = files(&dir);
        let place = Forged::open(&peer_dir, base).records()[20].lsn;
        let mut cursor = peer.cursor(place, Level::Flushed).unwrap();
        let chunk = cursor.next_chunk(1).unwrap().unwrap();
        let refused = repair(&dir, &[chunk], &Options::default()).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
        assert!(files(&dir) == damaged, "nothing was changed");
        restore(&dir, &whole);
    }
}

#[test]
fn a_barrier_that_can_not_be_read_is_told_by_whoever_needs_what_it_says() {
    let (_folder, dir) = closed();
    // One epoch alone, whose BARRIER no opening reads but for its terms.
    let end = read_log(&dir)
        .unwrap()
        .map(Result::unwrap)
        .find(|it| it.header.kind == RecordKind::Barrier && it.header.lsn.get() > SIZE);
    let history = opened(&dir).history();
    assert_eq!(history.starts()[1].first, end.unwrap().header.lsn);
    cut(&dir, history.starts()[1].previous_end, &Options::default()).unwrap();
    let wal = opened(&dir);
    append_all(&wal, 0..20);
    wal.shutdown().unwrap();
    drop(wal);
    let whole = files(&dir);
    let forgeries: [(Forgery, &str); 2] = [
        (|file, records| file.put(&records[0], RecordKind::Barrier, &[9]), "9 is unknown"),
        (|file, records| file.damage(&records[0]), "checksum does not match"),
    ];
    for (forgery, says) in forgeries {
        // An open log needs the terms when it trims them.
        let wal = opened(&dir);
        forge(&dir, 0, forgery);
        let trimmed = wal.trim(wal.appended()).unwrap_err();
        assert!(trimmed.to_string().contains(says), "{trimmed}");
        assert!(
            matches!(trimmed, WalError::Corrupt { at, .. } | WalError::Record { at, .. }
                if at == SegmentSize::first_record(Lsn::ZERO)),
            "{trimmed:?}"
        );
        assert_eq!(wal.oldest().base, Lsn::ZERO);
        wal.shutdown().unwrap();
        drop(wal);
        let refused = open(&dir).unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
        assert!(
            matches!(&refused, WalError::Corrupt { path, .. } if *path == segment(&dir, 0)),
            "{refused:?}"
        );
        restore(&dir, &whole);
    }
    assert_eq!(opened(&dir).history().starts().len(), 1);
}

#[test]
fn header_pages_under_good_checksums() {
    let (_folder, dir) = unread(true);
    let whole = files(&dir);
    let pages: [(usize, &[u8], &str); 5] = [
        (0, b"TOWLXXX\n", "this is no segment"),
        (50, &[1], "no segment size"),
        (26, &[1], "is no base"),
        (52, &[2], "this log's 65536"),
        (10, &[8], "it is of log"),
    ];
    for (at, field, says) in pages {
        let mut file = Forged::open(&dir, 0);
        file.put_page(at, field);
        file.save();
        let damaged = files(&dir);
        let refused = open(&dir).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
        assert!(files(&dir) == damaged, "nothing was changed");
        restore(&dir, &whole);
    }
}

/// A cut was under way when the process died, and what it was to keep rotted since.
#[test]
fn an_unfinished_cut_keeps_no_record_that_is_damaged() {
    let (_folder, dir) = closed();
    let wal = opened(&dir);
    let records = Forged::open(&dir, 0).records();
    let mark = CutMark { to: records[50].lsn, nonce: 99 };
    let marks = |control: &mut Control| {
        (control.cut, control.durable) = (Some(mark), mark.to);
        control.history.cut(mark.to);
    };
    wal.update_control(marks).unwrap();
    drop(wal);
    forge(&dir, 0, |file, records| file.damage(&records[20]));
    let refused = open(&dir).unwrap_err();
    assert!(matches!(refused, WalError::Record { at, .. } if at == records[20].lsn), "{refused:?}");
    forge(&dir, 0, |file, _| file.put_header(&records[20]));
    let (wal, report) = open(&dir).unwrap();
    assert_eq!((wal.appended(), contents(&wal)), (records[50].lsn, payloads(0..49)));
    let kept = files(&report.finished_cut.unwrap());
    assert!(kept.len() > 3, "{:?}", kept.keys());
}
