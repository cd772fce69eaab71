//! The event loop: one virtual clock, one queue, one source of randomness.

use std::collections::BTreeMap;

use towline_protocol::frame::{Body, Frame, Purpose};
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::RoleView;
use towline_protocol::voters::{Voter, Voters};

use super::Plant;
use super::check::Checks;
use super::disk::Disk;
use super::net::{LinkId, Net, Packet};
use super::node::{Node, Running, TIMING, index, name};
use super::rng::{Rng, mix};

/// How long faults go on, and how soon after them everything must be well, in virtual ms.
const FAULTS_MS: u64 = 6_000;
const WELL_WITHIN_MS: u64 = 20_000;

/// What happens next. What belongs to one life of a node carries its number.
#[derive(Debug)]
pub(crate) enum Event {
    Single(usize, Frame),
    Packet(LinkId, usize, Packet),
    Step(usize, u64),
    Flushed(usize, u64, usize, u64),
    Tick(usize, u64),
    Dial(usize, u64),
    Decide(usize, u64, LinkId),
    Fetched(usize, u64, LinkId),
    Apply(usize, u64),
    Client,
    Fault,
    Restart(usize),
    Mend(usize, usize),
}

pub(crate) struct World {
    pub(crate) now_ms: u64,
    queue: BTreeMap<(u64, u64), Event>,
    order: u64,
    pub(crate) rng: Rng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Net,
    pub(crate) checks: Checks,
    pub(crate) plant: Option<Plant>,
    /// No more faults.
    pub(crate) quiet: bool,
    trace: u64,
    pub(crate) opened: u64,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Plant>) -> Self {
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
        let nodes = (0..n).map(|at| Node::new(at, Disk::new(voters.clone(), at == 0))).collect();
        let net = Net::new(n, &mut rng);
        let checks = Checks::new();
        let mut world = Self {
            now_ms: 0,
            queue: BTreeMap::new(),
            order: 0,
            rng,
            nodes,
            net,
            checks,
            plant,
            quiet: false,
            trace: seed,
            opened: 0,
        };
        (0..n).for_each(|node| world.at(0, Event::Restart(node)));
        world.at(1, Event::Client);
        world.at(500, Event::Fault);
        world
    }

    /// Runs to the end; the hash of all that happened. Panics on a violation.
    pub(crate) fn run(mut self) -> u64 {
        self.run_until(FAULTS_MS, |_| false);
        self.quiet = true;
        self.net.heal();
        self.net.loss = 0;
        self.net.delay_ms = self.net.delay_ms.min(5);
        let since = self.checks.last_acked();
        let begun_ms = self.now_ms;
        let well = self.run_until(begun_ms + WELL_WITHIN_MS, |world| world.is_well(since));
        assert!(well, "not well {WELL_WITHIN_MS} ms after the last fault: {}", self.describe());
        self.checks.finish(&self.nodes);
        self.trace
    }

    fn run_until(&mut self, end_ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        while let Some(((at_ms, order), event)) = self.queue.pop_first() {
            if at_ms >= end_ms {
                self.queue.insert((at_ms, order), event);
                return done(self);
            }
            self.now_ms = at_ms;
            if let Some(node) = self.dispatch(event) {
                self.settle(node);
            }
            if done(self) {
                return true;
            }
        }
        false
    }

    /// Whether a primary has committed a write since `since`, and everybody has all of the log.
    fn is_well(&self, since: Lsn) -> bool {
        let end = self.checks.last_acked();
        let all = |node: &Node| {
            node.up.as_ref().is_some_and(|up| up.machine.committed() == self.checks.end())
        };
        end > since
            && self.nodes.iter().any(|node| node.open_epoch().is_some())
            && self.nodes.iter().all(all)
    }

    pub(crate) fn at(&mut self, after_ms: u64, event: Event) {
        self.order += 1;
        self.queue.insert((self.now_ms + after_ms, self.order), event);
    }

    pub(crate) fn soon(&mut self, most_ms: u64, event: Event) {
        let after_ms = self.rng.range(0, most_ms);
        self.at(after_ms, event);
    }

    pub(crate) fn up(&mut self, node: usize) -> Option<&mut Running> {
        self.nodes[node].up.as_mut()
    }

    /// Lets an event happen; the node it happened to.
    fn dispatch(&mut self, event: Event) -> Option<usize> {
        let life = |world: &Self, node: usize, life: u64| {
            world.nodes[node].life == life && world.nodes[node].up.is_some()
        };
        let node = match event {
            Event::Single(node, _)
            | Event::Packet(_, node, _)
            | Event::Step(node, _)
            | Event::Flushed(node, ..)
            | Event::Tick(node, _)
            | Event::Dial(node, _)
            | Event::Decide(node, ..)
            | Event::Fetched(node, ..)
            | Event::Apply(node, _)
            | Event::Restart(node) => Some(node),
            Event::Client | Event::Fault | Event::Mend(..) => None,
        };
        match event {
            Event::Single(to, frame) => self.take_single(to, &frame),
            Event::Packet(link, to, packet) => self.take_packet(link, to, packet),
            Event::Step(node, of) if life(self, node, of) => self.step(node),
            Event::Flushed(node, of, count, cuts) if life(self, node, of) => {
                self.flushed(node, count, cuts);
            }
            Event::Tick(node, of) if life(self, node, of) => self.tick(node),
            Event::Dial(node, of) if life(self, node, of) => self.dial(node),
            Event::Decide(node, of, link) if life(self, node, of) => self.decide(node, link),
            Event::Fetched(node, of, link) if life(self, node, of) => self.fetched(node, link),
            Event::Apply(node, of) if life(self, node, of) => self.apply(node),
            Event::Client => self.client(),
            Event::Fault => self.fault(),
            Event::Restart(node) if self.nodes[node].up.is_none() => {
                self.nodes[node].start(self.now_ms);
                let life = self.nodes[node].life;
                self.soon(5, Event::Tick(node, life));
                self.at(5, Event::Apply(node, life));
            }
            Event::Mend(a, b) => self.net.set_cut(a, b, false),
            _ => {}
        }
        node
    }

    /// After every event: do what the machine wants, answer clients, and check.
    fn settle(&mut self, node: usize) {
        self.pump(node);
        self.checks.check(node, &mut self.nodes);
        self.answer(node);
        let Node { disk, life, up, .. } = &self.nodes[node];
        let committed = up.as_ref().map_or(Lsn::ZERO, |up| up.machine.committed());
        let seen = [self.now_ms, node as u64, *life, disk.end().get(), committed.get()];
        for part in seen.into_iter().chain([disk.durable as u64, disk.fence.number]) {
            self.trace = mix(self.trace ^ part);
        }
    }

    fn take_single(&mut self, to: usize, frame: &Frame) {
        let now_ms = self.now_ms;
        let from = frame.number as usize;
        let Some(up) = self.up(to) else { return };
        let (sender, epoch) = (name(from), frame.epoch);
        let answer = match &frame.body {
            Body::Ask => Some(up.machine.handle_ask(now_ms)),
            Body::Fence(fence) => up.machine.handle_fence(sender, epoch, *fence, now_ms),
            Body::Positions(at) => {
                up.machine.handle_positions(sender, (**at).clone(), now_ms);
                None
            }
            Body::Fenced(at) => {
                up.machine.handle_fenced(sender, epoch, (**at).clone(), now_ms);
                None
            }
            Body::HandOver => {
                let _begun = up.machine.handle_hand_over(sender, epoch, now_ms);
                Some(up.machine.handle_ask(now_ms))
            }
            Body::FenceRefused => {
                up.machine.handle_fence_refused(sender, epoch, now_ms);
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
        let frame = Frame::decode(&bytes).expect("what was encoded can be decoded");
        if let Some(at_ms) = self.net.send_single(from, to, self.now_ms, &mut self.rng) {
            self.at(at_ms - self.now_ms, Event::Single(to, frame));
        }
    }

    pub(crate) fn send(&mut self, link: LinkId, from: usize, packet: Packet) {
        let Some(to) = self.net.peer(link, from) else { return };
        let at_ms = self.net.send(link, from, &packet, self.now_ms, &mut self.rng);
        if let Some(at_ms) = at_ms {
            self.at(at_ms - self.now_ms, Event::Packet(link, to, packet));
        }
    }

    fn tick(&mut self, node: usize) {
        let now_ms = self.now_ms;
        let life = self.nodes[node].life;
        let Some(up) = self.up(node) else { return };
        up.machine.handle_timeout(now_ms);
        self.at(TIMING.heartbeat_ms, Event::Tick(node, life));
        self.drop_silent(node);
        self.beat(node);
        self.acknowledge(node);
        self.start_flush(node);
        self.soon(5, Event::Dial(node, life));
    }

    /// The first words of a replica without a primary.
    fn dial(&mut self, node: usize) {
        let peers = self.nodes.len() as u64;
        let (random, follow_heard) = (self.rng.below(peers) as usize, self.rng.chance(70));
        let Some(up) = self.up(node) else { return };
        let free = up.follow.is_none() && up.current.is_none() && up.actions.is_empty();
        if !up.is_following() || !free || peers == 1 {
            return;
        }
        let heard = up.machine.primary().map(index).filter(|_| follow_heard);
        self.hello(node, heard.unwrap_or(random), Purpose::Stream);
    }

    pub(crate) fn describe(&self) -> String {
        let mut text =
            format!("committed {}, acked {}", self.checks.end(), self.checks.last_acked());
        for node in &self.nodes {
            let role = node.up.as_ref().map(|up| up.machine.role());
            let streaming = role == Some(RoleView::Replica { streaming: true });
            let committed = node.up.as_ref().map(|up| up.machine.committed());
            text += &format!(
                "; {} {role:?} streaming={streaming} fence {} last {} end {} \
                 committed {committed:?} \
                 claims {}",
                node.identity.node,
                node.disk.fence,
                node.disk.history.last_epoch(),
                node.disk.end(),
                node.disk.claims
            );
        }
        text
    }
}
