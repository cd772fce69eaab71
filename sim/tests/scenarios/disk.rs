//! Files that are gone, cut short, changed or not ours; and disks that fail.

use towline_protocol::machine::RoleView;
use towline_sim::script::Cluster;
use towline_wal::{Disk, WalError};

use crate::forge::{Log, SEGMENT_LEN};
use crate::{CAREFUL, LONG_MS, PATIENCE_MS, each, insist, working};

/// A log of several segments that was closed, and how many there are.
fn closed() -> (Log, u64) {
    let mut log = Log::of(1, 10);
    log.kill();
    let (wal, _) = log.open().unwrap();
    let mut end = wal.appended();
    while end.get() < 3 * SEGMENT_LEN + SEGMENT_LEN / 2 {
        end = log.append(&wal, 20);
    }
    wal.shutdown().unwrap();
    drop(wal);
    log.kill();
    (log, 4)
}

#[test]
fn a_missing_segment_is_refused_loudly() {
    for gone in 0..3 {
        let (log, _) = closed();
        log.disk.remove(&log.path(gone * SEGMENT_LEN)).unwrap();
        match log.open().map(|(_, report)| report) {
            Err(WalError::MissingSegment { base, .. }) => {
                assert_eq!(base.get(), gone * SEGMENT_LEN);
            }
            other => panic!("without segment {gone}: {other:?}"),
        }
    }
}

#[test]
fn the_newest_segment_is_missed_too() {
    let (log, segments) = closed();
    let newest = segments - 1;
    log.disk.remove(&log.path(newest * SEGMENT_LEN)).unwrap();
    // There may be a segment made ready behind it.
    let _ = log.disk.remove(&log.path(segments * SEGMENT_LEN));
    match log.open().map(|(_, report)| report) {
        Err(WalError::MissingSegment { base, .. }) => assert_eq!(base.get(), newest * SEGMENT_LEN),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_that_is_cut_short_is_refused() {
    for len in [0, 100, 4_096, 40_000] {
        let (log, segments) = closed();
        let newest = (segments - 1) * SEGMENT_LEN;
        let bytes = log.bytes(newest);
        log.disk.remove(&log.path(newest)).unwrap();
        log.disk.write(&log.path(newest), &bytes[..len]).unwrap();
        let refused = log.open().map(|(_, report)| report);
        assert!(refused.is_err(), "{len} bytes of a segment: {refused:?}");
    }
}

#[test]
fn a_segment_copied_over_another_is_refused() {
    let (log, _) = closed();
    let bytes = log.bytes(SEGMENT_LEN);
    log.disk.write(&log.path(2 * SEGMENT_LEN), &bytes).unwrap();
    let refused = log.open().map(|(_, report)| report);
    assert!(matches!(refused, Err(WalError::Foreign { .. })), "{refused:?}");
}

#[test]
fn a_segment_header_that_is_none_or_damaged_is_refused() {
    let (log, segments) = closed();
    log.overwrite((segments - 1) * SEGMENT_LEN, 0, b"NOTASEG\n");
    assert!(log.open().is_err());
    log.overwrite((segments - 1) * SEGMENT_LEN, 0, b"TOWLSEG\n\xff\x00");
    let refused = log.open().map(|(_, report)| report);
    // A later version would have a checksum of its own: this one is no reason to upgrade.
    assert!(matches!(refused, Err(WalError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn a_chunk_moved_within_a_segment_is_never_read_as_records() {
    let (log, segments) = closed();
    let base = (segments - 1) * SEGMENT_LEN;
    let chunk = log.bytes(base)[4_096..8_192].to_vec();
    log.overwrite(base, 12_288, &chunk);
    let refused = log.open().map(|(_, report)| report);
    assert!(matches!(refused, Err(WalError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn a_node_that_misses_a_segment_is_rebuilt_from_its_peers_and_counts_once_granted() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        for n in 0..12 {
            cluster.execute_long(0, n % 5, 12_000).unwrap();
        }
        let last = cluster.write(0, 0);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.flushed(2) == last.end));
        cluster.kill(2);
        let second = std::path::PathBuf::from(format!("/log/{SEGMENT_LEN:020}.wal"));
        cluster.disk(2).remove(&second).unwrap();
        let refused = cluster.opens(2);
        assert!(matches!(refused, Err(WalError::MissingSegment { .. })), "{refused:?}");
        cluster.wipe(2);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| {
            cluster.is_up(2) && cluster.flushed(2) == last.end
        }));
        assert!(!cluster.votes(2));
        insist(&mut cluster, |cluster| cluster.grant(0, 2));
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.votes(2)));
        cluster.ends_well();
    });
}

#[test]
fn a_primary_whose_sync_fails_stops_and_loses_nothing_it_acknowledged() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.disk(0).fail_syncs(1);
        let life = cluster.epochs(0).len();
        let written = cluster.execute(0, 1).unwrap();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| !cluster.is_up(0)), "it stops by itself");
        let promoted = cluster.promoted(1, CAREFUL);
        let primary = cluster.primary_within(PATIENCE_MS);
        assert!(cluster.epochs(primary).len() > life, "in a new epoch: {promoted:?}");
        let cluster = cluster.ends_well();
        let kept = cluster.value(0, 1) == written.value();
        assert!(kept || !cluster.is_acknowledged(&written));
    });
}

#[test]
fn a_replica_with_a_full_disk_does_not_count_and_goes_on_once_there_is_room() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.kill(1);
        cluster.set_full(2, true);
        // Enough for several segments: sooner or later the replica needs room.
        let long: Vec<_> =
            (0..20).map(|n| cluster.execute_long(0, n % 5, 15_000).unwrap()).collect();
        cluster.run_for(LONG_MS);
        let last = long.last().unwrap();
        assert!(!cluster.is_acknowledged(last), "one disk is not enough");
        assert_eq!(cluster.role(0), Some(RoleView::Primary { open: true }));
        cluster.set_full(2, false);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_acknowledged(last)));
        cluster.restart(1);
        cluster.ends_well();
    });
}

#[test]
fn a_disk_restored_from_a_backup_unnoticed_is_found_out_and_counts_no_more() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.back_up(2);
        let last = (0..20).map(|n| cluster.write(0, n % 5)).last().unwrap();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.acked_by(0, 2) >= last.end));
        cluster.kill(2);
        cluster.restore_unnoticed(2);
        assert!(cluster.votes(2), "it takes itself for the voter that it was");
        assert!(cluster.flushed(2) < last.end, "and lacks what that one acknowledged");
        let found_out = |cluster: &Cluster| {
            cluster.is_up(2) && !cluster.votes(2) && cluster.flushed(2) >= last.end
        };
        assert!(cluster.run_until(PATIENCE_MS, found_out));
        // With node 1 gone there are the primary and a disk that does not count.
        cluster.kill(1);
        let waits = cluster.execute(0, 0).unwrap();
        cluster.run_for(LONG_MS);
        assert!(cluster.flushed(2) >= waits.end && !cluster.is_acknowledged(&waits));
        cluster.restart(1);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_acknowledged(&waits)));
        let primary = cluster.primary_within(PATIENCE_MS);
        insist(&mut cluster, |cluster| cluster.grant(primary, 2));
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.votes(2)));
        cluster.ends_well();
    });
}

#[test]
fn a_replica_whose_sync_fails_acknowledges_nothing_until_it_has_started_again() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.kill(2);
        cluster.disk(1).fail_syncs(1);
        let written = cluster.execute(0, 1).unwrap();
        let stopped = cluster.run_until(PATIENCE_MS, |cluster| {
            assert!(!cluster.is_acknowledged(&written), "one disk is not enough");
            !cluster.is_up(1)
        });
        assert!(stopped, "a failed sync is not tried again on the same opening of the log");
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_acknowledged(&written)));
        cluster.restart(2);
        cluster.ends_well();
    });
}

#[test]
fn a_primary_with_a_full_disk_takes_no_more_and_loses_nothing_it_took() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.set_full(0, true);
        let taken: Vec<_> = std::iter::from_fn(|| cluster.execute_long(0, 0, 15_000)).collect();
        assert!(!taken.is_empty() && taken.len() < 40, "{} fit", taken.len());
        let all = |cluster: &Cluster| taken.iter().all(|written| cluster.is_acknowledged(written));
        assert!(cluster.run_until(PATIENCE_MS, all), "what there was room for is committed");
        assert!(cluster.is_open(0), "and the primary goes on");
        let asked = cluster.read(0, 0).unwrap();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_answered(&asked)));
        assert_eq!(cluster.execute_long(0, 0, 15_000), None);
        cluster.set_full(0, false);
        cluster.run_for(LONG_MS);
        cluster.write(0, 1);
        cluster.ends_well();
    });
}
