use std::path::Path;

use towline_protocol::id::LogId;
use towline_protocol::lsn::SegmentSize;
use towline_protocol::record::RecordKind;
use towline_wal::{Founding, Options};

use super::*;

const SEGMENT: u64 = 65_536;

/// A log of `segments` full ones, in two epochs.
fn log(dir: &Path, segments: u64) -> Arc<Wal> {
    let alone = Founding::alone(LogId(1), "a".parse().unwrap());
    towline_wal::found(dir, &Founding { segment_size: SegmentSize::MIN, ..alone }).unwrap();
    let (wal, _) = Wal::open(dir, Options { threads: false, ..Options::default() }).unwrap();
    for epoch in 1..=2 {
        wal.begin_epoch(&wal.next_barrier()).unwrap();
        while wal.appended().get() < epoch * segments * SEGMENT / 2 {
            wal.append(RecordKind::Data, 0, &[7; 4_000]).unwrap();
        }
    }
    wal.flush().unwrap();
    wal
}

#[test]
fn as_much_is_kept_as_was_asked_for_and_less_than_two_segments_more() {
    let folder = tempfile::tempdir().unwrap();
    let wal = log(&folder.path().join("log"), 20);
    for keep in [0, 1, SEGMENT, 5 * SEGMENT, 12 * SEGMENT] {
        let from = kept_from(&wal, keep);
        let kept = wal.stored_bytes_between(from, wal.flushed());
        assert!((keep..=keep + 2 * SEGMENT).contains(&kept), "{kept} of {keep}");
    }
    assert_eq!(kept_from(&wal, u64::MAX), Lsn::ZERO);
}

#[test]
fn a_slot_moves_on_and_one_that_was_cut_off_begins_again_where_its_reader_is() {
    let folder = tempfile::tempdir().unwrap();
    let wal = log(&folder.path().join("log"), 8);
    let slot = |name: &str| wal.slots().into_iter().find(|slot| slot.name == name).unwrap();
    hold(&wal, ENGINE_SLOT, wal.flushed(), None).unwrap();
    hold(&wal, "b", Lsn::ZERO, Some(SEGMENT)).unwrap();
    wal.trim(wal.flushed()).unwrap();
    assert!(slot("b").lagged && !slot(ENGINE_SLOT).lagged);
    let oldest = wal.oldest().end;
    hold(&wal, "b", oldest, Some(SEGMENT)).unwrap();
    assert_eq!((slot("b").position, slot("b").lagged), (oldest, false));
    hold(&wal, "b", wal.flushed(), Some(9 * SEGMENT)).unwrap();
    assert_eq!(slot("b").keep_bytes_max, Some(9 * SEGMENT));
    // Of a position that the log does not reach yet, as much as it has.
    hold(&wal, "b", wal.appended().advance(SEGMENT), Some(9 * SEGMENT)).unwrap();
    assert_eq!(slot("b").position, wal.appended());
}
