use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{ClusterId, Incarnation, LogId};
use towline_protocol::lsn::SegmentSize;
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};
use towline_wal::{Founding, Options, Role};

use super::*;

/// A log of a BARRIER and three records; where they end.
fn log(dir: &std::path::Path) -> (Arc<Wal>, Vec<Lsn>) {
    let voter =
        Voter { node: "a".parse().unwrap(), incarnation: Incarnation(1), zone: String::new() };
    let voters = Voters::new(vec![voter], None).unwrap();
    let founding = Founding {
        cluster: ClusterId(1),
        cluster_name: "test".to_owned(),
        log: LogId(1),
        node: "a".parse().unwrap(),
        incarnation: Incarnation(1),
        segment_size: SegmentSize::MIN,
        role: Role::Primary,
        voters: voters.clone(),
    };
    towline_wal::found(dir, &founding).unwrap();
    let (wal, _) = Wal::open(dir, Options::default()).unwrap();
    let barrier = Barrier {
        epoch: Epoch { number: 1, incarnation: Incarnation(1) },
        previous: Epoch::NONE,
        previous_end: Lsn::ZERO,
        digest: wal.digest(),
        terms: Terms::founding(voters),
        accepted_loss: false,
    };
    let mut ends = vec![wal.begin_epoch(&barrier).unwrap().end];
    for record in ["one", "two", "three"] {
        ends.push(wal.append(RecordKind::Data, 0, record.as_bytes()).unwrap().end);
    }
    wal.flush().unwrap();
    (wal, ends)
}

#[test]
fn a_commit_inside_a_record_stops_before_it_and_waits_for_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (wal, ends) = log(&folder.path().join("log"));
    let mut tape = Tape::new(&wal, Lsn::ZERO).unwrap();
    let mut applied = Vec::new();
    let mut until = |until: Lsn| {
        let grew = tape.advance(until, |_, record| {
            applied.push(record.payload.clone());
            Ok(())
        });
        (grew.unwrap(), tape.position, applied.len())
    };
    // Also inside the BARRIER, which no engine sees.
    assert_eq!(until(Lsn::new(ends[0].get() - 1)), (false, Lsn::ZERO, 0));
    for (nth, pair) in ends.windows(2).enumerate() {
        let records = 1 + nth;
        assert_eq!(until(pair[0]).1, pair[0]);
        for inside in pair[0].get() + 1..pair[1].get() {
            assert_eq!(until(Lsn::new(inside)), (false, pair[0], records));
        }
        assert_eq!(until(pair[1]), (true, pair[1], records + 1));
    }
    assert_eq!(applied[1..], ["one", "two", "three"]);
}
