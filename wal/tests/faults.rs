//! Disks that refuse: a failed sync, and no room.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{append, begin, contents, founded, opened, payload, payloads};
use towline_protocol::record::RecordKind;
use towline_wal::{Disk, FileDisk, Options, Wal, WalError};

/// A disk whose syncs and whose room can be taken away.
#[derive(Debug, Default)]
struct FaultyDisk {
    syncs_fail: AtomicBool,
    full: AtomicBool,
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, header: &[u8], len: u64) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        FileDisk.create(path, header, len)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        FileDisk.write(path, content)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.syncs_fail.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        FileDisk.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FileDisk.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        FileDisk.hard_link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        FileDisk.sync_dir(dir)
    }
}

fn open_on(disk: &Arc<FaultyDisk>, dir: &Path) -> Arc<Wal> {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    Wal::open(dir, Options { disk, ..Options::default() }).unwrap().0
}

#[test]
fn a_failed_sync_poisons_the_log_for_good_and_reads_go_on() {
    let (_folder, dir) = founded("a");
    let disk = Arc::new(FaultyDisk::default());
    let wal = open_on(&disk, &dir);
    begin(&wal, 1);
    for number in 0..10 {
        append(&wal, &payload(number));
    }
    let flushed = wal.flush().unwrap();
    disk.syncs_fail.store(true, Ordering::SeqCst);
    let lost = match wal.append(RecordKind::Data, 0, &payload(10)) {
        Ok(appended) => appended,
        Err(error) => panic!("the sync has not failed yet: {error}"),
    };
    assert!(matches!(wal.wait_flushed(lost.end), Err(WalError::Poisoned(_))));
    // The disk is well again; the log must not believe it.
    disk.syncs_fail.store(false, Ordering::SeqCst);
    assert!(matches!(wal.flush(), Err(WalError::Poisoned(_))));
    let refused = wal.append(RecordKind::Data, 0, b"more");
    assert!(matches!(refused, Err(WalError::Poisoned(_))));
    assert_eq!(wal.flushed(), flushed);
    assert_eq!(contents(&wal), payloads(0..10));
    assert!(wal.poisoned().is_some());
    drop(wal);
    // What was flushed is there; the rest may be, and is durable then.
    let wal = opened(&dir);
    let found = contents(&wal);
    assert!(found == payloads(0..10) || found == payloads(0..11));
    assert!(wal.poisoned().is_none());
}

#[test]
fn a_full_disk_holds_appends_up_and_loses_nothing() {
    let (_folder, dir) = founded("a");
    let disk = Arc::new(FaultyDisk::default());
    let wal = open_on(&disk, &dir);
    begin(&wal, 1);
    disk.full.store(true, Ordering::SeqCst);
    let back = {
        let disk = Arc::clone(&disk);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            disk.full.store(false, Ordering::SeqCst);
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
