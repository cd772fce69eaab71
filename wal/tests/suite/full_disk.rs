//! A log on a disk that is full: what it still takes.

use std::path::Path;
use std::sync::Arc;

use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{Level, Options, Wal, WalError, found_on};

use crate::support::*;

const DIR: &str = "/node/log";

fn log_on(disk: &SimDisk, name: &str) -> Arc<Wal> {
    let _ = found_on(disk, Path::new(DIR), &founding(name));
    let disk = Arc::new(disk.clone());
    let options = Options { disk, threads: false, ..Options::default() };
    Wal::open(Path::new(DIR), options).unwrap().0
}

/// Appends until there is no room; how many records there are then.
fn fill(wal: &Wal, mut number: u64) -> u64 {
    loop {
        match wal.append(RecordKind::Data, 0, &payload(number)) {
            Ok(_) => number += 1,
            Err(WalError::NoSpace(_)) => return number,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn an_epoch_begins_though_the_disk_was_full_when_its_first_one_began() {
    let disk = SimDisk::new(1);
    let wal = log_on(&disk, "a");
    begin(&wal, 1);
    disk.set_full(true);
    let count = fill(&wal, 0);
    assert!(count > 100, "the tail takes what fits into it: {count}");
    begin(&wal, 2);
    let count = fill(&wal, count);
    wal.flush().unwrap();
    disk.power_cut();
    drop(wal);
    let wal = log_on(&disk, "a");
    assert_eq!(contents(&wal), payloads(0..count));
    assert_eq!(wal.last_epoch().number, 2);
    assert!(matches!(wal.begin_epoch(&barrier(&wal, 3)), Err(WalError::NoSpace(_))));
    // Nothing of the refusal is left in the way.
    disk.set_full(false);
    begin(&wal, 3);
    assert_eq!(fill_some(&wal, count), count + 1_000);
}

fn fill_some(wal: &Wal, from: u64) -> u64 {
    for number in from..from + 1_000 {
        append(wal, &payload(number));
    }
    from + 1_000
}

#[test]
fn what_is_ready_is_found_again_and_reserved_again() {
    let disk = SimDisk::new(2);
    let wal = log_on(&disk, "a");
    begin(&wal, 1);
    append(&wal, b"one");
    wal.flush().unwrap();
    drop(wal);
    disk.set_full(true);
    for epoch in 2..4 {
        disk.power_cut();
        let wal = log_on(&disk, "a");
        let begun = wal.begin_epoch(&barrier(&wal, epoch));
        assert_eq!(begun.is_ok(), epoch == 2, "one was ready: {begun:?}");
    }
}

#[test]
fn the_end_of_an_epoch_has_room_and_a_claim_has_not() {
    let disk = SimDisk::new(3);
    let wal = log_on(&disk, "a");
    begin(&wal, 1);
    disk.set_full(true);
    // To the last byte: not even an empty record fits before the SEAL.
    while wal.append(RecordKind::Data, 0, b"").is_ok() {}
    let claim = wal.reserve(RecordKind::Data, 0, 8);
    assert!(matches!(claim, Err(WalError::NoSpace(_))), "{claim:?}");
    let end = wal.append(RecordKind::End, 0, &[]).unwrap();
    assert_eq!(end.lsn.get(), 65_536 + 4_096, "in the segment that was reserved");
}

#[test]
fn a_replica_on_a_full_disk_follows_into_the_next_epoch() {
    let (from, to) = (SimDisk::new(4), SimDisk::new(5));
    let (primary, replica) = (log_on(&from, "a"), log_on(&to, "b"));
    let ship = || -> Result<(), WalError> {
        let mut cursor = primary.cursor(replica.appended(), Level::Appended)?;
        while let Some(chunk) = cursor.next_chunk(4_096)? {
            replica.receive(chunk.segment, chunk.from, &chunk.bytes)?;
        }
        Ok(())
    };
    begin(&primary, 1);
    append(&primary, b"one");
    ship().unwrap();
    to.set_full(true);
    // Ordinary records leave the reserved segment alone, so that its own BARRIER has room.
    let kept = primary.appended();
    while primary.appended().get() < 65_536 + 8_192 {
        append(&primary, &[7; 2_000]);
    }
    assert!(matches!(ship(), Err(WalError::NoSpace(_))));
    assert!(replica.appended() > kept);
    to.set_full(false);
    ship().unwrap();
    to.set_full(true);
    begin(&primary, 2);
    append(&primary, b"two");
    ship().unwrap();
    assert_eq!(replica.digest(), primary.digest());
    assert_eq!(replica.last_epoch().number, 2);
}
