//! Opening cuts a torn tail, and looks at the end of the log once more.

use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{Wal, WalError, Witness, found_on, read_control_on};

use crate::image::{dir, flip_on, options};
use crate::support::*;

/// What is noted before a segment is left lets opening look at the end alone. A torn tail does not
/// take that along: opening looks no further back the second time, and damage there is met by
/// whoever reads it.
#[test]
fn a_torn_tail_takes_no_promise_along() {
    const SEGMENT: u64 = 65_536;
    let (mut met, mut refused) = (0, 0);
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
        // It dies while it notes that or makes the next segment ready, or before.
        disk.die_after(calls);
        if calls % 3 > 0 {
            let _ = wal.append(RecordKind::Data, 0, &[7; 8_000]);
        }
        disk.kill();
        drop(wal);
        let is_noted = read_control_on(&disk, dir()).unwrap().durable == torn;
        let damaged = 2 * SEGMENT + 4_096 + 5_000;
        flip_on(&disk, 2 * SEGMENT, damaged - 2 * SEGMENT);
        flip_on(&disk, 3 * SEGMENT, torn.get() - 3 * SEGMENT + 1_000);
        if !is_noted {
            // The newest promise is older then, and the damage lies where it is.
            let opened = Wal::open(dir(), options(&disk)).map(drop);
            assert!(matches!(opened, Err(WalError::Corrupt { .. })), "{opened:?}");
            refused += 1;
            continue;
        }
        met += 1;
        for turn in 0..2 {
            let (wal, report) = Wal::open(dir(), options(&disk)).unwrap();
            assert_eq!((wal.appended(), report.torn.is_some()), (torn, turn == 0));
            assert_eq!(report.evidence, torn, "the promise outlives its segment");
            assert_eq!(report.witness, Witness::Control);
            let damage = wal.scrub(None).flat_map(|check| check.unwrap().damaged);
            let places: Vec<_> = damage.map(|it| (it.from.get(), it.to.get())).collect();
            assert!(matches!(places[..], [(from, to)] if (from..to).contains(&damaged)));
        }
    }
    assert!(met > 0 && refused > 0, "{met} were noted, {refused} were not");
}
