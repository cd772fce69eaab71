//! Bugs that the schedules found in the rules, each as the shortest story that shows it.

use towline_protocol::epoch::{Epoch, History};
use towline_protocol::frame::{Ack, Body, Fence, KnownPrimary, Positions};
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::machine::{Action, Failure, Identity, Machine, RoleView, Stored, Timing};
use towline_protocol::terms::{Terms, VoterSets};
use towline_protocol::voters::{Voter, Voters};

const TIMING: Timing = Timing { heartbeat_ms: 20, ask_ms: 80, candidate_ms: 500 };
const FENCE: Fence = Fence { newest: Epoch::NONE, accepts_loss: false };
const BARRIER_END: Lsn = Lsn::new(4_144);

fn node(name: &str) -> NodeId {
    name.parse().expect("a node name")
}

fn voters(names: &[&str]) -> Voters {
    let voter =
        |name: &&str| Voter { node: node(name), incarnation: Incarnation(1), zone: String::new() };
    Voters::new(names.iter().map(voter).collect(), None).expect("a voter set")
}

fn positions(voters: &Voters, fence: Epoch, known_primary: Option<KnownPrimary>) -> Positions {
    Positions {
        incarnation: Incarnation(1),
        fence,
        last: Epoch::NONE,
        end: Lsn::ZERO,
        committed: Lsn::ZERO,
        sets: VoterSets::of(voters.clone()),
        known_primary,
    }
}

fn actions(machine: &mut Machine) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

/// The primary `a` of `a`, `b` and `c` with its BARRIER flushed here alone, and its epoch.
fn new_primary(voters: &Voters) -> (Machine, Epoch) {
    let identity = Identity {
        cluster: ClusterId(1),
        log: LogId(7),
        node: node("a"),
        incarnation: Incarnation(1),
        segment_size: SegmentSize::MIN,
    };
    let stored = Stored {
        fence: Epoch::NONE,
        history: History::default(),
        terms: Terms::founding(voters.clone()),
        oldest: Lsn::ZERO,
        end: Lsn::ZERO,
        committed: Lsn::ZERO,
        applied: Lsn::ZERO,
        claims: true,
    };
    let mut machine = Machine::new(identity, TIMING, stored, 0);
    for name in ["b", "c"] {
        machine.handle_positions(node(name), positions(voters, Epoch::NONE, None), 1);
    }
    let epoch = machine.fence();
    machine.handle_obeyed(epoch, Lsn::ZERO, 2);
    machine.handle_fenced(node("b"), epoch, positions(voters, epoch, None), 3);
    machine.handle_prepared(epoch, Ok(()), 4);
    machine.handle_barrier(epoch, BARRIER_END, 5);
    machine.handle_flushed(BARRIER_END);
    assert_eq!(machine.role(), RoleView::Primary { open: false });
    actions(&mut machine);
    (machine, epoch)
}

/// The same, open at 100 ms.
fn open_primary(voters: &Voters) -> (Machine, Epoch) {
    let (mut machine, epoch) = new_primary(voters);
    let (received, flushed, applied) = (BARRIER_END, BARRIER_END, BARRIER_END);
    let ack = Ack { incarnation: Incarnation(1), received, flushed, applied, seen: 1 };
    assert!(machine.handle_ack(node("b"), epoch, &ack, 100));
    machine.handle_applied(BARRIER_END);
    assert_eq!(machine.role(), RoleView::Primary { open: true });
    actions(&mut machine);
    (machine, epoch)
}

fn asks(machine: &mut Machine) -> usize {
    let is_ask =
        |action: &Action| matches!(action, Action::Send(_, frame) if frame.body == Body::Ask);
    actions(machine).iter().filter(|action| is_ask(action)).count()
}

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
