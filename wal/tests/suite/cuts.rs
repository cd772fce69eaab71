//! A cut that dies anywhere is done again on opening, once.

use towline_wal::cut;

use crate::image::*;
use crate::support::*;

#[test]
fn a_cut_that_dies_at_any_call_is_finished_by_an_opening_that_may_die_too() {
    let image = Image::after(1, |_, wal| {
        begin(&wal, 1);
        append_all(&wal, 0..500);
        begin(&wal, 2);
        append_all(&wal, 500..900);
        wal.shutdown().unwrap();
    });
    let end = {
        let wal = open_on(&image.disk()).unwrap().0;
        let mut cursor = wal.cursor(wal.oldest().end, towline_wal::Level::Flushed).unwrap();
        // The BARRIER, and the first hundred.
        (0..101).map(|_| cursor.next_record().unwrap().unwrap().header.end()).last().unwrap()
    };
    let (mut begun, mut deaths) = (0, 0);
    for calls in 0.. {
        let disk = image.disk();
        disk.die_after(calls);
        let done = cut(dir(), end, &options(&disk));
        disk.kill();
        // The first opening dies as well, a bit further on.
        disk.die_after(calls % 7);
        let _ = open_on(&disk);
        disk.kill();
        let (wal, report) = open_on(&disk).unwrap();
        assert!(report.torn.is_none());
        if wal.appended() == end {
            assert_eq!((contents(&wal), wal.history().starts().len()), (payloads(0..100), 1));
            begun += u64::from(done.is_err());
        } else {
            assert_eq!(contents(&wal), payloads(0..900), "either not begun or finished");
            assert!(done.is_err());
        }
        assert!(wal.control().cut.is_none());
        let next = contents(&wal).len() as u64;
        begin(&wal, 3);
        append(&wal, &payload(next));
        wal.flush().unwrap();
        drop(wal);
        assert_eq!(contents(&open_on(&disk).unwrap().0), payloads(0..next + 1), "never done again");
        if done.is_ok() {
            break;
        }
        deaths += 1;
    }
    assert!(begun > 10 && deaths > begun, "{begun} of {deaths}");
}
