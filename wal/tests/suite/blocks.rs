//! Files are read in blocks: what lies across the end of one, or was written after it was read, is
//! seen all the same.

use towline_protocol::lsn::SegmentSize;
use towline_protocol::record::RECORD_HEADER_LEN;
use towline_wal::{Founding, WalError, found, read_log};

use crate::support::*;

/// How much is read at a time.
const BLOCK_LEN: u64 = 128 << 10;

#[test]
fn what_was_written_since_a_block_was_read_belongs_to_the_log() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    append(&wal, &payload(0));
    wal.flush().unwrap();
    let mut reader = read_log(&dir).unwrap();
    // The BARRIER: with it came the rest of the file as it was.
    reader.next().unwrap().unwrap();
    for number in 1..50 {
        append(&wal, &payload(number));
        wal.flush().unwrap();
    }
    let read: Vec<_> = reader.by_ref().map(|record| record.unwrap().payload.to_vec()).collect();
    assert_eq!(read, payloads(0..50));
    let verdict = reader.verdict().unwrap();
    assert!(!verdict.is_corrupt() && verdict.end == wal.appended(), "{verdict:?}");
}

#[test]
fn a_promise_at_the_end_of_a_block_is_evidence() {
    let end = SegmentSize::HEADER_LEN + BLOCK_LEN;
    for place in (end - 64..=end + 64).step_by(16) {
        let folder = folder();
        let dir = folder.path().join("log");
        let segment_size = SegmentSize::new(1 << 20).unwrap();
        found(&dir, &Founding { segment_size, ..founding("a") }).unwrap();
        let wal = opened(&dir);
        begin(&wal, 1);
        let damaged = append(&wal, b"damaged").lsn;
        while wal.appended().get() < place - 4096 {
            append(&wal, &payload(9));
        }
        let left = place - wal.appended().get() - RECORD_HEADER_LEN as u64;
        append(&wal, &vec![1; usize::try_from(left).unwrap()]);
        let promised = wal.flush().unwrap();
        // The only record that promises all that is before it.
        assert_eq!(append(&wal, b"promises").lsn.get(), place);
        drop(wal);
        flip(&segment(&dir, 0), damaged.get(), 1);
        match open(&dir) {
            Err(WalError::Corrupt { at, evidence, .. }) => {
                assert_eq!((at, evidence), (damaged, promised), "{place}");
            }
            opened => panic!("{place}: {:?}", opened.map(|(_, report)| report)),
        }
    }
}
