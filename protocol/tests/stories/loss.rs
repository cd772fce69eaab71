//! An operator accepts that writes are lost.

use towline_protocol::epoch::{Epoch, EpochStart, History};
use towline_protocol::frame::{Body, Fence, Hello, PROTOCOL_VERSION, Positions, Purpose};
use towline_protocol::frame::{Refusal, Welcome};
use towline_protocol::id::{ClusterId, Incarnation};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::machine::{Action, Failover, Failure, Machine, RoleView};
use towline_protocol::record::Digest;
use towline_protocol::terms::{Terms, VoterSets};
use towline_protocol::voters::Voters;

use crate::voters;
use crate::{BARRIER_END, TIMING, actions, new_primary, node, open_primary, positions, replica};

const LOSSY: Failover = Failover { force: true, accept_loss: true, grant: None };

/// The candidate `a`, fencing, of an operator who accepts the loss of those who are silent.
fn fencing(voters: &Voters) -> (Machine, Epoch) {
    let mut machine = replica(voters);
    machine.promote(LOSSY, 10).expect("it votes");
    machine.handle_timeout(10 + TIMING.ask_ms);
    let epoch = machine.fence();
    machine.handle_obeyed(epoch, Lsn::ZERO, 100);
    actions(&mut machine);
    (machine, epoch)
}

fn barrier(machine: &mut Machine, epoch: Epoch) -> Option<(Terms, bool)> {
    machine.handle_prepared(epoch, Ok(()), 400);
    actions(machine).into_iter().find_map(|action| match action {
        Action::AppendBarrier { terms, accepted_loss, .. } => Some((terms, accepted_loss)),
        _ => None,
    })
}

#[test]
fn those_who_are_left_vote_alone_and_the_log_says_so() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = fencing(&voters);
    machine.handle_timeout(200);
    assert_eq!(barrier(&mut machine, epoch), None, "the others have half of its time to answer");
    machine.handle_timeout(100 + TIMING.candidate_ms / 2);
    let (terms, accepted_loss) = barrier(&mut machine, epoch).expect("it goes on alone");
    assert!(accepted_loss);
    let [alone] = terms.sets.as_slice() else { panic!("the others can not be asked: {terms:?}") };
    assert_eq!((alone.n(), alone.w(), alone.get(node("a")).is_some()), (1, 1, true));
}

/// A node that came back on another disk answered, and its *old* life was counted among those who
/// are left: with two voters of whom one did not exist nothing was ever committed.
#[test]
fn another_life_of_a_voter_is_none_that_is_left() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = fencing(&voters);
    let another = Positions { incarnation: Incarnation(9), ..positions(&voters, epoch, None) };
    machine.handle_fenced(node("c"), epoch, another, 150);
    machine.handle_timeout(100 + TIMING.candidate_ms / 2);
    let (terms, _) = barrier(&mut machine, epoch).expect("it goes on alone");
    assert_eq!(terms.sets.newest().n(), 1, "{terms:?}");
}

#[test]
fn without_need_nothing_is_lost() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = fencing(&voters);
    machine.handle_fenced(node("b"), epoch, positions(&voters, epoch, None), 150);
    let (terms, accepted_loss) = barrier(&mut machine, epoch).expect("R obey, W can commit");
    assert!(!accepted_loss);
    assert_eq!(terms.sets, VoterSets::of(voters));
}

/// A voter that is quarantined refuses every fence. That ended the candidacy, as if a primary were
/// at work: where a loss has to be accepted, it could not be.
#[test]
fn only_a_side_at_work_forbids_it() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = fencing(&voters);
    machine.handle_fence_refused(node("b"), Epoch::NONE, false, 120);
    assert_eq!(machine.role(), RoleView::Candidate);
    machine.handle_fence_refused(node("c"), Epoch::NONE, true, 130);
    let ended = Action::Ended(Err(Failure::NotStopped(node("c"))));
    assert_eq!(actions(&mut machine), [ended]);
    assert_eq!(machine.fence(), epoch, "what is fenced stays fenced");
}

#[test]
fn a_primary_with_its_quorum_says_that_it_is_at_work() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = open_primary(&voters);
    let newer = epoch.next(Incarnation(2));
    let fence = |accepts_loss| Fence { newest: Epoch::NONE, accepts_loss };
    let answer = machine.handle_fence(node("c"), newer, fence(true), 110).expect("a refusal");
    assert_eq!(answer.body, Body::FenceRefused { at_work: true });
    assert_eq!(machine.role(), RoleView::Primary { open: true });
    assert_eq!(machine.handle_fence(node("c"), newer, fence(false), 111), None, "it obeys");
}

#[test]
fn it_is_not_asked_together_with_another_disk() {
    let voters = voters(&["a", "b", "c"]);
    let mut machine = replica(&voters);
    let grant = |name| Some((node(name), Incarnation(9)));
    let both = machine.promote(Failover { grant: grant("b"), ..LOSSY }, 10);
    assert_eq!(both, Err(Failure::LossAndGrant));
    let stranger = machine.promote(Failover { grant: grant("x"), ..Failover::default() }, 10);
    assert_eq!(stranger, Err(Failure::NotVoter(node("x"))));
}

/// What was given up can not come back: who has it committed is told so, and by whose word.
#[test]
fn who_committed_what_was_given_up_is_refused_by_name() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = new_primary(&voters);
    let before = Epoch { number: epoch.number - 1, ..epoch };
    let start = |epoch, first, previous, previous_end, accepted_loss| EpochStart {
        epoch,
        first,
        previous,
        previous_end,
        digest: Digest::EMPTY,
        accepted_loss,
    };
    let (fork, theirs) = (Lsn::new(4_200), Lsn::new(4_300));
    let first = start(before, Lsn::new(4_096), Epoch::NONE, Lsn::ZERO, false);
    let history = History::new([first, start(epoch, Lsn::new(69_632), before, fork, true)]);
    machine.handle_history(history.expect("one follows on"), Terms::founding(voters));
    machine.handle_appended(Lsn::new(69_700));
    let hello = |committed| Hello {
        version: PROTOCOL_VERSION,
        cluster: ClusterId(1),
        node: node("b"),
        incarnation: Incarnation(1),
        segment_size: SegmentSize::MIN,
        purpose: Purpose::Stream,
        fence: before,
        history: History::new([first]).expect("an epoch"),
        end: theirs,
        committed,
    };
    let refused = machine.handle_hello(&hello(theirs), 10);
    assert!(matches!(refused, Welcome::Refuse(Refusal::LossAccepted, _)), "{refused:?}");
    let cut = machine.handle_hello(&hello(BARRIER_END.min(fork)), 11);
    assert!(matches!(cut, Welcome::Truncate { to, .. } if to == fork), "{cut:?}");
}
