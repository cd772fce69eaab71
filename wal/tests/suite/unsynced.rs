//! How much of a log may wait for a sync, and what a power cut leaves of that.

use std::path::Path;
use std::sync::Arc;

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_wal::simulated::SimDisk;
use towline_wal::{Options, SyncMode, Wal, found, found_on};

use crate::support::*;

const LEN: usize = 4_000;
/// So many records fill a segment, and so many more another.
const PER_SEGMENT: usize = 15;

/// Appends a record of one length.
fn append_one(wal: &Wal, life: u8, number: u32) -> Vec<u8> {
    let mut payload = vec![life; LEN];
    payload[..4].copy_from_slice(&number.to_le_bytes());
    append(wal, &payload);
    payload
}

/// Appends to six segments and asks for no sync; what was in the log when the tail's segment was
/// entered has to be noted before the next one is.
fn check_that_two_wait(wal: &Wal) {
    let mut entered = vec![Lsn::ZERO];
    let segment = |lsn: Lsn| SegmentSize::MIN.base_of(lsn);
    for number in 0..6 * PER_SEGMENT as u32 {
        let before = wal.appended();
        append_one(wal, 1, number);
        if segment(wal.appended()) > segment(before) {
            entered.push(before);
        }
        let Some(last) = entered.len().checked_sub(2) else { continue };
        assert!(wal.flushed() >= entered[last], "{} of {entered:?}", wal.flushed());
        assert!(wal.control().durable >= entered[last], "{:?} of {entered:?}", wal.control());
    }
    assert!(entered.len() > 5 && wal.flushed() < wal.appended(), "nobody else syncs");
}

#[test]
fn no_more_than_two_segments_wait_for_a_sync() {
    let disk = SimDisk::new(1);
    found_on(&disk, Path::new("/log"), &founding("a")).unwrap();
    let options = Options { disk: Arc::new(disk), threads: false, ..Options::default() };
    let (wal, _) = Wal::open(Path::new("/log"), options).unwrap();
    begin(&wal, 1);
    check_that_two_wait(&wal);
}

#[test]
fn the_logs_own_thread_sees_to_that() {
    let folder = folder();
    let dir = folder.path().join("log");
    found(&dir, &founding("a")).unwrap();
    let options = Options { sync_mode: SyncMode::OnFlush, ..Options::default() };
    let (wal, _) = Wal::open(&dir, options).unwrap();
    begin(&wal, 1);
    check_that_two_wait(&wal);
}

/// What a tail of several segments leaves must not be found again once the log has grown to where
/// it lies: records of one length end where those of the life before did.
#[test]
fn nothing_of_a_lost_tail_comes_back_later() {
    let mut lost = 0;
    for seed in 0..120_u64 {
        let disk = SimDisk::new(seed);
        found_on(&disk, Path::new("/log"), &founding("a")).unwrap();
        let options =
            || Options { disk: Arc::new(disk.clone()), threads: false, ..Options::default() };
        let (mut written, mut flushed) = (Vec::new(), 0);
        for life in 1..=5_u8 {
            let (wal, report) = Wal::open(Path::new("/log"), options()).unwrap();
            let found = contents(&wal);
            let least_and_most = flushed..=written.len();
            assert!(least_and_most.contains(&found.len()), "seed {seed}, life {life}: {report:?}");
            assert!(found == written[..found.len()], "seed {seed}, life {life}: {report:?}");
            lost += u32::from(found.len() + PER_SEGMENT < written.len());
            (flushed, written) = (found.len(), found);
            if life == 1 {
                begin(&wal, 1);
            }
            for number in 0..4 * PER_SEGMENT as u32 {
                written.push(append_one(&wal, life, number));
                // An epoch may leave a segment early, with what is before it durable or not.
                match (seed + u64::from(number)) % 41 {
                    7 => {
                        wal.flush().unwrap();
                        flushed = written.len();
                    }
                    20 => drop(begin(&wal, u64::from(life) * 1_000 + u64::from(number))),
                    _ => {}
                }
            }
            drop(wal);
            disk.power_cut();
        }
    }
    assert!(lost > 20, "only {lost} tails of more than a segment were lost");
}
