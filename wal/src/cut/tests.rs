//! A cut that dies anywhere is done again on opening, once.

use super::*;
use crate::crash;
use crate::support::{
    append, begin, contents, files, founded, open, opened, payload, payloads, restore,
};

#[test]
fn a_cut_that_crashes_at_any_point_is_finished_on_opening() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let mut end = Lsn::ZERO;
    for number in 0..900 {
        let appended = append(&wal, &payload(number)).end;
        if number == 99 {
            end = appended;
        }
        if number == 500 {
            begin(&wal, 2);
        }
    }
    wal.shutdown().unwrap();
    drop(wal);
    let whole = files(&dir);
    let mut crashes = 0;
    loop {
        crash::after(crashes);
        let done = cut(&dir, end, &Options::default());
        // The first opening crashes as well, a bit further on.
        crash::after(crashes % 5);
        let _ = open(&dir);
        crash::after(usize::MAX);
        let (wal, report) = open(&dir).unwrap();
        assert!(report.torn.is_none());
        if wal.appended() == end {
            assert_eq!(contents(&wal), payloads(0..100));
            assert_eq!(wal.history().starts().len(), 1);
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
        assert_eq!(contents(&opened(&dir)), payloads(0..next + 1), "and never done again");
        restore(&dir, &whole);
        if done.is_ok() {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 12, "only {crashes} places to crash at");
}
