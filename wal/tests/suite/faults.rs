//! Disks that refuse: a failed sync, and no room.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{Options, Wal, WalError, cut, found_on, read_control_on};

use crate::support::{append, begin, contents, founding, payload, payloads};

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

#[test]
fn a_full_disk_takes_fences_epochs_notes_and_cuts() {
    let disk = founded_disk();
    let options = || Options { disk: Arc::new(disk.clone()), ..Options::default() };
    let wal = open_on(&disk);
    begin(&wal, 1);
    for number in 0..10 {
        append(&wal, &payload(number));
    }
    let kept = wal.flush().unwrap();
    append(&wal, &payload(10));
    disk.set_full(true);
    for number in 1..100 {
        wal.update_control(|control| control.fence.number = number).unwrap();
    }
    wal.create_slot("reader", kept, None).unwrap();
    wal.shutdown().unwrap();
    drop(wal);
    let control = read_control_on(&disk, Path::new(DIR)).unwrap();
    assert_eq!((control.fence.number, control.slots().len()), (99, 1));
    // A cut at the base of a segment makes no file.
    let report = cut(Path::new(DIR), Lsn::ZERO, &options()).unwrap();
    assert_eq!(report.records, 12);
    let (wal, report) = Wal::open(Path::new(DIR), options()).unwrap();
    assert_eq!((wal.appended(), report.finished_cut), (Lsn::ZERO, None));
    assert_eq!(wal.control().fence.number, 99);
}

/// A change of which the first copy fails is tried again without touching the one that is whole.
#[test]
fn a_control_copy_that_failed_is_written_first_until_it_is_whole() {
    for whole in 0..2 {
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            found_on(&disk, Path::new(DIR), &founding("a")).unwrap();
            let options =
                Options { disk: Arc::new(disk.clone()), threads: false, ..Options::default() };
            let (wal, _) = Wal::open(Path::new(DIR), options.clone()).unwrap();
            let fence = |number| wal.update_control(|control| control.fence.number = number);
            fence(1).unwrap();
            disk.fail_sync_behind(whole);
            assert!(fence(2).is_err());
            if seed % 2 == 0 {
                // The next life sees in the page cache what may not be on the disk.
                disk.kill();
                drop(wal);
                let (wal, _) = Wal::open(Path::new(DIR), options.clone()).unwrap();
                disk.die_after(seed / 2 % 8);
                let _ = wal.update_control(|control| control.fence.number = 3);
            } else {
                disk.die_after(seed / 2 % 8);
                let _ = fence(3);
            }
            disk.power_cut();
            let control = read_control_on(&disk, Path::new(DIR)).unwrap();
            assert!((1..=3).contains(&control.fence.number), "{}", control.fence);
            let (wal, _) = Wal::open(Path::new(DIR), options).unwrap();
            assert_eq!(wal.control().fence, control.fence);
        }
    }
}

/// A control file grows into the room it has; past it a new one is made.
#[test]
fn a_control_file_grows_before_it_must() {
    let disk = founded_disk();
    let len = |disk: &SimDisk| {
        let control = Path::new(DIR).join("control.0");
        disk.files().iter().find(|(path, _)| *path == control).unwrap().1.len()
    };
    assert_eq!(len(&disk), 4096);
    let wal = open_on(&disk);
    begin(&wal, 1);
    for number in 0..40 {
        wal.create_slot(&format!("{number:064}"), wal.appended(), None).unwrap();
    }
    assert!(len(&disk) > 4096);
    disk.set_full(true);
    // What is left of a file takes changes still, half of it at the least.
    let name = |number: u32| format!("{number:064}");
    for number in 40..64 {
        wal.create_slot(&name(number), wal.appended(), None).unwrap();
    }
    drop(wal);
    assert_eq!(open_on(&disk).slots().len(), 64);
}
