use super::*;
use crate::epoch::Epoch;

const BARRIER_END: Lsn = Lsn::new(10);

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn voters(names: &[&str], w: u8) -> Voters {
    let voter =
        |name: &&str| Voter { node: node(name), incarnation: Incarnation(1), zone: String::new() };
    Voters::new(names.iter().map(voter).collect(), Some(w)).unwrap()
}

fn tally(names: &[&str], w: u8) -> Tally {
    Tally::new((node(names[0]), Incarnation(1)), VoterSets::of(voters(names, w)), BARRIER_END)
}

fn ack(incarnation: u64, flushed: u64, seen: u64) -> Ack {
    let at = Lsn::new(flushed);
    Ack { incarnation: Incarnation(incarnation), received: at, flushed: at, applied: at, seen }
}

fn epoch(number: u64) -> Epoch {
    Epoch { number, incarnation: Incarnation(1) }
}

#[test]
fn two_of_three_commit_with_or_without_the_primary() {
    let mut tally = tally(&["a", "b", "c"], 2);
    assert_eq!(tally.committed(Lsn::new(90)), None);
    tally.merge(node("b"), &ack(1, 9, 0), 0);
    assert_eq!(tally.committed(Lsn::new(90)), None, "the BARRIER comes first");
    tally.merge(node("b"), &ack(1, 50, 0), 0);
    assert_eq!(tally.committed(Lsn::new(90)), Some(Lsn::new(50)));
    tally.merge(node("c"), &ack(1, 70, 0), 0);
    assert_eq!(tally.committed(Lsn::new(90)), Some(Lsn::new(70)));
    let own_slow = tally.committed(Lsn::ZERO);
    assert_eq!(own_slow, Some(Lsn::new(50)), "a slow own disk does not hold up");
}

#[test]
fn a_replica_that_does_not_vote_never_counts() {
    let mut tally = tally(&["a", "b"], 2);
    tally.merge(node("x"), &ack(1, 80, 3), 0);
    assert_eq!(tally.committed(Lsn::new(90)), None);
    assert_eq!(tally.seen_by_w(9), 0);
}

#[test]
fn another_life_of_a_voter_never_counts() {
    let mut tally = tally(&["a", "b"], 2);
    tally.merge(node("b"), &ack(1, 80, 3), 0);
    tally.merge(node("b"), &ack(2, 85, 4), 0);
    assert_eq!(tally.committed(Lsn::new(90)), None);
    tally.merge(node("b"), &ack(1, 40, 2), 0);
    assert_eq!(tally.committed(Lsn::new(90)), Some(Lsn::new(40)), "what it said before is void");
}

#[test]
fn a_late_ack_takes_nothing_back() {
    let mut tally = tally(&["a", "b"], 2);
    tally.merge(node("b"), &ack(1, 80, 5), 0);
    tally.merge(node("b"), &ack(1, 40, 2), 0);
    assert_eq!(tally.committed(Lsn::new(90)), Some(Lsn::new(80)));
    assert_eq!(tally.seen_by_w(9), 5);
}

#[test]
fn an_echo_counts_only_behind_the_barrier() {
    let mut tally = tally(&["a", "b"], 2);
    tally.merge(node("b"), &ack(1, 9, 5), 0);
    assert_eq!(tally.seen_by_w(9), 0);
    tally.merge(node("b"), &ack(1, 10, 5), 0);
    assert_eq!(tally.seen_by_w(9), 5);
}

#[test]
fn a_change_is_committed_by_both_sets_and_what_follows_by_the_new_one() {
    let sets = VoterSets::of(voters(&["a", "b", "c"], 2));
    let sets = sets.with(voters(&["a", "d", "e"], 2), epoch(2)).unwrap();
    let mut tally = Tally::new((node("a"), Incarnation(1)), sets, BARRIER_END);
    tally.merge(node("d"), &ack(1, 60, 0), 0);
    assert_eq!(tally.committed(Lsn::new(90)), None, "the old set has not heard of it");
    tally.merge(node("b"), &ack(1, 10, 0), 0);
    assert_eq!(tally.committed(Lsn::new(90)), Some(Lsn::new(60)));

    // What the old set's voters do later, on whatever disk, is of no interest any more.
    tally.merge(node("b"), &ack(2, 0, 0), 0);
    tally.merge(node("d"), &ack(1, 70, 0), 0);
    assert_eq!(tally.committed(Lsn::new(90)), Some(Lsn::new(70)));
}

#[test]
fn a_new_disk_is_granted_by_the_other_voters() {
    let old = voters(&["a", "b", "c"], 2);
    let new = old.granting(node("c"), Incarnation(7)).unwrap();
    let sets = VoterSets::of(old).with(new, epoch(2)).unwrap();
    let mut tally = Tally::new((node("a"), Incarnation(1)), sets, BARRIER_END);
    tally.merge(node("c"), &ack(7, 50, 0), 0);
    assert_eq!(tally.committed(Lsn::new(90)), None, "the new disk can not grant itself");
    tally.merge(node("b"), &ack(1, 10, 0), 0);
    assert_eq!(tally.committed(Lsn::new(90)), Some(Lsn::new(50)));
}

#[test]
fn where_both_commit_one_is_enough_to_grant_the_other() {
    let old = voters(&["a", "b"], 2);
    let new = old.granting(node("b"), Incarnation(7)).unwrap();
    let sets = VoterSets::of(old).with(new, epoch(2)).unwrap();
    let mut tally = Tally::new((node("a"), Incarnation(1)), sets, BARRIER_END);
    assert_eq!(tally.committed(Lsn::new(90)), None);
    tally.merge(node("b"), &ack(7, 30, 0), 0);
    assert_eq!(tally.committed(Lsn::new(90)), Some(Lsn::new(30)));
}

/// A change that replaces a disk and lets fewer commit: what the replaced disk still says of itself
/// must not stand for one of the others, or a candidate could fence without meeting any of them.
#[test]
fn a_disk_that_is_replaced_has_no_say_in_it() {
    let old = voters(&["a", "b", "c"], 3);
    let granted = old.granting(node("c"), Incarnation(2)).unwrap();
    let granted = Voters::new(granted.members().to_vec(), Some(1)).unwrap();
    let sets = VoterSets::of(old).with(granted, epoch(2)).unwrap();
    let mut tally = Tally::new((node("a"), Incarnation(1)), sets, BARRIER_END);
    tally.merge(node("c"), &ack(1, 20, 0), 0);
    assert_eq!(tally.committed(Lsn::new(20)), None, "a and the replaced disk of c");
    tally.merge(node("b"), &ack(1, 20, 0), 0);
    assert_eq!(tally.committed(Lsn::new(20)), Some(Lsn::new(20)));
}
