//! The rules, story by story.

mod leases;
mod loss;
mod replaced;
mod schedules;

use towline_protocol::epoch::{Epoch, History};
use towline_protocol::frame::{Ack, Body, Fence, KnownPrimary, Positions};
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::machine::{Action, Identity, Machine, RoleView, Stored, Timing};
use towline_protocol::terms::{Terms, VoterSets};
use towline_protocol::voters::{Voter, Voters};

pub(crate) const TIMING: Timing = Timing { heartbeat_ms: 20, ask_ms: 80, candidate_ms: 500 };
pub(crate) const FENCE: Fence = Fence { newest: Epoch::NONE, accepts_loss: false };
pub(crate) const BARRIER_END: Lsn = Lsn::new(4_144);

pub(crate) fn node(name: &str) -> NodeId {
    name.parse().expect("a node name")
}

pub(crate) fn voters(names: &[&str]) -> Voters {
    let voter =
        |name: &&str| Voter { node: node(name), incarnation: Incarnation(1), zone: String::new() };
    Voters::new(names.iter().map(voter).collect(), None).expect("a voter set")
}

pub(crate) fn positions(
    voters: &Voters,
    fence: Epoch,
    known_primary: Option<KnownPrimary>,
) -> Positions {
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

pub(crate) fn actions(machine: &mut Machine) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

/// What an empty log holds.
pub(crate) fn empty(terms: Terms, claims: bool) -> Stored {
    Stored {
        fence: Epoch::NONE,
        history: History::default(),
        terms,
        oldest: Lsn::ZERO,
        end: Lsn::ZERO,
        committed: Lsn::ZERO,
        applied: Lsn::ZERO,
        claims,
    }
}

/// The node `a` on a log that holds that.
pub(crate) fn started(stored: Stored) -> Machine {
    let identity = Identity {
        cluster: ClusterId(1),
        log: LogId(7),
        node: node("a"),
        incarnation: Incarnation(1),
        segment_size: SegmentSize::MIN,
    };
    Machine::new(identity, TIMING, stored, 0)
}

/// The replica `a`, which follows nobody yet.
pub(crate) fn replica(voters: &Voters) -> Machine {
    started(empty(Terms::founding(voters.clone()), false))
}

/// The candidate `a`, about to obey its own epoch, in a log whose reads go by leases.
pub(crate) fn candidate_of(voters: &Voters, lease_ms: u32) -> Machine {
    let terms = Terms { sets: VoterSets::of(voters.clone()), lease_ms };
    let mut machine = started(empty(terms, true));
    for name in ["b", "c"] {
        machine.handle_positions(node(name), positions(voters, Epoch::NONE, None), 1);
    }
    machine
}

/// The open primary `a` that is the only voter.
pub(crate) fn alone() -> Machine {
    let mut machine = started(empty(Terms::founding(voters(&["a"])), true));
    machine.handle_timeout(1);
    let epoch = machine.fence();
    machine.handle_obeyed(epoch, Lsn::ZERO, 2);
    machine.handle_prepared(epoch, Ok(()), 4);
    machine.handle_barrier(epoch, BARRIER_END, 5);
    machine.handle_flushed(BARRIER_END);
    machine.handle_applied(BARRIER_END);
    assert_eq!(machine.role(), RoleView::Primary { open: true });
    machine
}

/// The primary `a` of `a`, `b` and `c` with its BARRIER flushed here alone, and its epoch.
pub(crate) fn new_primary(voters: &Voters) -> (Machine, Epoch) {
    let mut machine = candidate_of(voters, 0);
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
pub(crate) fn open_primary(voters: &Voters) -> (Machine, Epoch) {
    let (mut machine, epoch) = new_primary(voters);
    let (received, flushed, applied) = (BARRIER_END, BARRIER_END, BARRIER_END);
    let ack = Ack { incarnation: Incarnation(1), received, flushed, applied, seen: 1 };
    assert!(machine.handle_ack(node("b"), epoch, &ack, 100));
    machine.handle_applied(BARRIER_END);
    assert_eq!(machine.role(), RoleView::Primary { open: true });
    actions(&mut machine);
    (machine, epoch)
}

pub(crate) fn asks(machine: &mut Machine) -> usize {
    let is_ask =
        |action: &Action| matches!(action, Action::Send(_, frame) if frame.body == Body::Ask);
    actions(machine).iter().filter(|action| is_ask(action)).count()
}

/// The terms the machine wants in the BARRIER of its epoch, having come so far by `b`'s FENCED.
pub(crate) fn barrier_terms(machine: &mut Machine, voters: &Voters, now_ms: u64) -> (Epoch, Terms) {
    let epoch = machine.fence();
    machine.handle_obeyed(epoch, BARRIER_END, now_ms);
    machine.handle_fenced(node("b"), epoch, positions(voters, epoch, None), now_ms);
    machine.handle_prepared(epoch, Ok(()), now_ms);
    let appended = actions(machine).into_iter().find_map(|action| match action {
        Action::AppendBarrier { epoch, terms, .. } => Some((epoch, terms)),
        _ => None,
    });
    appended.expect("it comes as far as its BARRIER")
}

pub(crate) fn ack(incarnation: u64, end: Lsn) -> Ack {
    let (received, flushed, applied) = (end, end, BARRIER_END.min(end));
    Ack { incarnation: Incarnation(incarnation), received, flushed, applied, seen: 1 }
}
