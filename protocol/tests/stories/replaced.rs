//! A disk that was replaced comes back.

use towline_protocol::epoch::{Epoch, EpochStart, History};
use towline_protocol::frame::{Body, Fence, Purpose, Refusal, Welcome};
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{Decision, Machine, RoleView, Stored};
use towline_protocol::record::Digest;
use towline_protocol::terms::{Terms, VoterSets};
use towline_protocol::voters::Voters;

use crate::{empty, node, started, voters};

fn epoch(number: u64, incarnation: u64) -> Epoch {
    Epoch { number, incarnation: Incarnation(incarnation) }
}

/// The replica `a`, not known to be committed beyond the first epoch, whose log names `sets`: the
/// n-th in epoch n, each from n times 100,000.
fn holding(sets: VoterSets, committed: Lsn) -> Machine {
    let mut history = History::default();
    for number in 1..=sets.as_slice().len() as u64 {
        let (first, previous_end) = (number * 100_000, (number - 1) * 100_000 + 90);
        let start = EpochStart {
            epoch: epoch(number, 1),
            first: Lsn::new(first),
            previous: if number == 1 { Epoch::NONE } else { epoch(number - 1, 1) },
            previous_end: if number == 1 { Lsn::ZERO } else { Lsn::new(previous_end) },
            digest: Digest::EMPTY,
            accepted_loss: false,
        };
        history.push(start).expect("one follows on the other");
    }
    let end = history.starts().last().expect("an epoch").first.advance(64);
    let fence = history.last_epoch();
    let terms = Terms { sets, lease_ms: 0 };
    started(Stored { fence, history, end, committed, ..empty(terms, false) })
}

fn two(incarnation_of_b: u64) -> Voters {
    let voters = voters(&["a", "b"]);
    voters.granting(node("b"), Incarnation(incarnation_of_b)).expect("it votes")
}

/// `{a, b}`, the same with `d` (R = 2), and that with another disk for `b`; all in force.
fn changed_then_granted() -> VoterSets {
    let all = voters(&["a", "b", "d"]);
    let granted = all.granting(node("b"), Incarnation(9)).expect("it votes");
    let sets = VoterSets::of(two(1)).with(all, epoch(2, 1)).expect("no disk is replaced");
    sets.with(granted, epoch(3, 1)).expect("one is")
}

/// The answer of `b` on its old disk, which leads in an epoch of its own.
fn told(machine: &mut Machine, answer: Welcome) -> Decision {
    machine.handle_welcome(node("b"), epoch(8, 1), Purpose::Stream, answer)
}

fn cut(to: u64) -> Welcome {
    Welcome::Truncate { to: Lsn::new(to), digest: Digest::EMPTY }
}

/// Where every voter commits a single one fences, so the disk that was replaced could lead by
/// itself, and would have its replacement cut off and committed away by the very node that holds
/// it. It is refused even if a set between the two, with another R, is the last one before.
#[test]
fn it_may_not_cut_off_its_own_replacement() {
    let mut machine = holding(changed_then_granted(), Lsn::new(100_090));
    let decision = told(&mut machine, cut(100_090));
    assert!(matches!(decision, Decision::Refused(Refusal::Incarnation, _)), "{decision:?}");
    let decision = told(&mut machine, cut(300_020));
    assert!(matches!(decision, Decision::Cut { .. }), "what lies behind is as any other");
}

/// Once the replacement is committed there is no set left in which the old disk counts.
#[test]
fn it_may_not_cut_off_a_replacement_that_is_settled() {
    let voters = voters(&["a", "b", "c"]);
    let granted = voters.granting(node("b"), Incarnation(9)).expect("it votes");
    let sets = VoterSets::of(voters).with(granted, epoch(2, 1)).expect("one is replaced");
    let open = holding(sets.clone(), Lsn::new(100_090));
    let settled = holding(sets, Lsn::new(200_064));
    for (mut machine, allowed) in [(open, true), (settled, false)] {
        let decision = told(&mut machine, cut(100_090));
        assert_eq!(matches!(decision, Decision::Cut { .. }), allowed, "{decision:?}");
        assert_eq!(machine.role(), RoleView::Replica { streaming: false }, "nobody is at fault");
    }
}

#[test]
fn it_is_not_obeyed_as_a_candidate_that_does_not_know() {
    let mut machine = holding(changed_then_granted(), Lsn::new(100_090));
    let fence = |newest| Fence { newest, accepts_loss: false };
    let refused = machine.handle_fence(node("b"), epoch(8, 1), fence(epoch(2, 1)), 10);
    let refused = refused.expect("an answer at once").body;
    assert_eq!(refused, Body::FenceRefused { at_work: false });
    let obeyed = machine.handle_fence(node("b"), epoch(8, 9), fence(epoch(2, 1)), 11);
    assert_eq!(obeyed, None, "the new disk is obeyed");
}

/// It leads alone, and says of a node that knows its commit that their logs have parted. That node
/// quarantined itself, again after every restart, and the good side was out of service.
#[test]
fn what_it_says_of_others_is_not_believed() {
    let parted = || Welcome::Refuse(Refusal::Diverged, "you have parted".to_owned());
    let mut machine = holding(changed_then_granted(), Lsn::new(300_064));
    let decision = told(&mut machine, parted());
    assert!(matches!(decision, Decision::Refused(Refusal::Diverged, _)));
    assert_eq!(machine.role(), RoleView::Replica { streaming: false });

    let right = machine.handle_welcome(node("d"), epoch(8, 1), Purpose::Stream, parted());
    assert!(matches!(right, Decision::Refused(Refusal::Diverged, _)));
    assert!(matches!(machine.role(), RoleView::Quarantined), "{:?}", machine.role());
}
