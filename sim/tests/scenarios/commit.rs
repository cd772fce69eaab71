//! When a write is acknowledged, and when it is not.

use towline_protocol::machine::Failure;
use towline_sim::script::Cluster;

use crate::{LONG_MS, PATIENCE_MS, each, insist, working};

#[test]
fn a_commit_waits_while_fewer_than_w_voters_live() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.kill(1);
        cluster.kill(2);
        let written = cluster.execute(0, 0).unwrap();
        cluster.run_for(LONG_MS);
        assert_eq!(cluster.flushed(0), written.end, "it is on the primary's own disk");
        assert!(!cluster.is_acknowledged(&written));
        assert!(cluster.committed(0) < written.end);
        cluster.restart(2);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.committed(2) >= written.end));
        cluster.restart(1);
        cluster.ends_well();
    });
}

#[test]
fn an_asynchronous_replica_is_not_counted() {
    each(|seed| {
        // Three vote; the fourth and the fifth only follow.
        let mut cluster = Cluster::found_as(seed, 5, 3, None);
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        cluster.write(0, 0);
        cluster.kill(1);
        cluster.kill(2);
        let written = cluster.execute(0, 1).unwrap();
        let acked = |cluster: &Cluster| cluster.acked_by(0, 3).min(cluster.acked_by(0, 4));
        assert!(cluster.run_until(PATIENCE_MS, |cluster| acked(cluster) >= written.end));
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&written), "three disks hold it, but only one counts");
        cluster.restart(1);
        cluster.restart(2);
        cluster.ends_well();
    });
}

#[test]
fn a_commit_goes_on_while_one_of_three_is_down() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.power_cut(2);
        let before_ms = cluster.now_ms();
        for key in 0..5 {
            cluster.write(0, key);
        }
        assert!(cluster.now_ms() - before_ms < 1_000, "nobody waits for the one that is down");
        cluster.restart(2);
        let cluster = cluster.ends_well();
        assert_eq!(cluster.digest(2), cluster.digest(0));
    });
}

#[test]
fn where_every_voter_commits_one_that_is_down_holds_up_every_write() {
    each(|seed| {
        let mut cluster = Cluster::found_as(seed, 3, 3, Some(3));
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        cluster.write(0, 0);
        cluster.kill(2);
        let written = cluster.execute(0, 1).unwrap();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.acked_by(0, 1) >= written.end));
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&written));
        cluster.restart(2);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| {
            cluster.committed(1) >= written.end && cluster.committed(2) >= written.end
        }));
        cluster.ends_well();
    });
}

#[test]
fn where_one_voter_commits_it_waits_for_nobody_and_its_replicas_follow() {
    each(|seed| {
        let mut cluster = Cluster::found_as(seed, 3, 1, None);
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        cluster.isolate(0);
        let written = cluster.write(0, 0);
        assert!(cluster.appended(1) < written.end && cluster.appended(2) < written.end);
        cluster.heal();
        let cluster = cluster.ends_well();
        assert_eq!(cluster.value(2, 0), written.value());
    });
}

#[test]
fn a_wiped_voter_counts_only_once_granted() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.wipe(1);
        let end = cluster.appended(0);
        let refilled = |cluster: &Cluster| cluster.is_up(1) && cluster.acked_by(0, 1) >= end;
        assert!(cluster.run_until(PATIENCE_MS, refilled), "it is served like any replica");
        cluster.kill(2);
        let written = cluster.execute(0, 0).unwrap();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.acked_by(0, 1) >= written.end));
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&written), "its disk holds it and does not count");
        assert!(matches!(cluster.grant(0, 1), Err(Failure::NotReady { .. })), "not by one voter");
        cluster.restart(2);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_acknowledged(&written)));
        let streams = |cluster: &Cluster| cluster.streams(1) && cluster.streams(2);
        assert!(cluster.run_until(PATIENCE_MS, streams));
        let primary = cluster.primary_within(PATIENCE_MS);
        insist(&mut cluster, |cluster| cluster.grant(primary, 1));
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.votes(1)));
        let primary = cluster.primary_within(PATIENCE_MS);
        cluster.kill(2);
        cluster.write(primary, 0);
        cluster.restart(2);
        cluster.ends_well();
    });
}

#[test]
fn every_node_losing_power_at_once_loses_nothing_acknowledged() {
    each(|seed| {
        let mut cluster = Cluster::found(seed, 3).with_clients();
        cluster.run_for(1_000);
        for node in 0..3 {
            cluster.power_cut(node);
        }
        let unknown = cluster.unknown();
        cluster.run_for(500);
        for node in 0..3 {
            cluster.restart(node);
        }
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0, "the one that was primary leads again");
        let cluster = cluster.ends_well();
        assert!(cluster.epochs(0).len() >= 2, "in an epoch of its own");
        assert!(unknown < 200, "few were under way: {unknown}");
    });
}

#[test]
fn a_primary_cut_off_from_its_quorum_answers_no_read() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let answered = cluster.read(0, 1).unwrap();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_answered(&answered)));
        cluster.isolate(0);
        let asked = cluster.read(0, 1).unwrap();
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_answered(&asked), "another may lead by now");
        cluster.heal();
        cluster.ends_well();
    });
}

#[test]
fn a_primary_that_lost_its_quorum_for_a_while_goes_on_in_its_epoch() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let epochs = cluster.epochs(0);
        cluster.isolate(0);
        let written = cluster.execute(0, 2).unwrap();
        cluster.run_for(LONG_MS);
        assert!(cluster.is_open(0) && !cluster.is_acknowledged(&written));
        cluster.heal();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_acknowledged(&written)));
        let cluster = cluster.ends_well();
        assert_eq!(cluster.epochs(0), epochs, "nobody was promoted, so nothing was to be decided");
    });
}

#[test]
fn the_voters_change_while_clients_write_and_the_new_ones_count() {
    each(|seed| {
        // 3 and 4 follow at first; in the end they vote, and 1 and 2 do not.
        let mut cluster = Cluster::found_as(seed, 5, 3, None).with_clients();
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        cluster.run_for(300);
        for voters in [&[0, 1, 2, 3][..], &[0, 2, 3, 4], &[0, 3, 4]] {
            let settled =
                |cluster: &Cluster| cluster.is_open(0) && (1..5).all(|node| cluster.streams(node));
            assert!(cluster.run_until(PATIENCE_MS, settled));
            let before = cluster.epochs(0).len();
            insist(&mut cluster, |cluster| cluster.set_voters(0, voters, None));
            assert!(cluster.run_until(PATIENCE_MS, |cluster| {
                cluster.is_open(0) && cluster.epochs(0).len() > before
            }));
        }
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.votes(4) && !cluster.votes(1)));
        cluster.kill(1);
        cluster.kill(2);
        cluster.write(0, 0);
        cluster.kill(4);
        cluster.write(0, 0);
        cluster.kill(3);
        let waits = cluster.execute(0, 0).unwrap();
        cluster.restart(1);
        cluster.restart(2);
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&waits), "1 and 2 count no more");
        cluster.restart(3);
        cluster.restart(4);
        cluster.ends_well();
    });
}
