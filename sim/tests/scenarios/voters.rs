//! Who votes, and how many commit, changes while the cluster works.

use towline_protocol::id::NodeId;
use towline_protocol::machine::Failure;
use towline_sim::script::Cluster;

use crate::{CAREFUL, FORCE, LONG_MS, PATIENCE_MS, each, insist, take_over, working};

fn name(node: usize) -> NodeId {
    format!("n{node}").parse().unwrap()
}

/// Makes `voters` vote, `w` of them commit, and waits until node 0 leads on these terms.
fn vote(cluster: &mut Cluster, voters: &[usize], w: Option<u8>) {
    insist(cluster, |cluster| cluster.set_voters(0, voters, w));
    let w = w.map_or(voters.len() / 2 + 1, usize::from);
    let in_force = |cluster: &Cluster| {
        let now = cluster.voters(0);
        let named = voters.iter().all(|node| now.get(name(*node)).is_some());
        cluster.is_open(0) && named && (now.n(), now.w()) == (voters.len(), w)
    };
    assert!(cluster.run_until(PATIENCE_MS, in_force), "{voters:?} {w:?}");
}

#[test]
fn a_voter_that_is_down_is_replaced_by_another_node() {
    each(|seed| {
        let mut cluster = Cluster::found_as(seed, 4, 3, None);
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        cluster.write(0, 0);
        cluster.power_cut(2);
        vote(&mut cluster, &[0, 1, 3], None);
        cluster.kill(1);
        let waits = cluster.write(0, 1);
        // The one that was voted out comes back where the new ones can not be heard.
        cluster.cut(2, 0);
        cluster.cut(2, 3);
        cluster.restart(2);
        cluster.restart(1);
        let refused = cluster.promoted(2, FORCE);
        assert!(refused.is_err(), "{refused:?}");
        cluster.heal();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.applied(2) >= waits.end));
        assert!(!cluster.votes(2));
        let primary = cluster.primary_within(PATIENCE_MS);
        cluster.write(primary, 2);
        cluster.ends_well();
    });
}

#[test]
fn w_grows_and_shrinks_and_counts_at_once() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        vote(&mut cluster, &[0, 1, 2], Some(3));
        cluster.kill(2);
        let waits = cluster.execute(0, 0).unwrap();
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&waits), "all three commit now");
        cluster.restart(2);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_acknowledged(&waits)));
        vote(&mut cluster, &[0, 1, 2], Some(1));
        cluster.kill(1);
        cluster.kill(2);
        cluster.write(0, 1);
        cluster.restart(1);
        cluster.restart(2);
        vote(&mut cluster, &[0, 1, 2], None);
        cluster.kill(1);
        cluster.write(0, 2);
        cluster.restart(1);
        cluster.ends_well();
    });
}

#[test]
fn a_change_that_too_few_could_commit_is_refused_and_nothing_moves() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.kill(2);
        cluster.run_for(LONG_MS);
        let epochs = cluster.epochs(0);
        let refused = cluster.set_voters(0, &[0, 1, 2], Some(3));
        assert_eq!(refused, Err(Failure::NotReady { ready: 2, needed: 3 }));
        let without_itself = cluster.set_voters(0, &[1, 2], None);
        assert!(matches!(without_itself, Err(Failure::NotVoter(_))));
        assert!(matches!(cluster.set_voters(1, &[0, 1], None), Err(Failure::NotPrimary(_))));
        cluster.write(0, 0);
        assert_eq!(cluster.epochs(0), epochs);
        cluster.restart(2);
        cluster.ends_well();
    });
}

#[test]
fn a_primary_that_dies_while_the_voters_change_loses_nothing() {
    for after_ms in [5, 20, 40, 60, 90, 130] {
        each(|seed| {
            let mut cluster = Cluster::found_as(seed, 5, 3, None);
            assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
            let kept = cluster.write(0, 0);
            insist(&mut cluster, |cluster| cluster.set_voters(0, &[0, 3, 4], None));
            cluster.run_for(after_ms);
            cluster.power_cut(0);
            cluster.run_for(100);
            // Whom the change reached tells the others, the new voters too, that they are some.
            let opened = [1, 3, 2, 4].iter().find(|node| cluster.promoted(**node, CAREFUL).is_ok());
            assert!(opened.is_some(), "two of three voters of both sets live");
            let primary = cluster.primary_within(PATIENCE_MS);
            assert_eq!(cluster.value(primary, 0), kept.value());
            assert!(cluster.votes(primary));
            cluster.write(primary, 1);
            cluster.restart(0);
            cluster.ends_well();
        });
    }
}

#[test]
fn one_node_grows_to_five_and_shrinks_to_one() {
    each(|seed| {
        let mut cluster = Cluster::found_as(seed, 5, 1, None).with_clients();
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        let steps = [&[0, 1, 2][..], &[0, 1, 2, 3, 4], &[0, 3], &[0]];
        for voters in steps {
            cluster.run_for(200);
            vote(&mut cluster, voters, None);
        }
        for node in 1..5 {
            cluster.kill(node);
        }
        cluster.write(0, 0);
        for node in 1..5 {
            cluster.restart(node);
        }
        cluster.ends_well();
    });
}

#[test]
fn a_failover_right_after_w_shrank_finds_everything() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        // One commits, so three must be fenced: whoever is missing may be the one.
        vote(&mut cluster, &[0, 1, 2], Some(1));
        cluster.isolate(0);
        let alone = cluster.write(0, 0);
        let refused = cluster.promoted(1, FORCE);
        assert!(matches!(refused, Err(Failure::TooFew { reached: 2, .. })), "{refused:?}");
        cluster.heal();
        take_over(&mut cluster, 1, FORCE);
        assert_eq!(cluster.value(1, 0), alone.value(), "it was on one disk and is on this one");
        cluster.ends_well();
    });
}
