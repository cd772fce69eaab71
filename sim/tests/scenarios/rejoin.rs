//! Nodes that come back with a log that is not the primary's.

use towline_protocol::machine::{RoleView, Verdict};

use crate::{CAREFUL, FORCE, LONG_MS, PATIENCE_MS, each, working};

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
        let old = (0..60).map(|n| cluster.execute(0, n % 5).unwrap()).last().unwrap();
        cluster.run_for(100);
        cluster.promoted(1, FORCE).unwrap();
        let new = cluster.write(1, 0);
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
