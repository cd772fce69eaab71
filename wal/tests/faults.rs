//! Disks that refuse: a failed sync, and no room.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{append, begin, contents, founding, payload, payloads};
use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{Options, Wal, WalError, found_on};

const DIR: &str = "/node/log";

fn founded_disk() -> SimDisk {
    let disk = SimDisk::new(1);
    found_on(&disk, Path::new(DIR), &founding("a")).unwrap();
    disk
}

fn open_on(disk: &SimDisk) -> Arc<Wal> {
    let disk = Arc::new(disk.clone());
    Wal::open(Path::new(DIR), Options { disk, ..Options::default() }).unwrap().0
}

#[test]
fn a_failed_sync_poisons_the_log_for_good_and_reads_go_on() {
    let disk = founded_disk();
    let wal = open_on(&disk);
    begin(&wal, 1);
    for number in 0..10 {
        append(&wal, &payload(number));
    }
    let flushed = wal.flush().unwrap();
    disk.fail_syncs(u32::MAX);
    let lost = match wal.append(RecordKind::Data, 0, &payload(10)) {
        Ok(appended) => appended,
        Err(error) => panic!("the sync has not failed yet: {error}"),
    };
    assert!(matches!(wal.wait_flushed(lost.end), Err(WalError::Poisoned(_))));
    // The disk is well again; the log must not believe it.
    disk.fail_syncs(0);
    assert!(matches!(wal.flush(), Err(WalError::Poisoned(_))));
    let refused = wal.append(RecordKind::Data, 0, b"more");
    assert!(matches!(refused, Err(WalError::Poisoned(_))));
    assert_eq!(wal.flushed(), flushed);
    assert_eq!(contents(&wal), payloads(0..10));
    assert!(wal.poisoned().is_some());
    drop(wal);
    // What was flushed is there; the rest may be, and is durable then.
    let wal = open_on(&disk);
    let found = contents(&wal);
    assert!(found == payloads(0..10) || found == payloads(0..11));
    assert!(wal.poisoned().is_none());
}

#[test]
fn a_full_disk_holds_appends_up_and_loses_nothing() {
    let disk = founded_disk();
    let wal = open_on(&disk);
    begin(&wal, 1);
    disk.set_full(true);
    let back = {
        let disk = disk.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            disk.set_full(false);
        })
    };
    let started = Instant::now();
    // Several segments' worth: at the latest the third has to wait for room.
    for number in 0..1_500 {
        append(&wal, &payload(number));
    }
    assert!(started.elapsed() >= Duration::from_millis(400), "nothing waited for room");
    back.join().unwrap();
    wal.flush().unwrap();
    assert_eq!(contents(&wal), payloads(0..1_500));
}
