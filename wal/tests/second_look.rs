//! Opening cuts a torn tail, and looks at the end of the log once more.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::path::Path;
use std::sync::Arc;

use support::*;
use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{Access, Disk, Options, Wal, WalError, found_on};

fn dir() -> &'static Path {
    Path::new("/node/log")
}

fn options(disk: &SimDisk) -> Options {
    Options { disk: Arc::new(disk.clone()), threads: false, ..Options::default() }
}

/// Flips a bit of what a file holds.
fn flip_on(disk: &SimDisk, base: u64, offset: u64) {
    let file = disk.open(&segment(dir(), base), Access::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, offset).unwrap();
    file.write_at(&[byte[0] ^ 1], offset).unwrap();
    file.sync().unwrap();
}

/// What a ready segment's header promises lets opening look at the end alone. A torn tail takes
/// that segment along; opening then looked further back, and met damage there with an assertion.
#[test]
fn a_torn_tail_behind_cold_damage_is_an_error() {
    const SEGMENT: u64 = 65_536;
    let mut met = 0;
    for calls in 0..12 {
        let disk = SimDisk::new(calls);
        found_on(&disk, dir(), &founding("a")).unwrap();
        let (wal, _) = Wal::open(dir(), options(&disk)).unwrap();
        begin(&wal, 1);
        while wal.appended().get() < 4 * SEGMENT - 9_000 {
            append(&wal, &[7; 4_000]);
            wal.flush().unwrap();
        }
        let torn = wal.appended();
        append(&wal, &[7; 4_000]);
        // It dies while it makes the next segment ready.
        disk.die_after(calls);
        let _ = wal.append(RecordKind::Data, 0, &[7; 8_000]);
        disk.kill();
        drop(wal);
        let is_ready = disk.open(&segment(dir(), 4 * SEGMENT), Access::Read).is_ok();
        flip_on(&disk, SEGMENT, 4_096 + 5_000);
        flip_on(&disk, 3 * SEGMENT, torn.get() - 3 * SEGMENT + 1_000);
        for _ in 0..2 {
            let refused = Wal::open(dir(), options(&disk)).map(drop);
            assert!(matches!(refused, Err(WalError::Corrupt { .. })), "{refused:?}");
        }
        met += u64::from(is_ready);
    }
    assert!(met > 0, "no ready segment was left in any of them");
}
