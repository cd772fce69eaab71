//! A loss that an operator accepts: those who are left vote alone, and those who hold more are kept
//! out when they return.

use towline_protocol::frame::Refusal;
use towline_protocol::machine::{Failover, Failure, RoleView, Verdict};
use towline_sim::script::{Cluster, Written};

use crate::{CAREFUL, FORCE, LONG_MS, LOSS, PATIENCE_MS, each, insist, working};

/// Node 2 lacks a write that was acknowledged; 0 and 1, which hold it, are down and know for good
/// that it is committed.
fn bereft(seed: u64) -> (Cluster, Written) {
    let mut cluster = working(seed, 3);
    cluster.isolate(2);
    let lost = cluster.write(0, 0);
    let known = |cluster: &Cluster| cluster.applied(1).min(cluster.applied(0)) >= lost.end;
    assert!(cluster.run_until(PATIENCE_MS, known));
    // The engines write down how far they are now and then.
    cluster.run_for(LONG_MS);
    cluster.kill(0);
    cluster.kill(1);
    cluster.heal();
    (cluster, lost)
}

#[test]
fn one_survivor_of_three_votes_alone_and_takes_the_others_back() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.kill(0);
        cluster.kill(2);
        assert_eq!(cluster.promoted(1, FORCE), Err(Failure::TooFew { reached: 1, needed: 2 }));
        cluster.promoted(1, LOSS).unwrap();
        assert_eq!((cluster.voters(1).n(), cluster.voters(1).w()), (1, 1));
        assert!(cluster.began_with_a_loss(1));
        let alone = cluster.write(1, 0);
        cluster.restart(0);
        cluster.restart(2);
        let back = |cluster: &Cluster| cluster.streams(0) && cluster.streams(2);
        assert!(cluster.run_until(PATIENCE_MS, back), "they lack nothing that is committed");
        let applied = |cluster: &Cluster| cluster.applied(0) >= alone.end;
        assert!(cluster.run_until(PATIENCE_MS, applied));
        assert!(!cluster.votes(0) && !cluster.votes(2), "they count no more");
        insist(&mut cluster, |cluster| cluster.set_voters(1, &[0, 1, 2], None));
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.votes(0) && cluster.is_open(1)));
        cluster.kill(2);
        cluster.write(1, 1);
        cluster.restart(2);
        cluster.ends_well();
    });
}

#[test]
fn the_survivors_of_five_commit_by_a_majority_of_their_own() {
    each(|seed| {
        let mut cluster = working(seed, 5);
        for node in [0, 1, 2] {
            cluster.power_cut(node);
        }
        assert_eq!(cluster.promoted(3, FORCE), Err(Failure::TooFew { reached: 2, needed: 3 }));
        cluster.promoted(3, LOSS).unwrap();
        assert_eq!((cluster.voters(3).n(), cluster.voters(3).w()), (2, 2));
        cluster.write(3, 0);
        cluster.kill(4);
        let waits = cluster.execute(3, 1).unwrap();
        for node in [0, 1, 2] {
            cluster.restart(node);
        }
        let held = |cluster: &Cluster| cluster.acked_by(3, 0).min(cluster.acked_by(3, 1));
        assert!(cluster.run_until(PATIENCE_MS, |cluster| held(cluster) >= waits.end));
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&waits), "those who were given up do not commit");
        cluster.restart(4);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_acknowledged(&waits)));
        cluster.ends_well();
    });
}

#[test]
fn those_who_hold_what_was_lost_are_refused_when_they_return() {
    each(|seed| {
        let (mut cluster, lost) = bereft(seed);
        cluster.give_up_all_but(2);
        cluster.promoted(2, LOSS).unwrap();
        assert_ne!(cluster.value(2, 0), lost.value());
        assert_eq!(cluster.verdict(2, &lost), Verdict::Lost);
        let kept = cluster.write(2, 1);
        cluster.restart(0);
        cluster.restart(1);
        let refused = |cluster: &Cluster| {
            [0, 1].iter().all(|node| cluster.refused(*node) == Some(Refusal::LossAccepted))
        };
        assert!(cluster.run_until(PATIENCE_MS, refused));
        cluster.run_for(LONG_MS);
        for node in [0, 1] {
            assert_eq!(cluster.role(node), Some(RoleView::Quarantined));
            let reason = cluster.quarantine(node).unwrap();
            assert!(reason.contains("an operator gave up"), "{reason}");
            assert!(cluster.flushed(node) >= lost.end, "its log is left as it was");
            assert_eq!(cluster.verdict(node, &lost), Verdict::Committed);
        }
        assert_eq!(cluster.open_nodes(), [2]);
        cluster.write(2, 2);
        // Founded anew they follow, and vote once they are told to.
        cluster.wipe(0);
        cluster.wipe(1);
        let follow = |cluster: &Cluster| {
            [0, 1].iter().all(|node| cluster.is_up(*node) && cluster.streams(*node))
        };
        assert!(cluster.run_until(PATIENCE_MS, follow));
        assert!(!cluster.votes(0) && !cluster.votes(1));
        insist(&mut cluster, |cluster| cluster.set_voters(2, &[0, 1, 2], None));
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.votes(0)));
        let cluster = cluster.ends_well();
        assert_eq!(cluster.value(0, 1), kept.value());
    });
}

#[test]
fn those_who_were_refused_are_refused_again_after_a_restart() {
    each(|seed| {
        let (mut cluster, _) = bereft(seed);
        cluster.give_up_all_but(2);
        cluster.promoted(2, LOSS).unwrap();
        let quarantined = |cluster: &Cluster| cluster.role(0) == Some(RoleView::Quarantined);
        for _ in 0..3 {
            cluster.restart(0);
            assert!(cluster.run_until(PATIENCE_MS, quarantined));
            assert_eq!(cluster.promoted(0, FORCE).map_err(|error| error.to_string()), {
                let reason = cluster.quarantine(0).unwrap();
                Err(format!("this node is quarantined: {reason}"))
            });
            cluster.kill(0);
        }
        cluster.write(2, 0);
        cluster.wipe(0);
        cluster.wipe(1);
        cluster.ends_well();
    });
}

#[test]
fn one_who_holds_what_was_lost_and_does_not_know_it_committed_is_cut() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.isolate(2);
        // Node 1 dies in the moment between its ack and the news that it was enough.
        let lost = (0..200).find_map(|_| {
            let written = cluster.write(0, 0);
            (cluster.committed(1) < written.end).then_some(written)
        });
        let lost = lost.expect("the news takes some milliseconds, now and then at least");
        cluster.kill(1);
        cluster.kill(0);
        cluster.heal();
        cluster.give_up_all_but(2);
        cluster.promoted(2, LOSS).unwrap();
        cluster.write(2, 1);
        cluster.restart(1);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| {
            cluster.salvaged(1, &lost) || cluster.role(1) == Some(RoleView::Quarantined)
        }));
        // It may know that an earlier one is committed, which is lost as well.
        if cluster.role(1) == Some(RoleView::Quarantined) {
            cluster.wipe(1);
        }
        cluster.wipe(0);
        cluster.ends_well();
    });
}

#[test]
fn a_loss_is_not_accepted_while_a_voter_follows_a_primary_at_work() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let epochs = cluster.epochs(0);
        cluster.cut(0, 2);
        let refused = cluster.promoted(2, LOSS);
        assert!(matches!(refused, Err(Failure::NotStopped(_))), "{refused:?}");
        cluster.write(0, 0);
        assert_eq!(cluster.epochs(0), epochs, "the other side was not disturbed");
        assert_eq!(cluster.voters(0).n(), 3);
        cluster.heal();
        cluster.ends_well();
    });
}

#[test]
fn a_loss_is_not_accepted_of_a_primary_that_answers() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let fences = [0, 1, 2].map(|node| cluster.fence(node));
        let refused = cluster.promoted(2, LOSS);
        assert!(matches!(refused, Err(Failure::PrimaryAlive { .. })), "{refused:?}");
        assert_eq!([0, 1, 2].map(|node| cluster.fence(node)), fences, "nothing has moved");
        cluster.write(0, 0);
        cluster.ends_well();
    });
}

#[test]
fn a_loss_that_is_accepted_without_need_changes_nothing() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let kept = cluster.write(0, 0);
        cluster.kill(0);
        cluster.promoted(1, LOSS).unwrap();
        assert_eq!((cluster.voters(1).n(), cluster.voters(1).w()), (3, 2));
        assert!(!cluster.began_with_a_loss(1));
        assert_eq!(cluster.value(1, 0), kept.value());
        cluster.restart(0);
        let cluster = cluster.ends_well();
        assert!(cluster.votes(0));
    });
}

#[test]
fn among_several_survivors_the_longest_log_is_adopted() {
    each(|seed| {
        let mut cluster = working(seed, 5);
        // Node 3 holds more than node 4, and not enough nodes live to know whether it is all.
        cluster.isolate(4);
        let last = cluster.write(0, 0);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.flushed(3) >= last.end));
        for node in [0, 1, 2] {
            cluster.kill(node);
        }
        cluster.heal();
        cluster.promoted(4, LOSS).unwrap();
        assert_eq!(cluster.value(4, 0), last.value(), "nothing was lost in the end");
        for node in [0, 1, 2] {
            cluster.restart(node);
        }
        let cluster = cluster.ends_well();
        assert!((0..5).all(|node| !cluster.was_cut(node)));
    });
}

#[test]
fn a_survivor_that_dies_while_it_takes_over_can_be_told_again() {
    for after_ms in [20, 150, 290, 310, 330] {
        each(|seed| {
            let (mut cluster, _) = bereft(seed);
            cluster.give_up_all_but(2);
            cluster.promote(2, LOSS).unwrap();
            cluster.run_for(after_ms);
            cluster.power_cut(2);
            cluster.restart(2);
            cluster.run_for(LONG_MS);
            if !cluster.is_open(2) {
                assert_eq!(cluster.voters(2).n(), 3, "the BARRIER was not written");
                cluster.promoted(2, LOSS).unwrap();
            }
            assert_eq!(cluster.voters(2).n(), 1);
            cluster.write(2, 0);
            cluster.wipe(0);
            cluster.wipe(1);
            cluster.ends_well();
        });
    }
}

#[test]
fn a_loss_and_a_grant_are_two_decisions() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.wipe(2);
        cluster.kill(0);
        let life = cluster.incarnation(2);
        let grant = Some(("n2".parse().unwrap(), life));
        let both = Failover { grant, ..LOSS };
        assert_eq!(cluster.promoted(1, both), Err(Failure::LossAndGrant));
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_up(2)));
        assert_eq!(cluster.promoted(1, CAREFUL), Err(Failure::TooFew { reached: 1, needed: 2 }));
        cluster.promoted(1, LOSS).unwrap();
        assert_eq!(cluster.voters(1).n(), 1, "the new disk was not asked");
        cluster.restart(0);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.streams(2) && cluster.streams(0)));
        insist(&mut cluster, |cluster| cluster.set_voters(1, &[0, 1, 2], None));
        cluster.ends_well();
    });
}
