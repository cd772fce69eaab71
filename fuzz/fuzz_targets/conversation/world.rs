//! Three nodes of real rules over logs that are lists, and everything they say to each other as
//! bytes, so that the fuzzer can bend it.

use bytes::Bytes;
use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::{Epoch, History};
use towline_protocol::frame::{Body, Frame, Purpose};
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::machine::{
    Action, Decision, Failover, Identity, Machine, RoleView, Stored, Timing,
};
use towline_protocol::record::Digest;
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};

pub const NODES: usize = 3;
const NAMES: [&str; NODES] = ["a", "b", "c"];
/// No event may ask for more than this.
const ACTIONS_MAX: usize = 16;
/// What is said is kept up to here, to be said again.
const SAID_MAX: usize = 256;
const RECORD_LEN: u64 = 64;
const SIZE: SegmentSize = SegmentSize::MIN;

/// A log: where each record ends, and its epochs.
#[derive(Clone, Default)]
struct Log {
    ends: Vec<Lsn>,
    history: History,
}

impl Log {
    fn end(&self) -> Lsn {
        self.ends.last().copied().unwrap_or_default()
    }

    /// The last boundary that is not above `lsn`.
    fn boundary(&self, lsn: Lsn) -> Lsn {
        let below = self.ends.partition_point(|end| *end <= lsn);
        below.checked_sub(1).map_or(Lsn::ZERO, |at| self.ends[at])
    }

    fn holds(&self, lsn: Lsn) -> bool {
        self.boundary(lsn) == lsn
    }

    fn cut(&mut self, to: Lsn) {
        self.ends.retain(|end| *end <= to);
        self.history.cut(to);
    }

    /// Takes what `other` has behind this log, if this log is how that one begins.
    fn extend_from(&mut self, other: &Self) -> bool {
        let begins = other.ends.starts_with(&self.ends)
            && other.history.starts().starts_with(self.history.starts());
        if begins {
            self.clone_from(other);
        }
        begins
    }
}

pub struct Node {
    pub machine: Machine,
    log: Log,
    flushed: Lsn,
    /// What its last dial was for.
    purpose: Purpose,
    fence: Epoch,
    committed: Lsn,
}

/// What came of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Taken,
    /// It is no frame, or one that can not be.
    Malformed,
    /// It has no place here, or came too late.
    Refused,
}

/// A frame on its way.
#[derive(Clone)]
pub struct Said {
    pub from: usize,
    pub to: usize,
    pub bytes: Bytes,
}

pub struct World {
    pub nodes: Vec<Node>,
    pub said: Vec<Said>,
    pub now_ms: u64,
}

pub fn name(at: usize) -> NodeId {
    NAMES[at].parse().expect("a name")
}

fn index(node: NodeId) -> Option<usize> {
    (0..NODES).find(|at| name(*at) == node)
}

fn voters() -> Voters {
    let voter =
        |at| Voter { node: name(at), incarnation: Incarnation(1 + at as u64), zone: String::new() };
    Voters::new((0..NODES).map(voter).collect(), None).expect("three voters")
}

impl Node {
    fn new(at: usize) -> Self {
        let identity = Identity {
            cluster: ClusterId(7),
            log: LogId(8),
            node: name(at),
            incarnation: Incarnation(1 + at as u64),
            segment_size: SIZE,
        };
        let stored = Stored {
            fence: Epoch::NONE,
            history: History::default(),
            terms: Terms::founding(voters()),
            oldest: Lsn::ZERO,
            end: Lsn::ZERO,
            committed: Lsn::ZERO,
            applied: Lsn::ZERO,
            claims: at == 0,
        };
        let machine = Machine::new(identity, Timing::DEFAULT, stored, 0);
        let (log, purpose) = (Log::default(), Purpose::Ask);
        let (flushed, fence, committed) = (Lsn::ZERO, Epoch::NONE, Lsn::ZERO);
        Self { machine, log, flushed, purpose, fence, committed }
    }

    fn flush(&mut self) {
        self.flushed = self.log.end();
        self.machine.handle_flushed(self.flushed);
    }

    fn learn_history(&mut self) {
        self.machine.handle_appended(self.log.end());
        if self.machine.last_epoch() != self.log.history.last_epoch() {
            self.machine.handle_history(self.log.history.clone(), Terms::founding(voters()));
        }
    }
}

impl World {
    pub fn new() -> Self {
        let nodes = (0..NODES).map(Node::new).collect();
        let mut world = Self { nodes, said: Vec::new(), now_ms: 0 };
        (0..NODES).for_each(|at| world.settle(at));
        world
    }

    /// `from` says something to `to`; the oldest is forgotten.
    fn say(&mut self, from: usize, to: usize, frame: &Frame) {
        if self.said.len() >= SAID_MAX {
            self.said.remove(0);
        }
        self.said.push(Said { from, to, bytes: frame.encode() });
    }

    pub fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        for at in 0..NODES {
            self.nodes[at].machine.handle_timeout(self.now_ms);
            self.settle(at);
        }
    }

    /// The first words of `from` to `to`.
    pub fn dial(&mut self, from: usize, to: usize, purpose: Purpose) {
        let node = &mut self.nodes[from];
        if purpose != Purpose::Ask {
            node.flush();
        }
        node.purpose = purpose;
        let hello = node.machine.hello(purpose);
        let epoch = hello.fence;
        let body = Body::Hello(Box::new(hello));
        self.say(from, to, &Frame { log: LogId(8), epoch, number: 0, body });
        self.settle(from);
    }

    /// What a node says unasked: a primary its news, a replica its ack.
    pub fn speak(&mut self, from: usize, to: usize) {
        let machine = &self.nodes[from].machine;
        let news =
            machine.heartbeat().map(|(epoch, number, news)| (epoch, number, Body::Heartbeat(news)));
        let ack = machine.ack().map(|(epoch, ack)| (epoch, ack.seen, Body::Ack(ack)));
        if let Some((epoch, number, body)) = news.or(ack) {
            self.say(from, to, &Frame { log: LogId(8), epoch, number, body });
        }
    }

    /// The open primary appends, or a replica takes what its primary has.
    pub fn grow(&mut self, at: usize, primary: usize) {
        if self.nodes[at].machine.role() == (RoleView::Primary { open: true }) {
            let log = &mut self.nodes[at].log;
            log.ends.push(log.end().advance(RECORD_LEN));
            self.nodes[at].learn_history();
        } else if at != primary
            && self.nodes[at].machine.accepts(self.nodes[primary].machine.fence())
        {
            let theirs = self.nodes[primary].log.clone();
            self.nodes[at].log.extend_from(&theirs);
            self.nodes[at].learn_history();
        }
        self.settle(at);
    }

    pub fn flush(&mut self, at: usize) {
        self.nodes[at].flush();
        self.settle(at);
    }

    /// The applier stops at the boundary below what may be applied.
    pub fn apply(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let applied = node.log.boundary(node.machine.applicable());
        node.machine.handle_applied(applied);
        self.settle(at);
    }

    pub fn promote(&mut self, at: usize, force: bool) {
        let how = Failover { force, ..Failover::default() };
        // That it can not begin is an answer, too.
        let _ = self.nodes[at].machine.promote(how, self.now_ms);
        self.settle(at);
    }

    pub fn read(&mut self, at: usize) {
        let _ = self.nodes[at].machine.request_round();
        self.settle(at);
    }

    pub fn break_stream(&mut self, at: usize, primary: usize) {
        let epoch = self.nodes[primary].machine.fence();
        self.nodes[at].machine.end_session(name(primary), epoch);
        self.settle(at);
    }

    /// `to` receives bytes over a connection whose certificate says `from`.
    pub fn receive(&mut self, from: usize, to: usize, bytes: &[u8]) -> Outcome {
        let node = &self.nodes[to];
        let Ok(frame) = Frame::decode_near(bytes, node.machine.fence()) else {
            return Outcome::Malformed;
        };
        if frame.log != node.machine.identity().log {
            return Outcome::Refused;
        }
        let outcome = self.judge(from, to, frame);
        self.settle(to);
        outcome
    }

    fn judge(&mut self, from: usize, to: usize, frame: Frame) -> Outcome {
        let (peer, now_ms, epoch) = (name(from), self.now_ms, frame.epoch);
        let taken = |took| if took { Outcome::Taken } else { Outcome::Refused };
        let Node { machine, purpose, .. } = &mut self.nodes[to];
        match frame.body {
            Body::Hello(hello) if hello.node != peer => return Outcome::Refused,
            Body::Hello(hello) => {
                let answer = machine.handle_hello(&hello, now_ms);
                let body = Body::Welcome(answer);
                let welcome = Frame { log: LogId(8), epoch: machine.fence(), number: 0, body };
                self.say(to, from, &welcome);
            }
            Body::Welcome(answer) => {
                let decision = machine.handle_welcome(peer, epoch, *purpose, answer);
                return self.decide(to, from, decision);
            }
            Body::Ack(ack) => return taken(machine.handle_ack(peer, epoch, &ack, now_ms)),
            Body::Heartbeat(news) => {
                return taken(machine.handle_heartbeat(&frame, &news, now_ms));
            }
            Body::Ask => {
                let answer = machine.handle_ask(now_ms);
                self.say(to, from, &answer);
            }
            Body::Fence(fence) => {
                if let Some(answer) = machine.handle_fence(peer, epoch, fence, now_ms) {
                    self.say(to, from, &answer);
                }
            }
            Body::Positions(at) => machine.handle_positions(peer, *at, now_ms),
            Body::Fenced(at) => machine.handle_fenced(peer, epoch, *at, now_ms),
            Body::FenceRefused { at_work } => {
                machine.handle_fence_refused(peer, epoch, at_work, now_ms);
            }
            Body::HandOver => return taken(machine.handle_hand_over(peer, epoch, now_ms)),
        }
        Outcome::Taken
    }

    fn decide(&mut self, at: usize, peer: usize, decision: Decision) -> Outcome {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[at];
        if let Decision::Stream { epoch, .. } | Decision::Cut { epoch, .. } = decision {
            node.machine.handle_adopted(epoch);
        }
        match decision {
            Decision::Stream { epoch, from, until: None, .. } if node.log.holds(from) => {
                match node.machine.begin_session(name(peer), epoch, now_ms) {
                    true => Outcome::Taken,
                    false => Outcome::Refused,
                }
            }
            Decision::Cut { to, .. } if node.log.holds(to) => {
                node.log.cut(to);
                node.flushed = node.log.end();
                let history = node.log.history.clone();
                node.machine.handle_cut(node.flushed, history, Terms::founding(voters()));
                Outcome::Taken
            }
            // A log has no digest inside a record.
            _ => Outcome::Refused,
        }
    }

    /// Does what the rules want done, and holds them to what never goes back.
    fn settle(&mut self, at: usize) {
        for _ in 0..=ACTIONS_MAX {
            let Some(action) = self.nodes[at].machine.poll_action() else {
                return self.check(at);
            };
            self.act(at, action);
        }
        panic!("more than {ACTIONS_MAX} actions for one event");
    }

    fn act(&mut self, at: usize, action: Action) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[at];
        match action {
            Action::Obey(epoch) => {
                node.flush();
                node.machine.handle_obeyed(epoch, node.log.end(), now_ms);
            }
            Action::Send(to, frame) => {
                if let Some(to) = index(to) {
                    self.say(at, to, &frame);
                }
            }
            Action::Fetch(from, epoch) => self.fetch(at, from, epoch),
            Action::Prepare { new, .. } => node.machine.handle_prepared(new, Ok(()), now_ms),
            Action::AppendBarrier { epoch, terms, accepted_loss } => {
                let previous_end = node.log.end();
                let first = SIZE.barrier_after(previous_end);
                let barrier = Barrier {
                    epoch,
                    previous: node.log.history.last_epoch(),
                    previous_end,
                    digest: Digest::EMPTY,
                    terms,
                    accepted_loss,
                };
                // An epoch the log can not take is the log's refusal.
                if node.log.history.push(barrier.start(first)).is_ok() {
                    node.log.ends.push(first.advance(RECORD_LEN));
                    node.learn_history();
                    node.machine.handle_barrier(epoch, node.log.end(), now_ms);
                }
            }
            Action::Quiesce(epoch) => node.machine.handle_quiesced(epoch, now_ms),
            Action::AppendEnd(epoch) => {
                node.log.ends.push(node.log.end().advance(RECORD_LEN));
                node.machine.handle_end(epoch, node.log.end(), now_ms);
            }
            _ => {}
        }
    }

    fn fetch(&mut self, at: usize, from: NodeId, epoch: Epoch) {
        let theirs = index(from).map(|from| &self.nodes[from].log).cloned().unwrap_or_default();
        let node = &mut self.nodes[at];
        if node.log.extend_from(&theirs) {
            node.learn_history();
            node.flush();
            node.machine.handle_fetched(node.flushed, self.now_ms);
        } else {
            let reason = "it is another log".to_owned();
            node.machine.handle_fetch_failed(epoch, reason, self.now_ms);
        }
    }

    fn check(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let (fence, committed) = (node.machine.fence(), node.machine.committed());
        assert!(fence >= node.fence, "the fence went back from {} to {fence}", node.fence);
        assert!(committed >= node.committed, "committed went back to {committed}");
        assert!(committed <= node.log.end(), "{committed} is committed, the log ends below");
        assert!(node.machine.applicable() <= node.flushed, "applicable before it is flushed");
        (node.fence, node.committed) = (fence, committed);
    }
}
