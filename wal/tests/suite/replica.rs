//! Records on their way to another log: the same Lsns and digests, and nothing that contradicts.

use std::sync::Arc;

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_wal::{Level, Options, Wal, WalError, cut};

use crate::support::*;

fn ship(from: &Arc<Wal>, to: &Wal) {
    let mut cursor = from.cursor(to.appended(), Level::Appended).unwrap();
    while let Some(chunk) = cursor.next_chunk(3_000).unwrap() {
        let end = to.receive(chunk.segment, chunk.from, &chunk.bytes).unwrap();
        assert_eq!(end, chunk.end);
    }
}

#[test]
fn a_replica_holds_the_same_log_over_epochs_and_reopenings() {
    let ((_one, primary_dir), (_two, replica_dir)) = (founded("a"), founded("b"));
    let mut next = 0;
    for number in 1..5 {
        let (primary, replica) = (opened(&primary_dir), opened(&replica_dir));
        begin(&primary, number);
        for _ in 0..400 {
            append(&primary, &payload(next));
            next += 1;
            if next % 150 == 0 {
                ship(&primary, &replica);
            }
        }
        ship(&primary, &replica);
        assert_eq!(replica.flush().unwrap(), primary.flush().unwrap());
        assert_eq!(replica.digest(), primary.digest());
        assert_eq!(replica.history(), primary.history());
        assert_eq!(replica.terms(), primary.terms());
        assert_eq!(contents(&replica), payloads(0..next));
    }
}

#[test]
fn damaged_and_unfitting_records_are_refused_and_leave_the_log_whole() {
    let ((_one, primary_dir), (_two, replica_dir)) = (founded("a"), founded("b"));
    let (primary, replica) = (opened(&primary_dir), opened(&replica_dir));
    begin(&primary, 1);
    for number in 0..3 {
        append(&primary, &payload(number));
    }
    let mut cursor = primary.cursor(Lsn::ZERO, Level::Appended).unwrap();
    let chunk = cursor.next_chunk(1 << 20).unwrap().unwrap();
    for bit in (0..chunk.bytes.len() * 8).step_by(97) {
        let mut damaged = chunk.bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (_three, other_dir) = founded("c");
        let other = opened(&other_dir);
        let taken = other.receive(chunk.segment, chunk.from, &damaged);
        // Padding is the one thing no checksum covers; it is not taken over either.
        if taken.is_ok() {
            assert_eq!(other.digest(), primary.digest());
        } else {
            assert!(matches!(taken, Err(WalError::Record { .. })), "{taken:?}");
        }
    }
    assert!(replica.receive(chunk.segment, chunk.from, &chunk.bytes[..50]).is_err());
    replica.receive(chunk.segment, chunk.from, &chunk.bytes).unwrap();
    let again = replica.receive(chunk.segment, chunk.from, &chunk.bytes);
    assert!(matches!(again, Err(WalError::Gap { .. })), "{again:?}");
    assert_eq!(replica.digest(), primary.digest());
}

#[test]
fn a_lost_seal_is_a_gap() {
    let ((_one, primary_dir), (_two, replica_dir)) = (founded("a"), founded("b"));
    let (primary, replica) = (opened(&primary_dir), opened(&replica_dir));
    begin(&primary, 1);
    for number in 0..600 {
        append(&primary, &payload(number));
    }
    let mut cursor = primary.cursor(Lsn::ZERO, Level::Appended).unwrap();
    while let Some(record) = cursor.next_record().unwrap() {
        if record.header.kind == RecordKind::Seal {
            break;
        }
    }
    let sealed = cursor.position();
    let mut cursor = primary.cursor(Lsn::ZERO, Level::Appended).unwrap();
    let seal_len = 48;
    let mut lost = false;
    while let Some(chunk) = cursor.next_chunk(1 << 20).unwrap() {
        let taken = if chunk.end == sealed {
            lost = true;
            let len = chunk.bytes.len() - seal_len;
            replica.receive(chunk.segment, chunk.from, &chunk.bytes[..len])
        } else {
            replica.receive(chunk.segment, chunk.from, &chunk.bytes)
        };
        if lost && chunk.end != sealed {
            assert!(matches!(taken, Err(WalError::Gap { .. })), "{taken:?}");
            break;
        }
    }
    assert_eq!(replica.appended().advance(seal_len as u64), sealed);
}

#[test]
fn another_history_is_a_fork_until_the_log_is_cut() {
    let ((_one, old_dir), (_two, new_dir)) = (founded("a"), founded("b"));
    let (old, new) = (opened(&old_dir), opened(&new_dir));
    begin(&old, 1);
    for number in 0..300 {
        append(&old, &payload(number));
    }
    ship(&old, &new);
    let fork = new.appended();
    for number in 0..400 {
        append(&old, &payload(7_000 + number));
    }
    old.flush().unwrap();
    begin(&new, 2);
    for number in 300..500 {
        append(&new, &payload(number));
    }
    new.flush().unwrap();
    let mut cursor = new.cursor(fork, Level::Flushed).unwrap();
    let chunk = cursor.next_chunk(1 << 20).unwrap().unwrap();
    let taken = old.receive(chunk.segment, chunk.from, &chunk.bytes);
    assert!(matches!(taken, Err(WalError::Fork { .. } | WalError::Gap { .. })), "{taken:?}");
    let common = new.history().common_point(new.appended(), &old.history(), old.appended());
    assert_eq!(common.end, fork);
    assert_eq!(old.digest_at(fork).unwrap(), new.digest_at(fork).unwrap());
    old.shutdown().unwrap();
    drop(old);
    let report = cut(&old_dir, fork, &Options::default()).unwrap();
    assert_eq!(report.to, fork);
    assert!(report.records >= 400 && report.bytes > 0);
    assert!(!files(&report.bundle).is_empty());
    let old = opened(&old_dir);
    assert_eq!(old.appended(), fork);
    ship(&new, &old);
    assert_eq!(old.flush().unwrap(), new.flushed());
    assert_eq!((old.digest(), old.history()), (new.digest(), new.history()));
    drop(old);
    assert_eq!(contents(&opened(&old_dir)), payloads(0..500));
}

#[test]
fn a_log_is_cut_at_ends_of_records_only() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let mut ends = vec![(Lsn::ZERO, 0)];
    for number in 0..700 {
        ends.push((append(&wal, &payload(number)).end, number + 1));
        if number == 350 {
            begin(&wal, 2);
        }
    }
    wal.shutdown().unwrap();
    drop(wal);
    let whole = files(&dir);
    let second = SegmentSize::first_record(Lsn::new(65_536));
    for wrong in [ends[5].0.advance(16), second, Lsn::new(4_096), ends[700].0.advance(16)] {
        let refused = cut(&dir, wrong, &Options::default());
        assert!(matches!(refused, Err(WalError::NoBoundary(_))), "{wrong}: {refused:?}");
    }
    for &(to, count) in ends.iter().step_by(50) {
        cut(&dir, to, &Options::default()).unwrap();
        let (wal, report) = open(&dir).unwrap();
        assert!(report.torn.is_none());
        assert_eq!((wal.appended(), contents(&wal)), (to, payloads(0..count)));
        begin(&wal, 3);
        append(&wal, &payload(count));
        wal.flush().unwrap();
        drop(wal);
        assert_eq!(contents(&opened(&dir)), payloads(0..count + 1));
        restore(&dir, &whole);
    }
}
