//! The log's beginning: what slots keep, what a trim removes, and who is told that he fell behind.

use std::path::Path;
use std::sync::Arc;

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{Level, Options, SLOTS_MAX, Slot, Wal, WalError, cut, found_on, read_log};

use crate::support::*;

const DIR: &str = "/node/log";
const SIZE: SegmentSize = SegmentSize::MIN;

fn open_on(disk: &SimDisk) -> Arc<Wal> {
    let disk = Arc::new(disk.clone());
    let options = Options { disk, threads: false, ..Options::default() };
    Wal::open(Path::new(DIR), options).unwrap().0
}

fn founded_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    found_on(&disk, Path::new(DIR), &founding("a")).unwrap();
    disk
}

/// Appends so many records; the positions behind each.
fn fill(wal: &Wal, records: std::ops::Range<u64>) -> Vec<Lsn> {
    let ends = records.map(|number| append(wal, &payload(number)).end).collect();
    wal.flush().unwrap();
    ends
}

/// The payloads from a position on.
fn contents_from(wal: &Wal, from: Lsn) -> Vec<Vec<u8>> {
    let mut cursor = wal.cursor(from, Level::Flushed).unwrap();
    let mut found = Vec::new();
    while let Some(record) = cursor.next_record().unwrap() {
        if record.header.kind == RecordKind::Data {
            found.push(record.payload.to_vec());
        }
    }
    found
}

#[test]
fn a_trim_removes_whole_segments_and_the_rest_is_as_it_was() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let ends = fill(&wal, 0..1_500);
    let (digest, terms, at) = (wal.digest(), wal.terms(), ends[999]);
    let behind = wal.digest_at(ends[1_200]).unwrap();
    let report = wal.trim(at).unwrap();
    assert_eq!(report.oldest.base, SIZE.base_of(at));
    assert!(report.segments >= 2 && report.held_by.is_none(), "{report:?}");
    assert_eq!(wal.trim(at).unwrap().segments, 0, "nothing is left to trim");
    for _ in 0..2 {
        let wals = files(&dir).into_keys().filter(|it| it.extension().is_some_and(|e| e == "wal"));
        assert_eq!(wals.min(), Some(segment(&dir, report.oldest.base.get())));
    }
    let lagged = |wal: &Wal, at| match wal.cursor(at, Level::Flushed) {
        Err(WalError::Lagged { at: told, oldest }) => {
            assert_eq!((told, oldest), (at, report.oldest.end));
        }
        other => panic!("{other:?}"),
    };
    let first = ends.iter().position(|&end| end > report.oldest.end).unwrap() as u64;
    lagged(&wal, Lsn::ZERO);
    wal.shutdown().unwrap();
    drop(wal);
    let wal = opened(&dir);
    lagged(&wal, ends[0]);
    assert_eq!((wal.digest(), wal.terms(), wal.oldest()), (digest, terms, report.oldest));
    assert_eq!(wal.digest_at(ends[1_200]).unwrap(), behind);
    assert!(matches!(wal.digest_at(ends[3]), Err(WalError::Lagged { .. })));
    assert_eq!(contents_from(&wal, report.oldest.end), payloads(first..1_500));
    begin(&wal, 2);
    fill(&wal, 1_500..1_600);
    wal.shutdown().unwrap();
    let mut reader = read_log(&dir).unwrap();
    assert!(reader.by_ref().all(|record| record.is_ok()));
    let verdict = reader.verdict().unwrap();
    assert_eq!((verdict.digest, verdict.end), (wal.digest(), wal.appended()));
    assert!(!verdict.is_corrupt());
}

#[test]
fn a_trim_never_takes_the_tail_nor_what_a_slot_needs() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    assert_eq!(wal.trim(Lsn::new(1 << 30)).unwrap().segments, 0, "there is nothing");
    begin(&wal, 1);
    let ends = fill(&wal, 0..1_500);
    wal.create_slot("replica", ends[700], None).unwrap();
    wal.create_slot("engine", ends[1_100], None).unwrap();
    let report = wal.trim(wal.appended()).unwrap();
    assert_eq!(
        (report.oldest.base, report.held_by),
        (SIZE.base_of(ends[700]), Some("replica".into()))
    );
    wal.advance_slot("replica", ends[1_300]).unwrap();
    wal.advance_slot("replica", ends[900]).unwrap();
    let report = wal.trim(wal.appended()).unwrap();
    assert_eq!(
        (report.oldest.base, report.held_by),
        (SIZE.base_of(ends[1_100]), Some("engine".into()))
    );
    wal.shutdown().unwrap();
    drop(wal);
    let wal = opened(&dir);
    let slot = |name: &str, position| Slot {
        name: name.to_owned(),
        position,
        keep_bytes_max: None,
        lagged: false,
    };
    assert_eq!(wal.slots(), [slot("replica", ends[1_300]), slot("engine", ends[1_100])]);
    assert_eq!(contents_from(&wal, ends[1_100]), payloads(1_101..1_500));
    wal.drop_slot("engine").unwrap();
    wal.drop_slot("replica").unwrap();
    let report = wal.trim(Lsn::new(1 << 40)).unwrap();
    assert_eq!(report.oldest.base, SIZE.base_of(wal.appended()), "the tail stays");
    fill(&wal, 1_500..1_600);
}

#[test]
fn a_slot_past_its_bound_holds_nothing_and_is_told() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let ends = fill(&wal, 0..1_500);
    let bound = 2 * SIZE.bytes();
    wal.create_slot("slow", ends[10], Some(bound)).unwrap();
    wal.create_slot("fast", ends[1_200], Some(bound)).unwrap();
    let report = wal.trim(wal.appended()).unwrap();
    assert_eq!((report.lagged, report.held_by), (vec!["slow".to_owned()], Some("fast".into())));
    for _ in 0..2 {
        match wal.advance_slot("slow", ends[1_499]) {
            Err(WalError::Lagged { at, oldest }) => {
                assert_eq!((at, oldest), (ends[10], wal.oldest().end));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(wal.cursor(ends[10], Level::Flushed), Err(WalError::Lagged { .. })));
    let late = wal.create_slot("late", ends[10], None);
    assert!(matches!(late, Err(WalError::Lagged { .. })), "{late:?}");
    wal.drop_slot("slow").unwrap();
    wal.create_slot("slow", wal.oldest().end, Some(bound)).unwrap();
    // Inside the bound it is kept however often somebody trims.
    assert_eq!(wal.trim(wal.appended()).unwrap().segments, 0);
}

#[test]
fn a_cursor_that_is_overtaken_by_a_trim_is_told_and_its_bytes_stay() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let ends = fill(&wal, 0..100);
    let mut cursor = wal.cursor(ends[49], Level::Flushed).unwrap();
    let held = cursor.next_record().unwrap().unwrap();
    fill(&wal, 100..2_500);
    wal.trim(wal.appended()).unwrap();
    assert_eq!(held.payload, payload(50), "a file that is read stays readable");
    let error = loop {
        match cursor.next_record() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("skipped what is trimmed"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WalError::Lagged { .. }), "{error}");
}

#[test]
fn what_no_slot_can_be_is_refused_by_name() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let ends = fill(&wal, 0..10);
    let refused = |made: Result<(), WalError>| assert!(matches!(made, Err(WalError::Slot { .. })));
    refused(wal.create_slot("", ends[0], None));
    refused(wal.create_slot(&"x".repeat(65), ends[0], None));
    refused(wal.advance_slot("nobody", ends[0]));
    refused(wal.drop_slot("nobody"));
    let far = wal.create_slot("far", wal.appended().advance(1), None);
    assert!(matches!(far, Err(WalError::NoBoundary(_))));
    for number in 0..SLOTS_MAX {
        wal.create_slot(&format!("slot {number}"), ends[0], None).unwrap();
    }
    refused(wal.create_slot("slot 3", ends[0], None));
    refused(wal.create_slot("one more", ends[0], None));
    assert!(matches!(wal.advance_slot("slot 3", Lsn::new(1 << 40)), Err(WalError::NoBoundary(_))));
}

#[test]
fn a_trim_that_loses_power_anywhere_is_finished_or_not_begun() {
    let (mut begun, mut leftovers) = (0, 0);
    for calls in 0..60 {
        let disk = founded_disk(calls);
        let wal = open_on(&disk);
        begin(&wal, 1);
        let mut ends = fill(&wal, 0..1_000);
        begin(&wal, 2);
        ends.extend(fill(&wal, 1_000..2_000));
        wal.create_slot("reader", ends[1_500], Some(1 << 20)).unwrap();
        let (digest, terms) = (wal.digest(), wal.terms());
        disk.die_after(calls);
        let done = wal.trim(wal.appended());
        disk.power_cut();
        drop(wal);
        let options =
            Options { disk: Arc::new(disk.clone()), threads: false, ..Options::default() };
        let (wal, report) = Wal::open(Path::new(DIR), options).unwrap();
        leftovers += report.finished_trim;
        let oldest = wal.oldest();
        assert!(oldest.base == Lsn::ZERO || oldest.base == SIZE.base_of(ends[1_500]));
        assert!(done.is_err() || oldest.base > Lsn::ZERO, "a trim that was done is undone");
        begun += u64::from(oldest.base > Lsn::ZERO);
        assert_eq!((wal.digest(), wal.terms()), (digest, terms));
        assert_eq!(wal.slots()[0].position, ends[1_500]);
        assert_eq!(contents_from(&wal, ends[1_500]), payloads(1_501..2_000));
        disk.power_cut();
        let names = disk.files().into_iter().map(|(path, _)| path);
        let mut wals = names.filter(|path| path.extension().is_some_and(|it| it == "wal"));
        let first = Path::new(DIR).join(format!("{:020}.wal", oldest.base.get()));
        assert!(wals.all(|path| path >= first), "opening has removed the rest for good");
    }
    assert!(begun > 20 && leftovers > 20, "{begun} trims, {leftovers} leftovers");
}

#[test]
fn slots_never_stand_behind_the_end_of_a_log_that_lost_power_or_was_cut() {
    for seed in 0..60 {
        let disk = founded_disk(seed);
        let wal = open_on(&disk);
        begin(&wal, 1);
        let ends = fill(&wal, 0..300);
        let tail: Vec<_> = (300..500).map(|number| append(&wal, &payload(number)).end).collect();
        let last = tail[199];
        wal.create_slot("ahead", last, None).unwrap();
        wal.create_slot("behind", ends[20], None).unwrap();
        disk.power_cut();
        drop(wal);
        let wal = open_on(&disk);
        let slots = wal.slots();
        assert_eq!((slots[0].position, slots[1].position), (wal.appended().min(last), ends[20]));
        wal.shutdown().unwrap();
        drop(wal);
        let options = Options { disk: Arc::new(disk.clone()), ..Options::default() };
        cut(Path::new(DIR), ends[100], &options).unwrap();
        assert_eq!(open_on(&disk).slots()[0].position, ends[100]);
    }
}

#[test]
fn a_trimmed_log_is_cut_back_no_further_than_its_beginning() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let mut ends = fill(&wal, 0..1_000);
    wal.trim(wal.appended()).unwrap();
    begin(&wal, 2);
    ends.extend(fill(&wal, 1_000..1_500));
    let terms = wal.terms();
    wal.shutdown().unwrap();
    drop(wal);
    let below = cut(&dir, ends[10], &Options::default());
    assert!(matches!(below, Err(WalError::Lagged { .. })), "{below:?}");
    // The BARRIER of the epoch that is the newest then was trimmed; its terms are known still.
    cut(&dir, ends[999], &Options::default()).unwrap();
    let wal = opened(&dir);
    assert_eq!((wal.appended(), wal.terms()), (ends[999], terms));
    begin(&wal, 3);
    fill(&wal, 1_000..1_100);
    drop(wal);
    drop(opened(&dir));
}

#[test]
fn a_replica_receives_on_a_log_that_was_trimmed() {
    let ((_one, from), (_two, to)) = (founded("a"), founded("b"));
    let (primary, replica) = (opened(&from), opened(&to));
    begin(&primary, 1);
    let mut next = 0;
    for _ in 0..5 {
        fill(&primary, next..next + 500);
        next += 500;
        let mut cursor = primary.cursor(replica.appended(), Level::Flushed).unwrap();
        while let Some(chunk) = cursor.next_chunk(3_000).unwrap() {
            replica.receive(chunk.segment, chunk.from, &chunk.bytes).unwrap();
        }
        replica.flush().unwrap();
        replica.trim(replica.appended()).unwrap();
        primary.trim(primary.appended()).unwrap();
        assert_eq!(primary.oldest(), replica.oldest());
    }
    assert_eq!(primary.digest(), replica.digest());
}

/// A log that begins with nothing that is flushed would have no segment at all once what is there
/// turns out to be torn.
#[test]
fn a_trim_leaves_a_flushed_record_where_a_seal_fills_its_segment() {
    for seed in 0..40 {
        let disk = founded_disk(seed);
        let wal = open_on(&disk);
        begin(&wal, 1);
        let left = |wal: &Wal| SIZE.bytes() - SIZE.offset_of(wal.appended());
        while left(&wal) > SIZE.max_payload() {
            append(&wal, &payload(1));
        }
        // A record's header, and a SEAL.
        append(&wal, &vec![7; left(&wal) as usize - 32 - 48]);
        let mut claim = wal.reserve(RecordKind::Data, 0, 4_000).unwrap();
        let full = SIZE.next_base(Lsn::ZERO);
        assert_eq!(wal.appended(), full, "the SEAL ends its segment");
        wal.wait_flushed(full).unwrap();
        wal.trim(full).unwrap();
        claim.fill(&[9; 4_000]).unwrap();
        let _ = claim.commit().unwrap();
        drop(wal);
        disk.power_cut();
        let wal = open_on(&disk);
        assert!(wal.flushed() >= full, "seed {seed}");
    }
}
