//! Rot that a peer can make good: found while the log runs, put back only if it is right.

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_wal::simulated::SimDisk;
use towline_wal::{
    Chunk, Damage, Level, Options, RepairReport, Wal, WalError, found_on, repair, repair_from,
};

use crate::support::*;

const SIZE: u64 = SegmentSize::MIN.bytes();
const RECORDS: u64 = 1_200;

/// A primary's folder and a replica with the same log, in two epochs.
fn pair() -> (TempDir, PathBuf, TempDir, Arc<Wal>) {
    let ((one, dir), (two, peer_dir)) = (founded("a"), founded("b"));
    let (wal, peer) = (opened(&dir), opened(&peer_dir));
    write(&wal, RECORDS);
    ship(&wal, &peer);
    wal.shutdown().unwrap();
    (one, dir, two, peer)
}

fn write(wal: &Wal, records: u64) {
    begin(wal, 1);
    for number in 0..records {
        append(wal, &payload(number));
        if number == 2 * records / 3 {
            begin(wal, 2);
        }
    }
    wal.flush().unwrap();
}

fn ship(from: &Arc<Wal>, to: &Wal) {
    let mut cursor = from.cursor(to.appended(), Level::Appended).unwrap();
    while let Some(chunk) = cursor.next_chunk(3_000).unwrap() {
        to.receive(chunk.segment, chunk.from, &chunk.bytes).unwrap();
    }
    to.flush().unwrap();
}

/// What a peer holds of the segments of some positions, whole.
fn segments_of(peer: &Arc<Wal>, places: &[Lsn]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for place in places {
        let base = SegmentSize::MIN.base_of(*place);
        let mut cursor = peer.cursor(SegmentSize::first_record(base), Level::Flushed).unwrap();
        while let Some(chunk) = cursor.next_chunk(10_000).unwrap() {
            if chunk.segment.base != base {
                break;
            }
            chunks.push(chunk);
        }
    }
    chunks
}

/// What a peer holds of a damaged range, and no more than the records that touch it.
fn range_of(peer: &Arc<Wal>, damage: &Damage) -> Vec<Chunk> {
    let mut cursor = peer.cursor(damage.from, Level::Flushed).unwrap();
    let mut chunks = Vec::new();
    while cursor.position() < damage.to {
        match cursor.next_chunk(1).unwrap() {
            Some(chunk) if chunk.from < damage.to => chunks.push(chunk),
            _ => break,
        }
    }
    chunks
}

fn damage_of(wal: &Wal) -> Vec<Damage> {
    wal.scrub(None).flat_map(|check| check.unwrap().damaged).collect()
}

#[test]
fn a_scrub_finds_what_rotted_and_a_peers_bytes_repair_it_while_the_log_runs() {
    let (_one, dir, _two, peer) = pair();
    let last = SegmentSize::MIN.base_of(peer.appended()).get();
    let mut found = 0;
    for offset in (4_096..last).step_by(4_999).filter(|offset| offset % SIZE >= 4_096) {
        let path = segment(&dir, offset / SIZE * SIZE);
        let whole = fs::read(&path).unwrap();
        flip(&path, offset % SIZE, 8);
        let wal = opened(&dir);
        let damaged = damage_of(&wal);
        for damage in &damaged {
            found += 1;
            let at = Lsn::new(offset);
            assert_eq!((&damage.path, damage.from <= at && at < damage.to), (&path, true));
            assert!(damage.to.distance_from(damage.from) <= 352, "{damage:?} of one record");
            let report = wal.repair(&range_of(&peer, damage)).unwrap();
            assert_eq!((report.segments.len(), report.records), (1, 1));
            assert!(report.bundles[0].join(path.file_name().unwrap()).exists());
            let again = wal.repair(&range_of(&peer, damage)).unwrap();
            assert_eq!(again, RepairReport::default(), "it is whole already");
        }
        assert_eq!(damage_of(&wal), []);
        assert_eq!(contents(&wal), payloads(0..RECORDS), "flip at {offset}");
        assert_eq!(wal.digest(), peer.digest());
        drop(wal);
        if damaged.is_empty() {
            fs::write(&path, whole).unwrap(); // Padding, or behind the end of an epoch.
        }
        assert_eq!(contents(&opened(&dir)), payloads(0..RECORDS));
    }
    assert!(found > 20, "only {found} flips were damage");
}

#[test]
fn a_cursor_that_met_the_damage_reads_on_once_it_is_repaired() {
    let (_one, dir, _two, peer) = pair();
    flip(&segment(&dir, 0), 30_000, 1);
    let wal = opened(&dir);
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    let (mut read, mut met) = (0, 0);
    loop {
        match cursor.next_record() {
            Ok(Some(_)) => read += 1,
            Ok(None) => break,
            Err(WalError::Corrupt { at, .. }) if met < 3 => {
                met += 1;
                assert_eq!(cursor.position(), at, "told again, and never skipped");
                if met == 3 {
                    wal.repair(&segments_of(&peer, &[at])).unwrap();
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    let mut whole = peer.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    let records = std::iter::from_fn(|| whole.next_record().unwrap()).count();
    assert_eq!((read, met), (records, 3));
}

#[test]
fn a_log_that_refuses_to_open_is_repaired_closed() {
    let (_one, dir, _two, peer) = pair();
    let (tail, tail_base) = (peer.appended(), SegmentSize::MIN.base_of(peer.appended()));
    let path = segment(&dir, tail_base.get());
    let whole = files(&dir);
    // In the open tail, that no SEAL ends: records, headers, several at once, and the last one.
    let end = tail.distance_from(tail_base);
    for flips in [&[4_200][..], &[5_000, 9_000, 9_500], &[end - 20], &[30, 4_100]] {
        for &offset in flips {
            flip(&path, offset, 2);
        }
        let Err(WalError::Corrupt { at, .. }) = open(&dir) else { panic!("{flips:?}") };
        let damaged = files(&dir);
        let nothing = repair(&dir, &[], &Options::default()).unwrap();
        assert_eq!((nothing, files(&dir) == damaged), (RepairReport::default(), true));
        let mut partly = segments_of(&peer, &[at]);
        let all = partly.clone();
        partly.pop();
        if partly.iter().all(|chunk| chunk.end.distance_from(tail_base) < flips[0]) {
            let refused = repair(&dir, &partly, &Options::default());
            assert!(matches!(refused, Err(WalError::Repair { .. })), "{refused:?}");
            assert!(files(&dir) == damaged, "nothing was changed");
        }
        let report = repair(&dir, &all, &Options::default()).unwrap();
        assert!(report.records > 0 && report.segments == [tail_base], "{flips:?}: {report:?}");
        let again = repair(&dir, &all, &Options::default()).unwrap();
        assert_eq!(again, RepairReport::default());
        let (wal, opening) = open(&dir).unwrap();
        assert!(opening.torn.is_none());
        assert_eq!((wal.digest(), contents(&wal)), (peer.digest(), payloads(0..RECORDS)));
        append(&wal, b"and on");
        wal.shutdown().unwrap();
        drop(wal);
        restore(&dir, &whole);
    }
}

#[test]
fn a_segment_that_is_gone_or_lost_its_header_is_built_from_a_peers() {
    let (_one, dir, _two, peer) = pair();
    let whole = files(&dir);
    for base in (0..=SegmentSize::MIN.base_of(peer.appended()).get()).step_by(SIZE as usize) {
        for way in ["removed", "header", "short"] {
            let path = segment(&dir, base);
            match way {
                "removed" => fs::remove_file(&path).unwrap(),
                "header" => flip(&path, 60, 1),
                _ => fs::write(&path, &whole[&path][..20_000]).unwrap(),
            }
            let chunks = segments_of(&peer, &[Lsn::new(base)]);
            let fewer = repair(&dir, &chunks[..chunks.len() - 1], &Options::default());
            assert!(matches!(fewer, Err(WalError::Repair { .. })), "{way} {base}: {fewer:?}");
            let report = repair(&dir, &chunks, &Options::default()).unwrap();
            assert_eq!(report.segments, [Lsn::new(base)], "{way}");
            let wal = opened(&dir);
            assert_eq!((wal.digest(), contents(&wal)), (peer.digest(), payloads(0..RECORDS)));
            assert_eq!(damage_of(&wal), []);
            drop(wal);
            restore(&dir, &whole);
        }
    }
}

#[test]
fn a_folder_is_repaired_from_a_peers_folder() {
    let (_one, dir, two, peer) = pair();
    let peer_dir = two.path().join("log");
    let options = Options::default();
    assert_eq!(repair_from(&dir, &peer_dir, &options).unwrap(), RepairReport::default());
    let tail = SegmentSize::MIN.base_of(peer.appended()).get();
    flip(&segment(&dir, 0), 30_000, 1);
    fs::remove_file(segment(&dir, SIZE)).unwrap();
    flip(&segment(&dir, 2 * SIZE), 60, 1);
    flip(&segment(&dir, tail), 5_000, 1);
    let report = repair_from(&dir, &peer_dir, &options).unwrap();
    assert_eq!(report.segments, [0, SIZE, 2 * SIZE, tail].map(Lsn::new));
    let wal = opened(&dir);
    assert_eq!((wal.digest(), contents(&wal)), (peer.digest(), payloads(0..RECORDS)));
    drop(wal);
    // A peer that has it no more, or is another log's, is of no use and does no harm.
    flip(&segment(&dir, 0), 30_000, 1);
    let damaged = files(&dir);
    peer.trim(peer.appended()).unwrap();
    let gone = repair_from(&dir, &peer_dir, &options);
    assert!(matches!(gone, Err(WalError::Repair { .. })), "{gone:?}");
    let stranger = folder();
    let mut founding = founding("c");
    founding.log.0 += 1;
    towline_wal::found(&stranger.path().join("log"), &founding).unwrap();
    let other = repair_from(&dir, &stranger.path().join("log"), &options);
    assert!(matches!(other, Err(WalError::Foreign { .. })), "{other:?}");
    assert!(files(&dir) == damaged);
}

#[test]
fn bytes_that_are_not_this_logs_change_nothing() {
    let (_one, dir, _two, peer) = pair();
    flip(&segment(&dir, 0), 30_000, 1);
    let damaged = files(&dir);
    let good = segments_of(&peer, &[Lsn::ZERO]);
    let refused = |chunks: &[Chunk], why: &str| {
        let result = repair(&dir, chunks, &Options::default());
        let is_typed = matches!(
            result,
            Err(WalError::Repair { .. } | WalError::Record { .. } | WalError::Lagged { .. })
        );
        assert!(is_typed, "{why}: {result:?}");
        assert!(files(&dir) == damaged, "{why}: nothing was changed");
    };
    for bit in [3, 200, 4_000] {
        let mut bad = good.clone();
        let mut bytes = bad[2].bytes.to_vec();
        bytes[bit] ^= 1;
        bad[2].bytes = bytes.into();
        refused(&bad, "damaged on the way");
    }
    let mut bad = good.clone();
    bad[0].segment.epoch.number += 1;
    refused(&bad, "of another epoch");
    let mut bad = good.clone();
    bad[1].from = bad[1].from.advance(16);
    refused(&bad, "at another place");
    let mut bad = good.clone();
    bad[1].segment.base = Lsn::new(SIZE);
    refused(&bad, "of another segment");
    // Another log of the same identity, with other records at the same places.
    let (_three, other_dir) = founded("c");
    let other = opened(&other_dir);
    begin(&other, 1);
    for number in 0..RECORDS {
        let mut payload = payload(number);
        *payload.last_mut().unwrap() ^= 1;
        append(&other, &payload);
    }
    other.flush().unwrap();
    refused(&segments_of(&other, &[Lsn::ZERO]), "another content");
    assert_eq!(repair(&dir, &good, &Options::default()).unwrap().records, 1);
}

#[test]
fn what_is_still_written_is_not_repaired_while_the_log_runs() {
    let (_one, dir, _two, peer) = pair();
    let wal = opened(&dir);
    let refused = wal.repair(&segments_of(&peer, &[peer.appended()]));
    assert!(matches!(refused, Err(WalError::Repair { .. })), "{refused:?}");
    drop(wal);
    let _open = opened(&dir);
    assert!(matches!(repair(&dir, &[], &Options::default()), Err(WalError::Locked(_))));
}

#[test]
fn a_repair_that_loses_power_anywhere_leaves_the_damage_or_the_whole() {
    const DIR: &str = "/node/log";
    let (_one, dir) = founded("b");
    let peer = opened(&dir);
    let (mut done, mut not) = (0, 0);
    for calls in 0..40 {
        let disk = SimDisk::new(calls);
        found_on(&disk, Path::new(DIR), &founding("a")).unwrap();
        let options =
            || Options { disk: Arc::new(disk.clone()), threads: false, ..Options::default() };
        let wal = Wal::open(Path::new(DIR), options()).unwrap().0;
        write(&wal, 600);
        if peer.appended() == Lsn::ZERO {
            ship(&wal, &peer);
        }
        wal.shutdown().unwrap();
        drop(wal);
        let (_, offset) = disk.rot("00000000.wal", calls).unwrap();
        disk.die_after(calls);
        let chunks = segments_of(&peer, &[Lsn::ZERO]);
        let repaired = repair(Path::new(DIR), &chunks, &options());
        disk.power_cut();
        let again = repair(Path::new(DIR), &chunks, &options()).unwrap();
        if let Ok(report) = &repaired {
            done += 1;
            assert!(report.segments.is_empty() || again.segments.is_empty(), "at {offset}");
        } else {
            not += 1;
        }
        disk.power_cut();
        let wal = Wal::open(Path::new(DIR), options()).unwrap().0;
        assert_eq!((wal.digest(), contents(&wal)), (peer.digest(), payloads(0..600)));
    }
    assert!(done > 10 && not > 5, "{done} were done, {not} were not");
}

#[test]
fn a_scrub_keeps_its_pace_beside_a_writer_and_ends_with_the_log() {
    let (_one, dir, _two, _peer) = pair();
    let wal = opened(&dir);
    let started = Instant::now();
    let pace = NonZeroU64::new(1 << 20);
    let writer = {
        let wal = Arc::clone(&wal);
        std::thread::spawn(move || {
            for number in RECORDS..RECORDS + 500 {
                append(&wal, &payload(number));
            }
            wal.flush().unwrap();
        })
    };
    let checks: Vec<_> = wal.scrub(pace).map(|check| check.unwrap()).collect();
    writer.join().unwrap();
    let read = checks.len() as u64 * SIZE;
    let least = Duration::from_secs_f64(read as f64 / (1 << 20) as f64);
    assert!(checks.len() >= 4 && started.elapsed() >= least, "{read} in {:?}", started.elapsed());
    assert!(checks.iter().all(|check| check.damaged.is_empty() && check.records > 0));
    let mut scrub = wal.scrub(NonZeroU64::new(1));
    wal.shutdown().unwrap();
    assert!(matches!(scrub.next(), Some(Err(WalError::Closed))));
}

/// A copy of a folder, beside it.
fn copied(dir: &Path) -> PathBuf {
    let copy = dir.with_file_name("peer");
    fs::create_dir(&copy).unwrap();
    for path in files(dir).keys() {
        fs::copy(path, copy.join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// A log whose newest segments were cut short or lost: what they promised went with them, so that
/// the peer's records behind the last known promise are taken as well.
#[test]
fn all_that_a_peer_has_is_taken_of_a_file_that_can_not_be_read() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    for number in 0..10 {
        append(&wal, &payload(number));
    }
    wal.flush().unwrap();
    // A crash: the control file does not say so.
    let whole = files(&dir);
    drop(wal);
    restore(&dir, &whole);
    let peer = copied(&dir);
    for damage in ["no header", "cut short", "gone"] {
        restore(&dir, &whole);
        let path = segment(&dir, 0);
        match damage {
            "no header" => flip(&path, 20, 1),
            "cut short" => fs::write(&path, &fs::read(&path).unwrap()[..5_000]).unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        let report = repair_from(&dir, &peer, &Options::default()).unwrap();
        assert_eq!(report.segments, [Lsn::ZERO], "{damage}");
        assert_eq!(contents(&opened(&dir)), payloads(0..10), "{damage}");
    }
}

/// It was reported whole, and then refused to be opened.
#[test]
fn a_ready_segment_that_was_cut_short_is_made_ready_again() {
    let (_folder, dir) = founded("a");
    let options = Options { threads: false, ..Options::default() };
    let wal = Wal::open(&dir, options).unwrap().0;
    begin(&wal, 1);
    append(&wal, &payload(0));
    let ready = segment(&dir, 65_536);
    wait_for(&ready);
    wal.shutdown().unwrap();
    drop(wal);
    let peer = copied(&dir);
    fs::write(&ready, &fs::read(&ready).unwrap()[..5_000]).unwrap();
    assert!(matches!(open(&dir), Err(WalError::Foreign { .. })));
    let report = repair_from(&dir, &peer, &Options::default()).unwrap();
    assert_eq!((report.segments, report.records), (vec![Lsn::new(65_536)], 0));
    assert_eq!(contents(&opened(&dir)), payloads(0..1));
}
