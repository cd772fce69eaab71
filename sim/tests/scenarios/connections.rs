//! Connections that break, and replicas that go on where they were.

use towline_protocol::machine::Verdict;
use towline_sim::script::Cluster;

use crate::{CAREFUL, LONG_MS, PATIENCE_MS, each, working};

/// How long the payload of a long write is, in bytes: four of them fill a segment.
const LONG_LEN: usize = 15_000;

#[test]
fn a_replica_cut_off_for_a_moment_goes_on_where_it_was() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let epochs = cluster.epochs(0);
        for outage_ms in [1, 30, 300, LONG_MS] {
            cluster.isolate(2);
            let before = cluster.flushed(2);
            let last = (0..10).map(|n| cluster.write(0, n % 5)).last().unwrap();
            cluster.run_for(outage_ms);
            cluster.heal();
            let back = cluster.run_until(PATIENCE_MS, |cluster| {
                assert!(cluster.flushed(2) >= before, "it keeps what it has");
                cluster.flushed(2) >= last.end
            });
            assert!(back, "after {outage_ms} ms");
        }
        let cluster = cluster.ends_well();
        assert!(!cluster.was_cut(2));
        assert_eq!(cluster.epochs(2), epochs);
    });
}

#[test]
fn a_replica_far_behind_catches_up_while_writes_go_on() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.kill(2);
        for n in 0..60 {
            cluster.execute_long(0, n % 5, LONG_LEN).unwrap();
        }
        let behind = cluster.write(0, 0);
        cluster.restart(2);
        let mut writes = 0;
        while cluster.flushed(2) < behind.end {
            cluster.execute(0, 1).unwrap();
            cluster.run_for(2);
            writes += 1;
            assert!(writes < PATIENCE_MS, "it does not catch up: {}", cluster.flushed(2));
        }
        let cluster = cluster.ends_well();
        assert_eq!(cluster.digest(2), cluster.digest(0));
    });
}

#[test]
fn a_replica_that_fails_again_and_again_while_it_catches_up_gets_there() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.kill(2);
        for n in 0..40 {
            cluster.execute_long(0, n % 5, LONG_LEN).unwrap();
        }
        let behind = cluster.write(0, 0);
        for turn in 0..10 {
            cluster.restart(2);
            cluster.run_for(20 + turn);
            if turn % 2 == 0 {
                cluster.power_cut(2);
            } else {
                cluster.break_connections();
                cluster.kill(2);
            }
        }
        cluster.restart(2);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.flushed(2) >= behind.end));
        let cluster = cluster.ends_well();
        assert_eq!(cluster.digest(2), cluster.digest(0));
    });
}

#[test]
fn connections_that_break_under_load_lose_nothing_and_depose_nobody() {
    each(|seed| {
        let mut cluster = Cluster::found(seed, 3).with_clients();
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        let epochs = cluster.epochs(0);
        for _ in 0..30 {
            cluster.run_for(40);
            cluster.break_connections();
        }
        let cluster = cluster.ends_well();
        assert_eq!(cluster.epochs(0), epochs);
        assert_eq!(cluster.unknown(), 0);
        assert!((0..3).all(|node| !cluster.was_cut(node)));
    });
}

#[test]
fn replicas_that_connect_all_at_once_are_all_served() {
    each(|seed| {
        let mut cluster = working(seed, 5);
        for node in 1..5 {
            cluster.power_cut(node);
        }
        let waits: Vec<_> =
            (0..30).map(|n| cluster.execute_long(0, n % 5, LONG_LEN).unwrap()).collect();
        cluster.run_for(LONG_MS);
        assert!(!waits.iter().any(|written| cluster.is_acknowledged(written)));
        for node in 1..5 {
            cluster.restart(node);
        }
        let last = waits[29];
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_acknowledged(&last)));
        let all = |cluster: &Cluster| (1..5).all(|node| cluster.flushed(node) >= last.end);
        assert!(cluster.run_until(PATIENCE_MS, all));
        cluster.ends_well();
    });
}

#[test]
fn an_ack_that_is_lost_is_said_again() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let epochs = cluster.epochs(0);
        cluster.isolate(2);
        // The way back is cut in the moment between the record's arrival and the ack.
        let lost = (0..50).find_map(|_| {
            let written = cluster.execute(0, 0).unwrap();
            let arrived = |cluster: &Cluster| cluster.appended(1) >= written.end;
            assert!(cluster.run_until(PATIENCE_MS, arrived));
            cluster.cut_one_way(1, 0);
            cluster.run_for(LONG_MS);
            let lost = cluster.flushed(1) >= written.end && !cluster.is_acknowledged(&written);
            if !lost {
                cluster.heal();
                cluster.isolate(2);
            }
            lost.then_some(written)
        });
        let written = lost.expect("the ack takes some milliseconds, now and then at least");
        cluster.heal();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_acknowledged(&written)));
        let cluster = cluster.ends_well();
        assert_eq!(cluster.epochs(0), epochs);
        assert!((1..3).all(|node| !cluster.was_cut(node)));
    });
}

#[test]
fn frames_that_come_late_and_twice_do_no_harm() {
    each(|seed| {
        let mut cluster = Cluster::found(seed, 3).with_clients();
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        cluster.weather(0, 90, 15);
        for candidate in [1, 2, 0, 1] {
            cluster.run_for(300);
            let _may_fail_in_this_weather = cluster.promoted(candidate, crate::FORCE);
        }
        cluster.heal();
        cluster.ends_well();
    });
}

#[test]
fn a_replica_that_was_away_through_three_failovers_follows_the_last() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.power_cut(2);
        let old_fence_epochs = cluster.epochs(0).len();
        for (from, to) in [(0, 1), (1, 0), (0, 1)] {
            cluster.write(from, 0);
            cluster.kill(from);
            cluster.restart(from);
            let _the_old_one_may_be_faster = cluster.promoted(to, crate::FORCE);
            let primary = cluster.primary_within(PATIENCE_MS);
            if primary != to {
                cluster.promoted(to, crate::FORCE).unwrap();
            }
        }
        let kept = cluster.write(1, 1);
        cluster.restart(2);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.flushed(2) >= kept.end));
        assert_eq!(cluster.fence(2), cluster.fence(1));
        let cluster = cluster.ends_well();
        assert!(cluster.epochs(2).len() >= old_fence_epochs + 3);
        assert!(!cluster.was_cut(2), "what it had was a prefix of it all");
    });
}

#[test]
fn a_replica_with_an_old_fence_that_is_promoted_first_fetches_what_it_missed() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.power_cut(2);
        cluster.promoted(1, crate::FORCE).unwrap();
        let kept = cluster.write(1, 0);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.flushed(0) >= kept.end));
        cluster.kill(1);
        cluster.restart(2);
        assert!(cluster.fence(2) < kept.epoch && cluster.flushed(2) < kept.end);
        let opened = cluster.promoted(2, CAREFUL).unwrap();
        assert!(opened > kept.epoch);
        assert_eq!(cluster.value(2, 0), kept.value());
        assert_eq!(cluster.verdict(2, &kept), Verdict::Committed);
        cluster.restart(1);
        cluster.ends_well();
    });
}

#[test]
fn a_primary_that_restarts_takes_its_replicas_back_without_a_cut() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        for turn in 0..4 {
            let kept = cluster.write(0, turn);
            let held = |cluster: &Cluster| cluster.flushed(1).min(cluster.flushed(2)) >= kept.end;
            assert!(cluster.run_until(PATIENCE_MS, held));
            cluster.kill(0);
            cluster.restart(0);
            assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        }
        let cluster = cluster.ends_well();
        assert!((0..3).all(|node| !cluster.was_cut(node)));
    });
}
