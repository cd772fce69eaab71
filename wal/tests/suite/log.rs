//! An undamaged log: what is appended is there, in order, after whatever end it came to.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_wal::{Level, Options, Wal, WalError, found, read_control};

use crate::support::*;

#[test]
fn what_was_appended_is_there_after_a_clean_close() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    for number in 0..1_000 {
        append(&wal, &payload(number));
    }
    let (end, digest) = (wal.flush().unwrap(), wal.digest());
    assert!(end.get() > 2 * SegmentSize::MIN.bytes(), "the log crosses segments");
    assert_eq!(contents(&wal), payloads(0..1_000));
    wal.shutdown().unwrap();
    drop(wal);
    assert_eq!(read_control(&dir).unwrap().durable, end);
    let wal = opened(&dir);
    assert_eq!((wal.appended(), wal.flushed(), wal.digest()), (end, end, digest));
    assert_eq!(contents(&wal), payloads(0..1_000));
}

#[test]
fn a_log_that_nobody_shares_is_made_when_it_is_first_opened() {
    let folder = folder();
    let dir = folder.path().join("log");
    for number in 0..3 {
        let (wal, report) = Wal::open_alone(&dir, Options::default()).unwrap();
        assert_eq!(contents(&wal), payloads(0..number));
        assert_eq!(wal.last_epoch().number, 1, "an opening begins no epoch");
        assert!(report.to_string().starts_with(&format!("opened up to {}", report.end)));
        append(&wal, &payload(number));
        wal.flush().unwrap();
    }
    let other = folder.path().join("other");
    drop(Wal::open_alone(&other, Options::default()).unwrap());
    let logs = [dir, other].map(|dir| read_control(&dir).unwrap().log);
    assert_ne!(logs[0], logs[1], "two stores never take each other's files for theirs");
    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("precious"), b"data").unwrap();
    let refused = Wal::open_alone(&foreign, Options::default());
    assert!(matches!(refused, Err(WalError::Control { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1, "no log is made among other files");
}

#[test]
fn a_place_inside_a_record_is_the_callers_mistake_and_damage_is_not() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let places: Vec<_> = (0..900).map(|number| append(&wal, &payload(number)).lsn).collect();
    wal.flush().unwrap();
    assert!(places[899].get() > 2 * SegmentSize::MIN.bytes(), "the log crosses segments");
    let at = |from: Lsn| wal.cursor(from, Level::Flushed).unwrap();
    for &place in &places {
        assert!(at(place).next_record().unwrap().is_some());
        let inside = place.advance(16);
        for _ in 0..2 {
            let read = at(inside).next_record();
            assert!(matches!(read, Err(WalError::NoBoundary(it)) if it == inside), "{read:?}");
            let read = at(inside).next_chunk(1_000);
            assert!(matches!(read, Err(WalError::NoBoundary(it)) if it == inside), "{read:?}");
        }
    }
    // Damage at a boundary, of every segment's first record and of others, is damage.
    let bases = [0, SegmentSize::MIN.bytes()].map(|base| SegmentSize::first_record(Lsn::new(base)));
    for place in bases.into_iter().chain([places[7], places[300]]) {
        let offset = place.get() % SegmentSize::MIN.bytes();
        let path = segment(&dir, place.get() - offset);
        // In place: it is mapped.
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[0xff], offset + 1).unwrap();
        let read = at(place).next_record();
        assert!(matches!(read, Err(WalError::Corrupt { at, .. }) if at == place), "{read:?}");
    }
}

#[test]
fn what_only_the_log_makes_nobody_appends() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let end = wal.flush().unwrap();
    for kind in [RecordKind::Barrier, RecordKind::Grant, RecordKind::Seal, RecordKind::Abort] {
        let refused = wal.append(kind, 0, b"not mine");
        assert!(matches!(refused, Err(WalError::ReservedKind(it)) if it == kind), "{refused:?}");
        let refused = wal.reserve(kind, 0, 8).map(drop);
        assert!(matches!(refused, Err(WalError::ReservedKind(it)) if it == kind), "{refused:?}");
    }
    assert_eq!(wal.appended(), end);
    wal.append(RecordKind::End, 0, b"").unwrap();
}

#[test]
fn what_was_flushed_is_there_after_a_kill_and_the_log_goes_on() {
    let (_folder, dir) = founded("a");
    let mut next = 0;
    for number in 1..=5 {
        let wal = opened(&dir);
        assert_eq!(contents(&wal), payloads(0..next));
        begin(&wal, number);
        for _ in 0..150 {
            append(&wal, &payload(next));
            next += 1;
        }
        wal.flush().unwrap();
        assert_eq!(contents(&wal), payloads(0..next));
    }
}

#[test]
fn a_reopened_replica_goes_on_in_the_same_segment_and_syncs_it() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    append(&wal, b"one");
    wal.flush().unwrap();
    drop(wal);
    let wal = opened(&dir);
    let two = append(&wal, b"two");
    assert_eq!(wal.flush().unwrap(), two.end);
    assert_eq!(SegmentSize::MIN.base_of(two.lsn), Lsn::ZERO);
    assert_eq!(contents(&wal), [b"one".to_vec(), b"two".to_vec()]);
}

#[test]
fn an_epoch_begins_at_the_next_boundary_and_is_known_after_reopening() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    assert_eq!(begin(&wal, 1).lsn, Lsn::new(4_096));
    let end = append(&wal, b"one").end;
    let wrong = {
        let mut wrong = barrier(&wal, 2);
        wrong.digest.0 ^= 1;
        wrong
    };
    assert!(matches!(wal.begin_epoch(&wrong), Err(WalError::Fork { .. })));
    let barrier = begin(&wal, 2);
    assert_eq!(barrier.lsn, Lsn::new((64 << 10) + 4_096));
    append(&wal, b"two");
    wal.flush().unwrap();
    let (history, digest) = (wal.history(), wal.digest());
    assert_eq!(history.starts()[1].previous_end, end);
    assert_eq!(wal.digest_at(end).unwrap(), history.starts()[1].digest);
    assert_eq!(wal.stored_bytes_between(end, barrier.end), barrier.end.distance_from(barrier.lsn));
    drop(wal);
    let wal = opened(&dir);
    assert_eq!((wal.history(), wal.digest()), (history, digest));
    assert_eq!(contents(&wal), [b"one".to_vec(), b"two".to_vec()]);
}

#[test]
fn four_writers_and_a_cursor_at_the_tail_see_one_order() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    const EACH: u64 = 2_000;
    let writers: Vec<_> = (0..4_u64)
        .map(|writer| {
            let wal = Arc::clone(&wal);
            std::thread::spawn(move || {
                for number in 0..EACH {
                    let appended = append(&wal, &(writer << 32 | number).to_le_bytes());
                    if number % 64 == 0 {
                        wal.wait_flushed(appended.end).unwrap();
                        assert!(wal.flushed() >= appended.end);
                    }
                }
                assert!(wal.flush().is_ok());
            })
        })
        .collect();
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    let mut next = [0; 4];
    while next.iter().sum::<u64>() < 4 * EACH {
        let Some(record) = cursor.next_record().unwrap() else { continue };
        if record.header.kind == RecordKind::Data {
            let value = u64::from_le_bytes(record.payload[..].try_into().unwrap());
            let (writer, number) = ((value >> 32) as usize, value & 0xffff_ffff);
            assert_eq!(number, next[writer], "each writer's records keep their order");
            next[writer] += 1;
        }
    }
    for writer in writers {
        writer.join().unwrap();
    }
    let (end, digest) = (wal.appended(), wal.digest());
    drop((cursor, wal));
    let wal = opened(&dir);
    assert_eq!((wal.appended(), wal.digest()), (end, digest));
}

#[test]
fn chunks_are_whole_records_of_one_segment_and_say_which_file() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    for number in 0..600 {
        append(&wal, &payload(number));
    }
    let end = wal.flush().unwrap();
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    let mut position = Lsn::ZERO;
    while let Some(chunk) = cursor.next_chunk(5_000).unwrap() {
        assert!(chunk.from >= position);
        assert_eq!(chunk.end.distance_from(chunk.from), chunk.bytes.len() as u64);
        assert_eq!(SegmentSize::MIN.base_of(chunk.from), chunk.segment.base);
        assert_eq!(SegmentSize::MIN.base_of(Lsn::new(chunk.end.get() - 1)), chunk.segment.base);
        position = chunk.end;
        assert_eq!(cursor.position(), position);
    }
    assert_eq!(position, end);
}

#[test]
fn every_record_boundary_is_a_place_to_begin_and_has_its_digest() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let mut boundaries = Vec::new();
    for number in 0..500 {
        boundaries.push((append(&wal, &payload(number)).end, wal.digest(), number));
        if number == 250 {
            begin(&wal, 2);
        }
    }
    wal.flush().unwrap();
    for &(boundary, digest, number) in boundaries.iter().step_by(7) {
        assert_eq!(wal.digest_at(boundary).unwrap(), digest, "at {boundary}");
        let mut cursor = wal.cursor(boundary, Level::Flushed).unwrap();
        let next = loop {
            match cursor.next_record().unwrap() {
                Some(record) if record.header.kind == RecordKind::Data => break record.payload,
                Some(_) => {}
                None => break payload(number + 1).into(),
            }
        };
        assert_eq!(next, payload(number + 1), "behind {boundary}");
    }
    let inside = Lsn::new(boundaries[9].0.get() - 16);
    assert!(matches!(wal.digest_at(inside), Err(WalError::NoBoundary(_))));
}

#[test]
fn a_second_opener_is_told_so_and_a_dropped_log_is_free() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    let cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    assert!(matches!(open(&dir), Err(WalError::Locked(_))));
    drop(wal);
    drop(opened(&dir));
    drop(cursor);
}

#[test]
fn a_folder_is_founded_once_and_opened_only_then() {
    let (_folder, dir) = founded("a");
    assert!(matches!(found(&dir, &founding("a")), Err(WalError::NotEmpty(_))));
    let empty = folder();
    assert!(matches!(open(empty.path()), Err(WalError::NotFounded(_))));
    assert!(matches!(read_control(&empty.path().join("absent")), Err(WalError::NotFounded(_))));
}

#[test]
fn limits_are_errors() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    assert!(wal.append(RecordKind::Data, 0, b"before any epoch").is_err());
    begin(&wal, 1);
    let most = SegmentSize::MIN.max_payload() as usize;
    for _ in 0..20 {
        append(&wal, &vec![1; most]);
    }
    let over = wal.append(RecordKind::Data, 0, &vec![1; most + 1]);
    assert!(matches!(over, Err(WalError::TooLarge { .. })));
    assert!(matches!(wal.wait_flushed(Lsn::new(1 << 40)), Err(WalError::NoBoundary(_))));
    wal.flush().unwrap();
    assert_eq!(contents(&wal).len(), 20);
}

#[test]
fn the_control_file_keeps_what_it_was_told() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    let fence = barrier(&wal, 9).epoch;
    wal.update_control(|control| control.fence = fence).unwrap();
    drop(wal);
    assert_eq!(opened(&dir).control().fence, fence);
}

#[test]
fn a_wait_that_needs_more_than_the_log_has_is_a_loss() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let end = append(&wal, b"one").end;
    wal.flush().unwrap();
    drop(wal);
    let expecting = |expect_durable| Options { expect_durable, ..Options::default() };
    drop(Wal::open(&dir, expecting(end)).unwrap());
    let more = Wal::open(&dir, expecting(end.advance(1)));
    assert!(matches!(more, Err(WalError::Corrupt { .. })));
}
