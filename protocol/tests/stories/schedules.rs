//! Bugs that the schedules found in the rules, each as the shortest story that shows it.

use towline_protocol::epoch::{Epoch, EpochStart, History};
use towline_protocol::frame::{Ack, KnownPrimary, Positions, Purpose, Refusal, Welcome};
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{Action, Change, Decision, Failover, Failure, RoleView};
use towline_protocol::record::Digest;
use towline_protocol::terms::VoterSets;
use towline_protocol::voters::Voters;

use crate::{
    BARRIER_END, FENCE, TIMING, ack, actions, asks, barrier_terms, new_primary, node, open_primary,
    positions, replica, voters,
};

/// A primary is cut off while another takes over; its FENCE is lost and the cut heals. The new
/// primary has stopped calling, its replicas stream from it and dial nobody: the old primary
/// stayed one for ever, open, and its own log never rejoined. With two voters and R = 1 two
/// primaries could even face each other, neither with W, and the cluster stood still.
#[test]
fn a_primary_that_was_replaced_unheard_finds_out() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = open_primary(&voters);
    machine.handle_timeout(150);
    assert_eq!(asks(&mut machine), 0, "while its voters answer it asks nothing");

    machine.handle_timeout(300);
    assert_eq!(asks(&mut machine), 2, "without its quorum it asks every other voter");
    let newer = epoch.next(Incarnation(1)).next(Incarnation(1));
    let known_primary = KnownPrimary { node: node("c"), epoch: newer, age_ms: 3, leads: false };
    machine.handle_positions(node("b"), positions(&voters, newer, Some(known_primary)), 310);
    assert_eq!(machine.role(), RoleView::Replica { streaming: false });
    assert_eq!(machine.primary(), Some(node("c")), "it knows whom to follow");
    assert_eq!(actions(&mut machine), [Action::Demote]);
}

/// The same, but whoever took the higher epoch is gone: the primary takes a new one, after it
/// has left the other its time.
#[test]
fn a_primary_whose_voters_obey_nobody_alive_takes_a_new_epoch() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = open_primary(&voters);
    let newer = epoch.next(Incarnation(1)).next(Incarnation(1));
    for name in ["b", "c"] {
        machine.handle_positions(node(name), positions(&voters, newer, None), 310);
    }
    assert_eq!(machine.role(), RoleView::Primary { open: true });
    machine.handle_timeout(310 + TIMING.candidate_ms);
    assert_eq!(machine.role(), RoleView::Candidate);
    for name in ["b", "c"] {
        machine.handle_positions(node(name), positions(&voters, newer, None), 820);
    }
    assert!(machine.fence() > newer);
}

/// A primary is fenced after its BARRIER was appended and before it was committed: whoever asked
/// for the promotion waited for an end that never came.
#[test]
fn a_promotion_that_is_outrun_before_it_opens_is_told() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = new_primary(&voters);
    let newer = epoch.next(Incarnation(2));
    assert_eq!(machine.handle_fence(node("c"), newer, FENCE, 50), None);
    let told = Action::Ended(Err(Failure::Outrun(newer)));
    assert_eq!(actions(&mut machine), [Action::Demote, told, Action::Obey(newer)]);
}

/// The voters are changed, the change is committed, and then a voter of the *old* set loses its
/// disk and comes back on another. What it had acked fell away, the old set no longer held the
/// BARRIER, and a primary with all of its new voters never committed anything again.
#[test]
fn what_becomes_of_an_old_voter_does_not_undo_its_say() {
    let voters = voters(&["a", "b"]);
    let (mut machine, _) = open_primary(&voters);
    let alone = Voters::new(vec![voters.members()[0].clone()], None).expect("one voter");
    machine.change(Change { voters: alone, lease_ms: 0 }, 110).expect("both follow");
    let epoch = machine.fence();
    machine.handle_quiesced(epoch, 110);
    let end = BARRIER_END.advance(32);
    machine.handle_end(epoch, end, 111);
    machine.handle_flushed(end);
    assert!(machine.handle_ack(node("b"), epoch, &ack(1, end), 112));
    let (epoch, terms) = barrier_terms(&mut machine, &voters, 113);
    assert_eq!(terms.sets.as_slice().len(), 2, "both sets must commit the change");

    let first = Lsn::new(69_632);
    let mut history = History::default();
    for (epoch, first, previous, previous_end) in [
        (Epoch { number: epoch.number - 1, ..epoch }, Lsn::new(4_096), Epoch::NONE, Lsn::ZERO),
        (epoch, first, Epoch { number: epoch.number - 1, ..epoch }, end),
    ] {
        let digest = Digest::EMPTY;
        let accepted_loss = false;
        let start = EpochStart { epoch, first, previous, previous_end, digest, accepted_loss };
        history.push(start).expect("one follows on the other");
    }
    machine.handle_history(history, terms);
    let barrier_end = first.advance(48);
    machine.handle_barrier(epoch, barrier_end, 114);
    machine.handle_flushed(barrier_end);
    assert!(machine.committed() < barrier_end, "the old set has not heard of it");
    assert!(machine.handle_ack(node("b"), epoch, &ack(1, barrier_end), 115));
    assert_eq!(machine.committed(), barrier_end);

    assert!(machine.handle_ack(node("b"), epoch, &ack(9, Lsn::ZERO), 116), "on another disk");
    let more = barrier_end.advance(64);
    machine.handle_flushed(more);
    assert_eq!(machine.committed(), more, "the one voter that counts has it");
}

/// A voter whose disk was gone was taken out of a set where every voter commits. It could not say
/// yes to that any more, so the change was never committed, and no later one either. Nor could it
/// to the END that comes before a grant: only a failover can grant.
#[test]
fn a_change_that_the_old_voters_can_not_commit_is_refused() {
    let voters = voters(&["a", "b"]);
    let (mut machine, epoch) = open_primary(&voters);
    assert!(machine.handle_ack(node("b"), epoch, &ack(9, BARRIER_END), 101), "on another disk");
    let alone = Voters::new(vec![voters.members()[0].clone()], None).expect("one voter");
    let refused = machine.change(Change { voters: alone, lease_ms: 0 }, 110);
    assert_eq!(refused, Err(Failure::NotReady { ready: 1, needed: 2 }));
    let granted = voters.granting(node("b"), Incarnation(9)).expect("it votes");
    let refused = machine.change(Change { voters: granted, lease_ms: 0 }, 111);
    assert_eq!(refused, Err(Failure::NotReady { ready: 1, needed: 2 }));
    assert_eq!(machine.role(), RoleView::Primary { open: true }, "nothing has moved");
}

/// Two nodes had each appended a BARRIER that an older voter set could not commit. Each had a
/// replica that followed it, heard W of the newest set, and so asked nobody: the one of the lower
/// epoch never found out, and the other lacked just its acks.
#[test]
fn a_primary_that_can_not_open_asks_although_it_hears_its_quorum() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = new_primary(&voters);
    let early = Ack { flushed: Lsn::ZERO, applied: Lsn::ZERO, ..ack(1, BARRIER_END) };
    assert!(machine.handle_ack(node("b"), epoch, &early, 20), "it is heard, and holds nothing yet");
    machine.handle_timeout(25);
    assert_eq!(asks(&mut machine), 2);
}

/// Where every voter commits, a primary that starts while one has another disk can never open, and
/// so could grant nothing: the cluster stood still for good.
#[test]
fn where_every_voter_commits_a_failover_grants_the_new_disk() {
    let voters = voters(&["a", "b"]);
    let (mut machine, _) = new_primary(&voters);
    let plain = machine.promote(Failover { force: true, ..Failover::default() }, 60);
    assert!(matches!(plain, Err(Failure::AlreadyPrimary(_))));
    let grant = Some((node("b"), Incarnation(9)));
    machine.promote(Failover { force: true, grant, ..Failover::default() }, 60).expect("it votes");
    machine.handle_positions(node("b"), positions(&voters, Epoch::NONE, None), 61);
    let (_, terms) = barrier_terms(&mut machine, &voters, 62);
    let newest = terms.sets.newest();
    assert!(newest.counts(node("b"), Incarnation(9)));
    assert_eq!(terms.sets.as_slice()[0].w_before(newest), 1, "the other voter alone grants it");
}

/// A primary died while the voters changed, its BARRIER on the old voters alone. Those were voters
/// no more by their own logs, the new ones not yet by theirs: nobody could be promoted.
#[test]
fn a_new_voter_learns_from_the_old_that_it_is_one() {
    let old = voters(&["b", "c", "d"]);
    let mut machine = replica(&old);
    let careful = Failover::default();
    machine.promote(careful, 10).expect("others may know better");
    for name in ["b", "c"] {
        machine.handle_positions(node(name), positions(&old, Epoch::NONE, None), 11);
    }
    machine.handle_timeout(10 + TIMING.ask_ms);
    let stranger = Action::Ended(Err(Failure::NotVoter(node("a"))));
    assert_eq!(actions(&mut machine).last(), Some(&stranger), "nobody is disturbed");
    assert_eq!(machine.fence(), Epoch::NONE);

    let epoch = Epoch { number: 2, incarnation: Incarnation(1) };
    let sets = VoterSets::of(old.clone()).with(voters(&["a", "b"]), epoch).expect("a change");
    machine.promote(careful, 200).expect("others may know better");
    let longer =
        Positions { last: epoch, end: Lsn::new(70_000), sets, ..positions(&old, epoch, None) };
    machine.handle_positions(node("b"), longer, 201);
    machine.handle_positions(node("c"), positions(&old, Epoch::NONE, None), 202);
    machine.handle_timeout(200 + TIMING.ask_ms);
    assert!(machine.fence() > epoch, "it takes an epoch");
}

/// A candidate fetched from a voter whose disk was replaced after it had been fenced. The new disk
/// holds nothing, so it said that the candidate had diverged; and the candidate, one of the two
/// nodes that were left, quarantined itself.
#[test]
fn what_a_voter_says_that_is_fetched_from_quarantines_nobody() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = open_primary(&voters);
    let committed = machine.committed();
    machine.handle_timeout(300);
    for name in ["b", "c"] {
        let newer = epoch.next(Incarnation(1));
        machine.handle_positions(node(name), positions(&voters, newer, None), 310);
    }
    machine.handle_timeout(310 + TIMING.candidate_ms);
    for name in ["b", "c"] {
        machine.handle_positions(node(name), positions(&voters, epoch, None), 820);
    }
    let epoch = machine.fence();
    machine.handle_obeyed(epoch, committed, 830);
    let longer =
        Positions { last: epoch, end: Lsn::new(90_000), ..positions(&voters, epoch, None) };
    machine.handle_fenced(node("b"), epoch, longer, 840);
    assert!(actions(&mut machine).contains(&Action::Fetch(node("b"), epoch)));
    let fetch = Purpose::Fetch(epoch);
    for answer in [
        Welcome::Refuse(Refusal::Diverged, "the logs part at 0".to_owned()),
        Welcome::Truncate { to: Lsn::ZERO, digest: Digest::EMPTY },
    ] {
        let decision = machine.handle_welcome(node("b"), epoch, fetch, answer);
        assert!(matches!(decision, Decision::Refused(Refusal::Diverged, _)), "{decision:?}");
        assert_eq!(machine.role(), RoleView::Candidate, "its driver says that the fetch failed");
    }
}

/// A replica made its primary's epoch durable before it followed or cut its log, and the rules were
/// told only once it did. Cut off from that primary in between and promoted, it took an epoch below
/// the fence on its own disk, and led in it.
#[test]
fn an_epoch_that_is_durable_is_obeyed_whatever_becomes_of_its_primary() {
    let voters = voters(&["a", "b", "c"]);
    let mut machine = replica(&voters);
    let epoch = Epoch { number: 3, incarnation: Incarnation(2) };
    machine.handle_adopted(epoch);
    assert_eq!(machine.fence(), epoch);
    machine.promote(Failover { force: true, ..Failover::default() }, 10).expect("it votes");
    for name in ["b", "c"] {
        machine.handle_positions(node(name), positions(&voters, Epoch::NONE, None), 11);
    }
    assert!(machine.fence() > epoch);
    // It may be told late, when this node is a candidate of a lower epoch.
    let mut machine = replica(&voters);
    machine.promote(Failover { force: true, ..Failover::default() }, 10).expect("it votes");
    for name in ["b", "c"] {
        machine.handle_positions(node(name), positions(&voters, Epoch::NONE, None), 11);
    }
    assert!(machine.role() == RoleView::Candidate && machine.fence() < epoch);
    machine.handle_adopted(epoch);
    assert_eq!(machine.role(), RoleView::Replica { streaming: false });
    assert_eq!(machine.fence(), epoch);
}
