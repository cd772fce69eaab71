//! Who becomes primary, and who is one no longer.

use towline_protocol::machine::{Failure, Verdict};
use towline_sim::script::{Cluster, Written};

use crate::{CAREFUL, FORCE, LONG_MS, PATIENCE_MS, each, working};

#[test]
fn an_old_primary_frozen_past_its_replacement_acknowledges_nothing() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.pause(0, LONG_MS);
        let opened = cluster.promoted(1, FORCE).unwrap();
        let kept = cluster.write(1, 0);
        assert!(cluster.is_open(0), "it still thinks that it leads");
        // What its clients want of it the moment it wakes, before it hears anything.
        let (late, asked) = (cluster.execute(0, 0).unwrap(), cluster.read(0, 0).unwrap());
        assert!(late.epoch < opened && asked.value == late.value());
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&late));
        assert!(!cluster.is_answered(&asked), "nor does it answer reads");
        assert!(!cluster.is_open(0));
        let cluster = cluster.ends_well();
        assert_eq!(cluster.value(0, 0), kept.value());
        assert_eq!(cluster.verdict(1, &late), Verdict::Lost);
    });
}

#[test]
fn two_promotions_at_once_leave_one_primary() {
    each(|seed| {
        let mut cluster = working(seed, 5);
        cluster.kill(0);
        for node in [1, 2, 3] {
            cluster.promote(node, FORCE).unwrap();
        }
        cluster.run_for(LONG_MS);
        let ends: Vec<_> = [1, 2, 3].map(|node| cluster.last_ended(node).unwrap()).into();
        assert!(ends.iter().filter(|ended| ended.is_ok()).count() <= 1, "{ends:?}");
        let outrun = |ended: &&Result<_, Failure>| matches!(ended, Err(Failure::Outrun(_)));
        assert!(ends.iter().filter(outrun).count() >= 1, "{ends:?}");
        if cluster.primary().is_none() {
            cluster.promoted(1, CAREFUL).unwrap();
        }
        assert_eq!(cluster.open_nodes().len(), 1);
        let primary = cluster.primary_within(PATIENCE_MS);
        cluster.write(primary, 0);
        cluster.restart(0);
        cluster.ends_well();
    });
}

#[test]
fn a_promotion_without_r_voters_is_refused_and_moves_nothing() {
    each(|seed| {
        let mut cluster = working(seed, 5);
        for node in [0, 1, 4] {
            cluster.kill(node);
        }
        let fences = [2, 3].map(|node| cluster.fence(node));
        let refused = cluster.promoted(2, FORCE);
        assert_eq!(refused, Err(Failure::TooFew { reached: 2, needed: 3 }));
        assert_eq!([2, 3].map(|node| cluster.fence(node)), fences, "nobody was fenced for it");
        cluster.restart(4);
        assert!(cluster.promoted(2, FORCE).is_ok(), "three are enough");
        cluster.restart(0);
        cluster.restart(1);
        cluster.ends_well();
    });
}

#[test]
fn a_promotion_beside_a_living_primary_is_refused_unless_forced() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let epoch = cluster.fence(0);
        let refused = cluster.promoted(1, CAREFUL);
        assert!(matches!(refused, Err(Failure::PrimaryAlive { .. })), "{refused:?}");
        assert!(cluster.is_open(0) && cluster.fence(0) == epoch);
        let kept = cluster.write(0, 0);
        assert!(cluster.promoted(1, FORCE).unwrap() > epoch);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| !cluster.is_open(0)));
        let cluster = cluster.ends_well();
        assert_eq!(cluster.value(1, 0), kept.value());
    });
}

#[test]
fn a_node_that_does_not_vote_is_not_promoted() {
    each(|seed| {
        let mut cluster = Cluster::found_as(seed, 4, 3, None);
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        cluster.write(0, 0);
        cluster.kill(0);
        let refused = cluster.promoted(3, FORCE);
        assert!(matches!(refused, Err(Failure::NotVoter(_))), "{refused:?}");
        cluster.promoted(1, FORCE).unwrap();
        cluster.restart(0);
        cluster.ends_well();
    });
}

#[test]
fn a_lagging_replica_that_is_promoted_fetches_what_was_acknowledged_first() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.isolate(2);
        let last = (0..30).map(|n| cluster.write(0, n % 5)).last().unwrap();
        assert!(cluster.flushed(2) < last.end);
        cluster.kill(0);
        cluster.heal();
        let lagging = cluster.flushed(2);
        cluster.promoted(2, CAREFUL).unwrap();
        assert_eq!(cluster.value(2, last.key()), last.value(), "it serves what 0 and 1 had");
        assert!(cluster.flushed(2) > lagging);
        cluster.restart(0);
        cluster.ends_well();
    });
}

#[test]
fn a_candidate_that_dies_leaves_the_cluster_to_another() {
    each(|seed| {
        for after_ms in [5, 25, 40, 60, 80] {
            let mut cluster = working(seed, 5);
            cluster.kill(0);
            cluster.promote(1, FORCE).unwrap();
            cluster.run_for(after_ms);
            cluster.kill(1);
            // Whoever obeyed the dead one obeys a higher epoch as well.
            cluster.run_for(LONG_MS);
            cluster.promoted(2, CAREFUL).unwrap();
            cluster.write(2, 0);
            cluster.restart(0);
            cluster.restart(1);
            let cluster = cluster.ends_well();
            assert_eq!(cluster.open_nodes(), [2], "{after_ms} ms");
        }
    });
}

#[test]
fn a_primary_that_restarts_leads_again_in_a_new_epoch() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let (epochs, kept) = (cluster.epochs(0), cluster.write(0, 4));
        cluster.kill(0);
        cluster.restart(0);
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        assert_eq!(cluster.epochs(0).len(), epochs.len() + 1, "what it lost is never filled twice");
        assert_eq!(cluster.value(0, 4), kept.value());
        cluster.write(0, 4);
        cluster.ends_well();
    });
}

#[test]
fn primaries_that_fail_one_after_the_other_leave_one_history() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let mut kept = Vec::new();
        for turn in 0..6 {
            let (old, new) = (turn % 3, (turn + 1) % 3);
            kept.push(cluster.write(old, turn as u8 % 5));
            if turn % 2 == 0 {
                cluster.power_cut(old);
            } else {
                cluster.kill(old);
            }
            cluster.promoted(new, CAREFUL).unwrap();
            cluster.restart(old);
        }
        let cluster = cluster.ends_well();
        let epochs = cluster.epochs(0);
        assert!(epochs.len() >= 7, "{epochs:?}");
        assert!((1..3).all(|node| cluster.epochs(node) == epochs));
        assert!(kept.iter().all(|kept| cluster.verdict(1, kept) == Verdict::Committed));
    });
}

#[test]
fn a_primary_cut_off_with_a_minority_writes_nothing_while_the_majority_goes_on() {
    each(|seed| {
        let mut cluster = working(seed, 5);
        for minority in [0, 1] {
            for majority in [2, 3, 4] {
                cluster.cut(minority, majority);
            }
        }
        let lost = cluster.execute(0, 0).unwrap();
        cluster.promoted(3, CAREFUL).unwrap();
        let kept = cluster.write(3, 0);
        cluster.run_for(LONG_MS);
        assert!(cluster.flushed(1) >= lost.end, "the minority agrees among itself");
        assert!(!cluster.is_acknowledged(&lost));
        cluster.heal();
        let cluster = cluster.ends_well();
        assert_eq!(cluster.open_nodes(), [3]);
        assert_eq!(cluster.value(0, 0), kept.value());
        assert!(cluster.salvaged(1, &lost), "the replica beside it is cut as well");
    });
}

#[test]
fn over_a_bridge_between_two_halves_only_one_primary_acknowledges() {
    each(|seed| {
        let mut cluster = working(seed, 5);
        // 0 and 1 on one side, 3 and 4 on the other; only 2 sees all of them.
        for one in [0, 1] {
            for other in [3, 4] {
                cluster.cut(one, other);
            }
        }
        cluster.promoted(4, FORCE).unwrap();
        let kept = cluster.write(4, 0);
        let before = (cluster.is_open(0), cluster.execute(0, 0));
        cluster.run_for(LONG_MS);
        if let (true, Some(lost)) = before {
            assert!(!cluster.is_acknowledged(&lost), "2 obeys the other side");
        }
        assert!(!cluster.is_open(0), "and tells it so");
        cluster.heal();
        let cluster = cluster.ends_well();
        assert_eq!(cluster.value(1, 0), kept.value());
    });
}

#[test]
fn in_a_ring_where_each_sees_another_majority_one_primary_acknowledges() {
    each(|seed| {
        let mut cluster = working(seed, 5);
        for node in 0..5 {
            cluster.cut(node, (node + 2) % 5);
        }
        let mut written = Vec::new();
        for candidate in [3, 1, 4] {
            // Its two neighbours are enough to fence and to commit.
            let _ends_somehow = cluster.promoted(candidate, FORCE);
            for node in cluster.open_nodes() {
                written.extend(cluster.execute(node, 0));
            }
            cluster.run_for(1_000);
            let open = cluster.open_nodes();
            let owner = |epoch| written.iter().any(|it: &Written| it.epoch == epoch);
            assert!(open.iter().all(|node| cluster.fence(*node) == cluster.fence(*node)));
            assert!(owner(written.last().unwrap().epoch));
        }
        cluster.heal();
        let cluster = cluster.ends_well();
        assert_eq!(cluster.open_nodes().len(), 1);
        for written in written {
            let committed = cluster.verdict(2, &written) == Verdict::Committed;
            assert!(committed || !cluster.is_acknowledged(&written));
        }
    });
}

#[test]
fn a_primary_that_is_heard_and_hears_nobody_acknowledges_nothing() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.cut_one_way(1, 0);
        cluster.cut_one_way(2, 0);
        let written = cluster.execute(0, 0).unwrap();
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&written));
        cluster.promoted(1, CAREFUL).unwrap();
        let kept = cluster.write(1, 1);
        cluster.heal();
        let cluster = cluster.ends_well();
        assert_eq!(cluster.value(0, 1), kept.value());
    });
}

#[test]
fn clocks_that_jump_decide_nothing() {
    each(|seed| {
        let mut cluster = Cluster::found(seed, 3).with_clients();
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        let epochs = cluster.epochs(0);
        for (turn, node) in [0, 1, 2, 0, 2, 1].into_iter().enumerate() {
            cluster.run_for(150);
            cluster.jump(node, 10_000 * turn as u64 + 1_000);
        }
        let cluster = cluster.ends_well();
        assert_eq!(cluster.open_nodes(), [0]);
        assert_eq!(cluster.epochs(0), epochs, "nobody was deposed by a clock");
    });
}

#[test]
fn a_replica_that_was_paused_through_a_failover_and_is_promoted_has_everything() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.pause(2, 1_000);
        cluster.kill(0);
        cluster.restart(0);
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        let last = (0..10).map(|n| cluster.write(0, n % 5)).last().unwrap();
        cluster.run_for(1_500);
        let epoch = cluster.promoted(2, FORCE).unwrap();
        assert!(epoch > last.epoch);
        assert_eq!(cluster.value(2, last.key()), last.value());
        cluster.ends_well();
    });
}

#[test]
fn a_node_that_is_promoted_twice_leads_once() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let kept = cluster.write(0, 0);
        cluster.kill(0);
        cluster.promote(1, FORCE).unwrap();
        let again = cluster.promote(1, FORCE);
        assert!(matches!(again, Err(Failure::OtherCandidate { .. })), "{again:?}");
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_open(1)));
        let epoch = cluster.fence(1);
        assert_eq!(cluster.promote(1, FORCE), Err(Failure::AlreadyPrimary(epoch)));
        assert_eq!(cluster.value(1, 0), kept.value());
        cluster.write(1, 1);
        assert_eq!(cluster.fence(1), epoch, "the second call changed nothing");
        cluster.restart(0);
        cluster.ends_well();
    });
}

#[test]
fn a_voter_that_obeyed_remembers_it_through_a_power_cut() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let old = cluster.fence(0);
        cluster.isolate(0);
        let opened = cluster.promoted(1, FORCE).unwrap();
        cluster.power_cut(1);
        cluster.power_cut(2);
        cluster.restart(2);
        assert!(opened > old && cluster.fence(2) == opened);
        // The old primary is heard again, and asks for nothing but what it may still have.
        let late = cluster.execute(0, 0).unwrap();
        cluster.heal();
        cluster.run_for(LONG_MS);
        assert!(cluster.fence(0) >= opened);
        assert_ne!(cluster.verdict(2, &late), Verdict::Committed, "not in the old epoch");
        cluster.restart(1);
        cluster.ends_well();
    });
}
