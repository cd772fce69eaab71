//! Switch-overs that are planned.

use towline_protocol::machine::{Failure, Verdict};
use towline_sim::script::Cluster;

use crate::{CAREFUL, LONG_MS, PATIENCE_MS, each, working};

/// Node `from` hands over to `to`, which opens.
fn hands_over(cluster: &mut Cluster, from: usize, to: usize) {
    cluster.hand_over(from, Some(to)).unwrap();
    let opens = |cluster: &Cluster| cluster.is_open(to);
    assert!(cluster.run_until(PATIENCE_MS, opens), "n{to} takes over from n{from}");
    let ended = cluster.last_ended(from).unwrap();
    assert_eq!(ended, Ok(cluster.fence(to)), "and the one that handed over is told");
}

#[test]
fn a_hand_over_under_load_answers_everything_that_was_executed() {
    each(|seed| {
        let mut cluster = Cluster::found(seed, 3).with_clients();
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        cluster.run_for(500);
        hands_over(&mut cluster, 0, 1);
        cluster.run_for(500);
        hands_over(&mut cluster, 1, 2);
        cluster.run_for(500);
        assert_eq!(cluster.unknown(), 0, "no client is left without an answer");
        assert_eq!(cluster.open_nodes(), [2]);
        let cluster = cluster.ends_well();
        assert!((0..3).all(|node| !cluster.was_cut(node)), "behind an END nothing is appended");
    });
}

#[test]
fn a_hand_over_executes_nothing_new_and_keeps_what_was_under_way() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let under_way: Vec<_> = (0..20).map(|n| cluster.execute(0, n % 5).unwrap()).collect();
        cluster.hand_over(0, Some(2)).unwrap();
        cluster.run_for(5);
        assert_eq!(cluster.execute(0, 0), None, "it is quiet");
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_open(2)));
        assert!(under_way.iter().all(|written| cluster.is_acknowledged(written)));
        let verdict = |written| cluster.verdict(2, written);
        assert!(under_way.iter().all(|written| verdict(written) == Verdict::Committed));
        assert_eq!(cluster.value(2, 4), under_way[19].value());
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.streams(0)));
        cluster.write(2, 0);
        cluster.ends_well();
    });
}

#[test]
fn a_hand_over_there_and_back_again_leaves_one_history() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let before = cluster.epochs(0).len();
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1), (1, 0)] {
            let followers =
                |cluster: &Cluster| (0..3).all(|node| node == from || cluster.streams(node));
            assert!(cluster.run_until(PATIENCE_MS, followers));
            cluster.write(from, to as u8);
            hands_over(&mut cluster, from, to);
            cluster.write(to, from as u8);
        }
        let cluster = cluster.ends_well();
        assert_eq!(cluster.epochs(0).len(), before + 5, "one epoch each");
        assert!((1..3).all(|node| cluster.epochs(node) == cluster.epochs(0)));
    });
}

#[test]
fn a_hand_over_to_one_that_is_down_is_given_up_and_the_primary_goes_on() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.kill(1);
        let epochs = cluster.epochs(0).len();
        let _of_its_start = cluster.last_ended(0);
        cluster.hand_over(0, Some(1)).unwrap();
        let ended = |cluster: &Cluster| !cluster.is_open(0);
        assert!(cluster.run_until(PATIENCE_MS, ended));
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        assert_eq!(cluster.ended(0), Some(Err(Failure::NoSuccessor)));
        assert!(cluster.epochs(0).len() > epochs, "its old epoch has ended");
        cluster.write(0, 0);
        cluster.restart(1);
        cluster.ends_well();
    });
}

#[test]
fn a_hand_over_to_one_that_hangs_is_given_up_and_the_primary_goes_on() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.pause(1, LONG_MS);
        cluster.hand_over(0, Some(1)).unwrap();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| !cluster.is_open(0)));
        let primary = cluster.primary_within(PATIENCE_MS);
        assert_eq!(primary, 0, "nobody else was asked");
        let kept = cluster.write(0, 0);
        // When it wakes it has an old call to take over before it.
        cluster.run_for(2 * LONG_MS);
        assert_eq!(cluster.open_nodes().len(), 1);
        let cluster = cluster.ends_well();
        assert_eq!(cluster.value(1, 0), kept.value());
    });
}

#[test]
fn a_hand_over_to_whoever_is_fit_takes_one_that_holds_everything() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.isolate(1);
        let last = (0..30).map(|n| cluster.write(0, n % 5)).last().unwrap();
        cluster.hand_over(0, None).unwrap();
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_open(2)));
        assert_eq!(cluster.value(2, last.key()), last.value());
        cluster.heal();
        cluster.ends_well();
    });
}

#[test]
fn a_hand_over_to_one_that_does_not_vote_or_by_one_that_does_not_lead_is_refused() {
    each(|seed| {
        let mut cluster = Cluster::found_as(seed, 4, 3, None);
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        cluster.write(0, 0);
        let epoch = cluster.fence(0);
        assert!(matches!(cluster.hand_over(0, Some(3)), Err(Failure::NotVoter(_))));
        assert!(matches!(cluster.hand_over(1, Some(2)), Err(Failure::NotPrimary(_))));
        cluster.write(0, 0);
        assert_eq!(cluster.fence(0), epoch);
        cluster.ends_well();
    });
}

#[test]
fn a_primary_that_dies_while_it_hands_over_loses_nothing() {
    for after_ms in [2, 10, 20, 30, 45, 70] {
        each(|seed| {
            let mut cluster = working(seed, 3);
            let kept: Vec<_> = (0..5).map(|key| cluster.write(0, key)).collect();
            cluster.hand_over(0, Some(1)).unwrap();
            cluster.run_for(after_ms);
            cluster.power_cut(0);
            cluster.run_for(LONG_MS);
            if cluster.primary().is_none() {
                cluster.promoted(2, CAREFUL).unwrap();
            }
            let primary = cluster.primary_within(PATIENCE_MS);
            let values = kept.iter().map(|kept| (cluster.value(primary, kept.key()), kept.value()));
            assert!(values.clone().all(|(held, kept)| held == kept));
            cluster.restart(0);
            let cluster = cluster.ends_well();
            assert_eq!(cluster.open_nodes(), [primary]);
        });
    }
}

#[test]
fn a_successor_that_dies_while_it_takes_over_leaves_the_cluster_to_the_old_primary() {
    for after_ms in [25, 40, 60, 90] {
        each(|seed| {
            let mut cluster = working(seed, 3);
            let kept = cluster.write(0, 3);
            cluster.hand_over(0, Some(1)).unwrap();
            cluster.run_for(after_ms);
            cluster.kill(1);
            cluster.run_for(LONG_MS);
            if cluster.primary().is_none() {
                cluster.promoted(2, CAREFUL).unwrap();
            }
            let primary = cluster.primary_within(PATIENCE_MS);
            assert_eq!(cluster.value(primary, 3), kept.value());
            cluster.write(primary, 0);
            cluster.restart(1);
            cluster.ends_well();
        });
    }
}
