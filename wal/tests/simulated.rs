//! A log without threads on a simulated disk.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::path::Path;
use std::sync::Arc;

use support::*;
use towline_wal::simulated::SimDisk;
use towline_wal::{Options, Report, Wal, WalError, found_on};

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

#[test]
fn what_was_flushed_is_there_after_a_power_cut() {
    let disk = founded_disk(1);
    let wal = opened_on(&disk);
    begin(&wal, 1);
    for number in 0..600 {
        append(&wal, &payload(number));
    }
    wal.flush().unwrap();
    disk.power_cut();
    assert!(wal.flush().is_ok(), "nothing is left to flush");
    drop(wal);
    assert_eq!(contents(&opened_on(&disk)), payloads(0..600));
}
