//! The digest at a place: of every place that ends a record, and of no other one.

use std::sync::Arc;

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{Digest, RecordKind};
use towline_wal::{Options, Wal, WalError, read_log};

use crate::forged::Forged;
use crate::support::*;

const SIZE: SegmentSize = SegmentSize::MIN;

fn without_threads(dir: &std::path::Path) -> Arc<Wal> {
    Wal::open(dir, Options { threads: false, ..Options::default() }).unwrap().0
}

#[test]
fn every_end_of_a_record_has_one_and_no_other_place() {
    let (_folder, dir) = founded("a");
    let wal = without_threads(&dir);
    begin(&wal, 1);
    append_all(&wal, 0..500);
    begin(&wal, 2);
    append_all(&wal, 500..1_200);
    wal.flush().unwrap();
    let mut digest = Digest::EMPTY;
    let mut ends = Vec::new();
    for record in read_log(&dir).unwrap() {
        let header = record.unwrap().header;
        digest = digest.with(&header);
        ends.push(header.end());
        if ends.len() % 7 == 0 || header.kind != RecordKind::Data {
            assert_eq!(wal.digest_at(header.end()).unwrap(), digest, "{header:?}");
            let inside = wal.digest_at(Lsn::new(header.end().get() - 16));
            assert!(matches!(inside, Err(WalError::NoBoundary(_))), "{header:?}: {inside:?}");
        }
    }
    // What no record ends at: a segment's own header, and what is not written yet.
    let bases = (1..4).map(|number| Lsn::new(number * SIZE.bytes()));
    for place in bases.chain([wal.appended().advance(16), Lsn::new(1 << 40)]) {
        assert!(!ends.contains(&place));
        let told = wal.digest_at(place);
        assert!(matches!(told, Err(WalError::NoBoundary(at)) if at == place), "{place}: {told:?}");
    }
    // Where the log begins after a trim is the last place that is told.
    let oldest = wal.trim(wal.appended()).unwrap().oldest;
    let last = ends.iter().position(|end| *end == oldest.end).unwrap();
    assert!(wal.history().starts().iter().all(|start| start.previous_end != oldest.end));
    assert_eq!(wal.digest_at(oldest.end).unwrap(), oldest.digest);
    let below = wal.digest_at(ends[last - 1]);
    assert!(matches!(below, Err(WalError::Lagged { oldest: it, .. }) if it == oldest.end));
}

#[test]
fn a_seal_that_fills_its_segment_ends_at_the_base_of_the_next_one() {
    let (_folder, dir) = founded("a");
    let wal = without_threads(&dir);
    begin(&wal, 1);
    let left = |wal: &Wal| SIZE.bytes() - SIZE.offset_of(wal.appended());
    while left(&wal) > SIZE.max_payload() {
        append(&wal, &payload(1));
    }
    // A record's header, and a SEAL.
    append(&wal, &vec![7; left(&wal) as usize - 32 - 48]);
    let claim = wal.reserve(RecordKind::Data, 0, 16).unwrap();
    let full = SIZE.next_base(Lsn::ZERO);
    assert_eq!(wal.appended(), full, "the SEAL ends its segment");
    let digest = wal.digest();
    drop(claim);
    append(&wal, b"behind it");
    assert_eq!(wal.digest_at(full).unwrap(), digest);
    wal.shutdown().unwrap();
    drop(wal);
    let wal = without_threads(&dir);
    assert_eq!(wal.digest_at(full).unwrap(), digest);
    begin(&wal, 2);
    wal.flush().unwrap();
    wal.trim(wal.appended()).unwrap();
    let oldest = wal.oldest();
    assert_eq!(wal.digest_at(oldest.end).unwrap(), oldest.digest, "where the log begins now");
}

#[test]
fn a_log_whose_last_record_fills_its_segment_opens_and_goes_on() {
    let (_folder, dir) = founded("a");
    let wal = without_threads(&dir);
    begin(&wal, 1);
    let left = |wal: &Wal| SIZE.bytes() - SIZE.offset_of(wal.appended());
    while left(&wal) > SIZE.max_payload() {
        append(&wal, &payload(1));
    }
    append(&wal, &vec![7; left(&wal) as usize - 32 - 48]);
    drop(wal.reserve(RecordKind::Data, 0, 16).unwrap());
    let full = SIZE.next_base(Lsn::ZERO);
    wal.wait_flushed(full).unwrap();
    let (digest, records) = (wal.digest_at(full).unwrap(), contents(&wal).len());
    wal.shutdown().unwrap();
    drop(wal);
    towline_wal::cut(&dir, full, &Options::default()).unwrap();
    let wal = without_threads(&dir);
    assert_eq!((wal.appended(), wal.digest()), (full, digest));
    assert_eq!(wal.flushed(), full);
    append(&wal, b"behind it");
    wal.flush().unwrap();
    assert!(contents(&wal).len() == records || contents(&wal).len() == records + 1);
}

#[test]
fn a_damaged_record_below_a_place_is_told_by_its_own() {
    let (_folder, dir) = founded("a");
    let wal = without_threads(&dir);
    begin(&wal, 1);
    append_all(&wal, 0..1_500);
    wal.shutdown().unwrap();
    drop(wal);
    let mut file = Forged::open(&dir, SIZE.bytes());
    let records = file.records();
    file.damage(&records[20]);
    file.save();
    let wal = without_threads(&dir);
    assert!(wal.digest_at(records[10].end()).is_ok());
    let told = wal.digest_at(records[50].end());
    assert!(matches!(told, Err(WalError::Record { at, .. }) if at == records[20].lsn), "{told:?}");
}
