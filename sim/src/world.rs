//! The event loop: one virtual clock, one queue, one source of randomness.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use towline_protocol::frame::{Body, Frame};
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::Action;
use towline_protocol::voters::{Voter, Voters};
use towline_wal::{Role, WalError};

use crate::check::Checks;
use crate::disk::Store;
use crate::net::{LinkId, Net, Packet};
use crate::node::{Clock, Node, Running, TIMING, index, name};
use crate::rng::{Rng, mix};
use crate::{Plant, Ran};

/// How long faults go on, and how soon after them everything must be well, in virtual ms.
const FAULTS_MS: u64 = 1_500;
const WELL_WITHIN_MS: u64 = 15_000;
/// How many of a hundred writes are large, for the most part.
const FEW: u64 = 3;

/// What happens next. What belongs to one life of a node carries its number.
#[derive(Debug)]
pub(crate) enum Event {
    Single(usize, Bytes),
    Packet(LinkId, usize, Packet),
    Step(usize, u64),
    Flush(usize, u64),
    Tick(usize, u64),
    Dial(usize, u64),
    Decide(usize, u64, LinkId),
    Fetched(usize, u64, LinkId),
    Apply(usize, u64),
    Request(usize),
    Restart(usize),
    Room(usize),
    Mend(usize, usize),
    Wake(usize),
    Client,
    Fault,
    Operator,
    /// A primary is cut off and replaced.
    Unheard,
}

impl Event {
    /// The node it happens to, and in which of its lives if it must be that one.
    const fn node(&self) -> Option<(usize, Option<u64>)> {
        match *self {
            Self::Single(node, _) | Self::Packet(_, node, _) | Self::Request(node) => {
                Some((node, None))
            }
            Self::Step(node, life)
            | Self::Flush(node, life)
            | Self::Tick(node, life)
            | Self::Dial(node, life)
            | Self::Decide(node, life, _)
            | Self::Fetched(node, life, _)
            | Self::Apply(node, life) => Some((node, Some(life))),
            Self::Restart(_)
            | Self::Room(_)
            | Self::Mend(..)
            | Self::Wake(_)
            | Self::Client
            | Self::Fault
            | Self::Operator
            | Self::Unheard => None,
        }
    }
}

/// An event and when it happens; the order tells apart those of one moment.
#[derive(Debug)]
struct Due {
    at_ms: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.order).cmp(&(other.at_ms, other.order))
    }
}

pub(crate) struct World {
    pub(crate) now_ms: u64,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
    pub(crate) rng: Rng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Net,
    pub(crate) checks: Checks,
    pub(crate) plant: Option<Plant>,
    /// The voters of the founding.
    pub(crate) voters: Voters,
    /// How many voters' disks may still be destroyed.
    pub(crate) spare: u64,
    /// Whether the operator changes who votes; no disk is destroyed then.
    pub(crate) changes: bool,
    /// Whether reads may go by leases, and the length the operator wants.
    pub(crate) leases: bool,
    pub(crate) lease_ms: u32,
    /// How many of a hundred writes are large.
    pub(crate) large: u64,
    /// How often the operator looked since a primary was open.
    pub(crate) looked: u64,
    /// No more faults.
    pub(crate) quiet: bool,
    /// Kept for the next payload.
    pub(crate) payload: Vec<u8>,
    /// How candidacies and hand-overs ended, by node.
    pub(crate) told: Vec<(usize, Action)>,
    trace: u64,
    tells: bool,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Plant>, tells: bool) -> Self {
        let mut rng = Rng::new(seed);
        let n = [3, 3, 3, 3, 3, 5, 5, 2, 1, 3][rng.below(10) as usize];
        // One in ten is the asynchronous set-up: one voter, and replicas that do not vote.
        let voting = if rng.chance(10) { 1 } else { n };
        let voter = |index| Voter {
            node: name(index),
            incarnation: Incarnation(index as u64 + 1),
            zone: String::new(),
        };
        let w = rng.chance(15).then(|| rng.range(1, voting as u64) as u8);
        let voters = Voters::new((0..voting).map(voter).collect(), w).expect("1 to 5 voters");
        let mut world = Self::founded(seed, rng, n, voters);
        world.changes = world.rng.chance(20);
        world.leases = voting > 2 && world.rng.chance(40);
        world.large = [FEW, FEW, FEW, 10, 70][world.rng.below(5) as usize];
        (world.plant, world.tells) = (plant, tells);
        world.at(1, Event::Client);
        world.at(250, Event::Fault);
        world
    }

    /// A world of `n` nodes on new disks, about to start, to which nothing happens.
    pub(crate) fn founded(seed: u64, mut rng: Rng, n: usize, voters: Voters) -> Self {
        let nodes: Vec<Node> = (0..n).map(|at| founded(at, n, &voters, &mut rng)).collect();
        let net = Net::new(n, &mut rng);
        let lives: Vec<Incarnation> = (0..n as u64).map(|at| Incarnation(at + 1)).collect();
        let mut world = Self {
            now_ms: 0,
            queue: BinaryHeap::with_capacity(256),
            order: 0,
            spare: spare(&voters),
            changes: false,
            leases: false,
            large: FEW,
            lease_ms: 0,
            checks: Checks::new(voters.clone(), &lives),
            rng,
            nodes,
            net,
            plant: None,
            voters,
            looked: 0,
            quiet: false,
            payload: Vec::new(),
            told: Vec::new(),
            trace: seed,
            tells: false,
        };
        (0..n).for_each(|node| world.at(0, Event::Restart(node)));
        world
    }

    /// Runs to the end. Panics on a violation.
    pub(crate) fn run(mut self) -> Ran {
        self.run_until(FAULTS_MS, |_| false);
        self.calm_down();
        let since = self.checks.last_acked();
        let begun_ms = self.now_ms;
        let well = self.run_until(begun_ms + WELL_WITHIN_MS, |world| world.is_well(since));
        assert!(well, "not well {WELL_WITHIN_MS} ms after the last fault: {}", self.describe());
        self.checks.finish(&self.nodes);
        Ran { trace: self.trace, virtual_ms: self.now_ms, events: self.order }
    }

    pub(crate) fn run_until(&mut self, end_ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        while self.queue.peek().is_some_and(|next| next.0.at_ms < end_ms) {
            let Some(Reverse(Due { at_ms, event, .. })) = self.queue.pop() else { break };
            self.now_ms = at_ms;
            self.happen(event);
            if self.quiet && done(self) {
                return true;
            }
        }
        done(self)
    }

    fn happen(&mut self, event: Event) {
        let Some((node, life)) = event.node() else { return self.happen_outside(event) };
        if self.nodes[node].paused_until_ms.is_some() {
            let lost = matches!(event, Event::Packet(link, ..) if !self.net.is_open(link));
            if !lost {
                self.nodes[node].late.push(event);
            }
            return;
        }
        let is_up = self.nodes[node].up.is_some();
        if !is_up || life.is_some_and(|life| life != self.nodes[node].life) {
            if let Event::Packet(link, ..) = event {
                self.net.close(link);
            }
            return;
        }
        if let Err(error) = self.happen_to(node, event) {
            self.disk_failed(node, &error);
        }
        self.settle(node);
    }

    fn happen_to(&mut self, node: usize, event: Event) -> Result<(), WalError> {
        match event {
            Event::Single(_, bytes) => {
                self.take_single(node, &bytes);
                Ok(())
            }
            Event::Packet(link, _, packet) => self.take_packet(link, node, packet),
            Event::Step(..) => self.step(node),
            Event::Flush(..) => self.flush(node),
            Event::Tick(..) => self.tick(node),
            Event::Dial(..) => self.dial(node),
            Event::Decide(.., link) => self.decide(node, link),
            Event::Fetched(.., link) => self.fetched(node, link),
            Event::Apply(..) => self.apply(node),
            Event::Request(_) => self.request(node),
            _ => Ok(()),
        }
    }

    fn happen_outside(&mut self, event: Event) {
        match event {
            Event::Client => self.client(),
            Event::Fault => self.fault(),
            Event::Operator => self.look_after(),
            Event::Unheard if !self.quiet => self.replace_unheard(),
            Event::Restart(node) if self.nodes[node].up.is_none() => self.restart(node),
            Event::Room(node) => self.make_room(node),
            Event::Mend(from, to) => self.net.mend(from, to),
            Event::Wake(node) => self.wake(node),
            _ => {}
        }
    }

    fn wake(&mut self, node: usize) {
        // An earlier end of a pause that was made longer is none.
        if self.nodes[node].paused_until_ms.is_some_and(|until_ms| until_ms <= self.now_ms) {
            self.nodes[node].paused_until_ms = None;
            self.nodes[node].wakes = true;
            for event in std::mem::take(&mut self.nodes[node].late) {
                self.happen(event);
            }
            self.nodes[node].wakes = false;
        }
    }

    /// After every event: do what the machine wants, answer clients, and check.
    fn settle(&mut self, node: usize) {
        self.pump(node);
        self.checks.check(node, &self.nodes);
        self.answer(node);
        let Node { life, up, .. } = &self.nodes[node];
        let ends = up.as_ref().map_or([Lsn::ZERO; 3], |up| {
            [up.wal.appended(), up.wal.flushed(), up.machine.committed()]
        });
        let place = self.now_ms ^ (node as u64) << 32 ^ life << 40;
        let ends = ends[0].get() ^ ends[1].get() << 20 ^ ends[2].get() << 40;
        self.trace = mix(self.trace ^ place).wrapping_add(ends);
    }

    /// Whether a primary has committed a write since `since`, and everybody has all of the log.
    pub(crate) fn is_well(&self, since: Lsn) -> bool {
        let end = self.checks.end();
        let all = |(at, node): (usize, &Node)| {
            self.checks.counts(at)
                && node
                    .up
                    .as_ref()
                    .is_some_and(|up| up.machine.committed() == end && up.engine.applied == end)
        };
        self.checks.last_acked() > since
            && self.nodes.iter().enumerate().all(all)
            && self.nodes.iter().any(|node| node.open_epoch().is_some())
    }

    pub(crate) fn at(&mut self, after_ms: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Due { at_ms: self.now_ms + after_ms, order: self.order, event }));
    }

    pub(crate) fn soon(&mut self, most_ms: u64, event: Event) {
        let after_ms = self.rng.range(0, most_ms);
        self.at(after_ms, event);
    }

    pub(crate) fn up(&mut self, node: usize) -> Option<&mut Running> {
        self.nodes[node].up.as_deref_mut()
    }

    pub(crate) fn running(&mut self, node: usize) -> &mut Running {
        self.up(node).expect("events of a node happen while it runs")
    }

    /// The time by a node's own clock.
    pub(crate) fn local_ms(&self, node: usize) -> u64 {
        self.nodes[node].now_ms(self.now_ms)
    }

    /// Tells what happens, if anybody listens.
    pub(crate) fn say(&self, what: impl FnOnce(&Self) -> String) {
        if self.tells {
            println!("{:6} ms  {}", self.now_ms, what(self));
        }
    }

    fn take_single(&mut self, to: usize, bytes: &Bytes) {
        let frame = Frame::decode(bytes).expect("what was encoded can be decoded");
        let now_ms = self.local_ms(to);
        let from = frame.number as usize;
        let (sender, epoch) = (name(from), frame.epoch);
        self.say(|_| format!("n{to} takes from n{from} {epoch} {:?}", frame.body));
        let machine = &mut self.running(to).machine;
        let answer = match frame.body {
            Body::Ask => Some(machine.handle_ask(now_ms)),
            Body::Fence(fence) => machine.handle_fence(sender, epoch, fence, now_ms),
            Body::Positions(at) => {
                machine.handle_positions(sender, *at, now_ms);
                None
            }
            Body::Fenced(at) => {
                machine.handle_fenced(sender, epoch, *at, now_ms);
                None
            }
            Body::FenceRefused { at_work } => {
                machine.handle_fence_refused(sender, epoch, at_work, now_ms);
                None
            }
            Body::HandOver => {
                let _obeys = machine.handle_hand_over(sender, epoch, now_ms);
                None
            }
            other => panic!("{other:?} is no frame of an ask"),
        };
        if let Some(answer) = answer {
            self.send_single(to, from, answer);
        }
    }

    /// Sends a frame on its own; its number says who sent it, as a connection would.
    pub(crate) fn send_single(&mut self, from: usize, to: usize, frame: Frame) {
        let bytes = Frame { number: from as u64, ..frame }.encode();
        for after_ms in self.net.send_single(from, to, &mut self.rng).into_iter().flatten() {
            self.at(after_ms, Event::Single(to, bytes.clone()));
        }
    }

    pub(crate) fn send(&mut self, link: LinkId, from: usize, packet: Packet) {
        let Some(to) = self.net.peer(link, from) else { return };
        let at_ms = self.net.send(link, from, &packet, self.now_ms, &mut self.rng);
        if let Some(at_ms) = at_ms {
            self.at(at_ms - self.now_ms, Event::Packet(link, to, packet));
        }
    }

    fn tick(&mut self, node: usize) -> Result<(), WalError> {
        let now_ms = self.local_ms(node);
        let life = self.nodes[node].life;
        let machine = &mut self.running(node).machine;
        machine.handle_timeout(now_ms);
        let due_ms = machine.poll_timeout().saturating_sub(now_ms).clamp(1, TIMING.heartbeat_ms);
        self.at(due_ms, Event::Tick(node, life));
        self.drop_silent(node);
        self.beat(node)?;
        self.acknowledge(node);
        self.start_flush(node);
        if self.running(node).is_following() {
            self.soon(5, Event::Dial(node, life));
        }
        Ok(())
    }

    pub(crate) fn describe(&self) -> String {
        let mut text =
            format!("committed {}, acked {}", self.checks.end(), self.checks.last_acked());
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(up) = &node.up else {
                text += &format!("; n{at} is down");
                continue;
            };
            text += &format!(
                "; n{} {:?} fence {} last {} end {} committed {} applied {} counts {}",
                index(node.name),
                up.machine.role(),
                up.machine.fence(),
                up.wal.last_epoch(),
                up.wal.appended(),
                up.machine.committed(),
                up.engine.applied,
                self.checks.counts(at),
            );
        }
        text
    }
}

/// How many voters' disks may be destroyed: R must be left to fence, and W to commit, though where
/// all commit one may be missing until it is granted.
fn spare(voters: &Voters) -> u64 {
    let to_commit = (voters.n() - voters.w()).max(1);
    to_commit.min(voters.w() - 1) as u64
}

/// A node on a new disk, with a clock and a configuration of its own. At times that is an old
/// one, which names fewer peers.
fn founded(at: usize, n: usize, voters: &Voters, rng: &mut Rng) -> Node {
    let role = if at == 0 { Role::Primary } else { Role::Replica };
    let life = Incarnation(at as u64 + 1);
    let mut peers: Vec<usize> = (0..n).filter(|peer| *peer != at).collect();
    if n > 2 && rng.chance(10) {
        peers.truncate(n - 2);
    }
    Node {
        name: name(at),
        store: Store::founded(name(at), life, role, voters, rng.next()),
        life: 0,
        up: None,
        clock: Clock { ahead_ms: rng.below(1_000), rate: rng.range(950, 1_050) },
        paused_until_ms: None,
        late: Vec::new(),
        wakes: false,
        peers,
        copy: None,
        replaced: false,
        refused: None,
    }
}
