//! Nodes that come back with a log that is not the primary's.

use towline_protocol::frame::Refusal;
use towline_protocol::machine::{RoleView, Verdict};
use towline_sim::script::Cluster;

use crate::{CAREFUL, FORCE, LONG_MS, PATIENCE_MS, each, insist, working};

#[test]
fn a_primary_that_returns_with_a_longer_log_is_cut_to_the_fork() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let fork = cluster.appended(0);
        cluster.isolate(0);
        let alone: Vec<_> = (0..40).map(|n| cluster.execute(0, n % 5).unwrap()).collect();
        cluster.run_for(100);
        assert_eq!(cluster.flushed(0), alone[39].end, "the old primary has them on disk");
        cluster.kill(0);
        cluster.heal();
        cluster.promoted(1, CAREFUL).unwrap();
        let kept = cluster.write(1, 0);
        assert!(alone[39].end > fork && cluster.appended(1) > fork);
        cluster.restart(0);
        let mut cluster = cluster.ends_well();
        assert_eq!(cluster.digest(0), cluster.digest(1), "it holds the new primary's log");
        assert_eq!(cluster.value(0, 0), kept.value());
        assert!(alone.iter().all(|written| !cluster.is_acknowledged(written)));
        assert!(alone.iter().all(|written| cluster.verdict(0, written) == Verdict::Lost));
        assert!(alone.iter().all(|written| cluster.salvaged(0, written)), "nothing is destroyed");
        cluster.write(1, 1);
    });
}

#[test]
fn a_primary_that_returns_without_anything_more_is_not_cut() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.power_cut(0);
        cluster.promoted(2, CAREFUL).unwrap();
        cluster.write(2, 3);
        cluster.restart(0);
        let cluster = cluster.ends_well();
        assert_eq!(cluster.role(0), Some(RoleView::Replica { streaming: true }));
        assert!(!cluster.was_cut(0));
    });
}

#[test]
fn a_replica_ahead_of_its_new_primary_is_cut() {
    each(|seed| {
        let mut cluster = working(seed, 5);
        // Node 4 alone gets the last writes of node 0, and is away when the others decide.
        for other in 1..4 {
            cluster.cut(0, other);
        }
        let last = (0..20).map(|n| cluster.execute(0, n % 5).unwrap()).last().unwrap();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.flushed(4) >= last.end));
        cluster.kill(0);
        cluster.isolate(4);
        cluster.promoted(2, FORCE).unwrap();
        let kept = cluster.write(2, 2);
        cluster.heal();
        cluster.restart(0);
        let cluster = cluster.ends_well();
        assert!(!cluster.is_acknowledged(&last));
        assert!(cluster.salvaged(4, &last), "what was cut is kept aside");
        assert_eq!(cluster.value(4, 2), kept.value());
        assert_eq!(cluster.digest(4), cluster.digest(2));
    });
}

#[test]
fn a_longer_log_of_an_older_epoch_does_not_win() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.isolate(0);
        // Enough for several segments: an epoch begins with one, so a few bytes would not do.
        let long = |n: u8| cluster.execute_long(0, n % 5, 15_000).unwrap();
        let old = (0..20).map(long).last().unwrap();
        cluster.run_for(100);
        cluster.promoted(1, FORCE).unwrap();
        let new = cluster.write(1, 0);
        assert!(new.end < old.end && new.epoch > old.epoch);
        cluster.kill(1);
        cluster.heal();
        // Node 0 has more bytes, node 2 the later epoch.
        cluster.run_for(LONG_MS);
        cluster.promoted(0, FORCE).ok();
        let primary = cluster.primary_within(PATIENCE_MS);
        assert_eq!(cluster.value(primary, 0), new.value());
        assert_eq!(cluster.verdict(primary, &new), Verdict::Committed);
        assert_eq!(cluster.verdict(primary, &old), Verdict::Lost);
        cluster.restart(1);
        cluster.ends_well();
    });
}

#[test]
fn a_log_whose_committed_part_would_be_cut_is_left_alone_and_its_node_quarantined() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        // More disks are lost than the rules can stand: two of three go back to an old backup.
        cluster.back_up(1);
        cluster.back_up(2);
        let lost = cluster.write(0, 0);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.applied(0) >= lost.end));
        cluster.run_for(LONG_MS);
        for node in 0..3 {
            cluster.kill(node);
        }
        cluster.restore_unnoticed(1);
        cluster.restore_unnoticed(2);
        cluster.give_up_all_but(1);
        cluster.promoted(1, FORCE).unwrap();
        cluster.write(1, 1);
        cluster.kill(0);
        let before = cluster.opens(0).unwrap();
        cluster.restart(0);
        let quarantined = |cluster: &Cluster| cluster.role(0) == Some(RoleView::Quarantined);
        assert!(cluster.run_until(PATIENCE_MS, quarantined));
        assert_eq!(cluster.refused(0), Some(Refusal::Diverged));
        let reason = cluster.quarantine(0).unwrap();
        assert!(reason.contains("the logs part at"), "{reason}");
        cluster.run_for(LONG_MS);
        assert_eq!((cluster.flushed(0), cluster.was_cut(0)), (before, false));
        assert_eq!(cluster.verdict(0, &lost), Verdict::Committed, "it still knows");
        assert_eq!(cluster.open_nodes(), [1]);
        cluster.write(1, 2);
        // Founded anew it follows; its disk is another one now, and granted as such.
        cluster.wipe(0);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_up(0) && cluster.streams(0)));
        insist(&mut cluster, |cluster| cluster.grant(1, 0));
        cluster.ends_well();
    });
}

#[test]
fn nodes_cut_at_forks_again_and_again_hold_one_log_in_the_end() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let mut alone = Vec::new();
        for turn in 0..6 {
            let (old, new) = (turn % 3, (turn + 1) % 3);
            cluster.isolate(old);
            alone.push(cluster.execute(old, 0).unwrap());
            alone.push(cluster.execute(old, 1).unwrap());
            cluster.run_for(100);
            cluster.promoted(new, FORCE).unwrap();
            cluster.write(new, 2);
            cluster.heal();
            let joined = |cluster: &Cluster| cluster.streams(old) && cluster.open_nodes() == [new];
            assert!(cluster.run_until(PATIENCE_MS, joined), "n{old} joins n{new}");
        }
        let cluster = cluster.ends_well();
        assert!(alone.iter().all(|written| !cluster.is_acknowledged(written)));
        assert!((0..3).all(|node| cluster.was_cut(node)), "each of them was cut off once");
        assert!((1..3).all(|node| cluster.digest(node) == cluster.digest(0)));
    });
}

#[test]
fn a_node_that_dies_while_its_log_is_cut_finishes_the_cut() {
    for calls in 0..24 {
        each(|seed| {
            let mut cluster = working(seed, 3);
            cluster.isolate(0);
            let alone: Vec<_> = (0..10).map(|n| cluster.execute(0, n % 5).unwrap()).collect();
            cluster.run_for(100);
            cluster.promoted(1, FORCE).unwrap();
            cluster.write(1, 0);
            cluster.disk(0).die_after(calls);
            cluster.heal();
            let joined = |cluster: &Cluster| cluster.is_up(0) && cluster.streams(0);
            assert!(cluster.run_until(PATIENCE_MS, joined), "died in call {calls}");
            let cluster = cluster.ends_well();
            assert!(alone.iter().all(|written| cluster.salvaged(0, written)), "call {calls}");
            assert_eq!(cluster.digest(0), cluster.digest(1));
        });
    }
}
