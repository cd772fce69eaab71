//! Opening a log, and finding a place in it: what that costs, and what it says of what it found.

use std::path::Path;
use std::sync::Arc;

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_wal::simulated::SimDisk;
use towline_wal::{Options, Report, Wal, WalError, Witness, cut, found_on};

use crate::support::*;

const DIR: &str = "/node/log";

fn founded_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    found_on(&disk, Path::new(DIR), &founding("a")).unwrap();
    disk
}

fn open_on(disk: &SimDisk) -> Result<(Arc<Wal>, Report), WalError> {
    let disk = Arc::new(disk.clone());
    Wal::open(Path::new(DIR), Options { disk, threads: false, ..Options::default() })
}

fn opened_on(disk: &SimDisk) -> Arc<Wal> {
    open_on(disk).unwrap().0
}

/// A log of so many records, closed cleanly or killed.
fn log_of(records: u64, epochs: u64, clean: bool) -> SimDisk {
    let disk = founded_disk(records);
    let wal = opened_on(&disk);
    for epoch in 1..=epochs {
        begin(&wal, epoch);
        for number in 0..records / epochs {
            append(&wal, &payload(number));
            if number % 100 == 0 {
                wal.flush().unwrap();
            }
        }
    }
    wal.flush().unwrap();
    if clean {
        wal.shutdown().unwrap();
    }
    drop(wal);
    disk.kill();
    disk
}

#[test]
fn opening_reads_the_tail_however_long_the_log_is() {
    for (epochs, clean) in [(1, true), (1, false), (4, true), (4, false)] {
        let mut costs = Vec::new();
        for records in [2_000, 20_000] {
            let disk = log_of(records, epochs, clean);
            let before = disk.bytes_read();
            let (wal, report) = open_on(&disk).unwrap();
            let read = disk.bytes_read() - before;
            assert!(report.segments > records / 500, "{} segments", report.segments);
            assert!(report.scanned_bytes <= read && report.scanned_bytes > read - 49_152);
            assert!(report.scanned_from.get() + 3 * SegmentSize::MIN.bytes() > report.end.get());
            assert_eq!(contents(&wal).len() as u64, records);
            costs.push(read);
        }
        // The segment that holds the promise, what is behind it, the two that are ready, and a
        // SEAL before it; and again what is written again.
        let most = 7 * SegmentSize::MIN.bytes();
        assert!(costs.iter().all(|&cost| cost < most), "{costs:?} of {most}");
    }
}

/// A replica that comes back waits for this digest before its stream begins, with a deadline.
#[test]
fn a_digest_of_an_old_place_is_read_in_blocks_however_small_the_records_are() {
    let disk = founded_disk(1);
    let wal = opened_on(&disk);
    begin(&wal, 1);
    let mut places = Vec::new();
    // What is old is not mapped any more.
    while wal.appended().get() < 8 * SegmentSize::MIN.bytes() {
        places.push((append(&wal, b"small").end, wal.digest()));
        if places.len() % 256 == 0 {
            wal.flush().unwrap();
        }
    }
    let records = places.len() as u64 / 8;
    for (place, digest) in places.into_iter().step_by(331) {
        let before = disk.reads();
        assert_eq!(wal.digest_at(place).unwrap(), digest);
        let reads = disk.reads() - before;
        assert!(reads < 8, "{reads} reads at {place}; a segment has {records} records");
    }
}

#[test]
fn a_report_says_what_was_cut_and_on_whose_word_the_rest_was_kept() {
    let mut torn = 0;
    for seed in 0..60 {
        let disk = founded_disk(seed);
        let wal = opened_on(&disk);
        begin(&wal, 1);
        for number in 0..100 {
            append(&wal, &payload(number));
        }
        let flushed = wal.flush().unwrap();
        for number in 100..150 {
            append(&wal, &payload(number));
        }
        let appended = wal.appended();
        disk.power_cut();
        drop(wal);
        let (wal, report) = open_on(&disk).unwrap();
        assert!(report.evidence <= flushed && report.end >= flushed);
        match report.witness {
            Witness::Record(at) => assert!(at >= flushed && report.evidence == flushed),
            Witness::Nobody => assert_eq!(report.evidence, Lsn::ZERO),
            other => panic!("{other}"),
        }
        let (kept, lost) = (report.end.distance_from(report.evidence), report.torn_bytes);
        assert!(report.rewritten_bytes <= kept, "{report:?}");
        if let Some((at, what)) = &report.torn {
            torn += 1;
            assert_eq!((*at, wal.appended()), (report.end, report.end));
            assert!(!what.is_empty() && report.bundle.is_some());
            assert!(lost > 0 && lost <= appended.distance_from(report.end));
        } else {
            assert_eq!((lost, &report.bundle), (0, &None));
        }
        assert_eq!(wal.flushed(), report.end);
        drop(wal);
        let (_, again) = open_on(&disk).unwrap();
        assert_eq!((again.torn, again.finished_cut), (None, None), "a cut is done once");
    }
    assert!(torn > 20, "only {torn} of 60 tails were torn");
}

#[test]
fn a_promise_of_the_control_file_or_of_the_caller_names_itself() {
    let disk = log_of(100, 1, true);
    let (wal, report) = open_on(&disk).unwrap();
    assert_eq!((report.evidence, report.witness), (wal.appended(), Witness::Control));
    let end = wal.appended();
    drop(wal);
    let sim: Arc<SimDisk> = Arc::new(disk.clone());
    let expecting = |expect_durable| {
        let disk: Arc<dyn towline_wal::Disk> = Arc::<SimDisk>::clone(&sim);
        Wal::open(Path::new(DIR), Options { disk, expect_durable, ..Options::default() })
    };
    drop(expecting(end).unwrap());
    match expecting(end.advance(16)) {
        Err(WalError::Corrupt { at, evidence, .. }) => {
            assert_eq!((at, evidence), (end, end.advance(16)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unfinished_cut_is_finished_and_told() {
    let mut finished = 0;
    for calls in 0..60 {
        let disk = log_of(900, 1, true);
        let end = {
            let wal = opened_on(&disk);
            let mut cursor = wal.cursor(Lsn::ZERO, towline_wal::Level::Flushed).unwrap();
            cursor.next_record().unwrap();
            cursor.position()
        };
        disk.die_after(calls);
        let options = Options { disk: Arc::new(disk.clone()), ..Options::default() };
        let done = cut(Path::new(DIR), end, &options);
        disk.power_cut();
        let (wal, report) = open_on(&disk).unwrap();
        if let Some(bundle) = &report.finished_cut {
            finished += 1;
            assert_eq!(wal.appended(), end);
            assert!(done.is_err() && disk.files().iter().any(|(path, _)| path.starts_with(bundle)));
        }
        drop(wal);
        assert_eq!(open_on(&disk).unwrap().1.finished_cut, None);
    }
    assert!(finished > 5, "only {finished} cuts were left unfinished");
}

#[test]
fn a_blank_segment_with_a_damaged_header_is_nobodys_loss() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    for number in 0..300 {
        append(&wal, &payload(number));
    }
    let base = SegmentSize::MIN.next_base(SegmentSize::MIN.base_of(wal.appended()));
    let ready = segment(&dir, base.get());
    wait_for(&ready);
    wal.shutdown().unwrap();
    drop(wal);
    for offset in [0, 9, 30, 75] {
        flip(&ready, offset, 4);
        let (wal, report) = open(&dir).unwrap();
        assert_eq!(report.discarded.as_ref(), Some(&ready));
        assert!(report.torn.is_none());
        for number in 300..600 {
            append(&wal, &payload(number));
        }
        wal.flush().unwrap();
        assert_eq!(contents(&wal), payloads(0..600));
        drop(wal);
        let (wal, report) = open(&dir).unwrap();
        assert_eq!((report.discarded, contents(&wal).len()), (None, 600));
        let end = towline_wal::read_log(&dir).unwrap().flatten().nth(300).unwrap().header.end();
        wal.shutdown().unwrap();
        drop(wal);
        // Back to where it was, for the next offset.
        cut(&dir, end, &Options::default()).unwrap();
        let wal = opened(&dir);
        wal.flush().unwrap();
        wait_for(&ready);
        wal.shutdown().unwrap();
    }
    // One that holds something is not.
    let first = segment(&dir, 0);
    flip(&first, 9, 4);
    match open(&dir) {
        Err(WalError::Corrupt { path, at, .. }) => assert_eq!((path, at), (first, Lsn::ZERO)),
        Err(error) => panic!("{error}"),
        // Its records are known to be durable and are not read on opening.
        Ok((wal, _)) => {
            let mut cursor = wal.cursor(Lsn::ZERO, towline_wal::Level::Flushed).unwrap();
            assert!(matches!(cursor.next_record(), Err(WalError::Corrupt { .. })));
        }
    }
}

#[test]
fn a_torn_tail_is_cut_off_also_where_the_blank_segment_has_a_damaged_header() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    for number in 0..300 {
        append(&wal, &payload(number));
    }
    let end = wal.flush().unwrap();
    let base = SegmentSize::MIN.base_of(end);
    let ready = segment(&dir, SegmentSize::MIN.next_base(end).get());
    wait_for(&ready);
    wal.shutdown().unwrap();
    drop(wal);
    flip(&ready, 9, 4);
    flip(&segment(&dir, base.get()), SegmentSize::MIN.offset_of(end) + 100, 4);
    let (wal, report) = open(&dir).unwrap();
    assert_eq!((report.torn.map(|(at, _)| at), report.end), (Some(end), end));
    let bundle = report.bundle.unwrap();
    assert!(bundle.join(ready.file_name().unwrap()).exists(), "what is damaged is kept as well");
    for number in 300..600 {
        append(&wal, &payload(number));
    }
    wal.flush().unwrap();
    assert_eq!(contents(&wal), payloads(0..600));
}

/// A step that comes too late, from before the log was closed, would undo a promise that was made
/// since.
#[test]
fn a_closed_log_no_longer_writes_the_control_file() {
    let disk = founded_disk(1);
    let old = opened_on(&disk);
    begin(&old, 1);
    old.shutdown().unwrap();
    let new = opened_on(&disk);
    new.update_control(|control| control.fence.number = 9).unwrap();
    let late = old.update_control(|control| control.fence.number = control.fence.number.max(2));
    assert!(matches!(late, Err(WalError::Closed)), "{late:?}");
    drop(new);
    assert_eq!(opened_on(&disk).control().fence.number, 9);
}
