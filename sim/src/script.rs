//! A cluster to which nothing happens except what a test says: the world of the schedules, with
//! their checks after every event, but without a fault that is drawn.
//!
//! Nodes are numbered from 0; node 0 is founded as the primary. Delays and the times that a disk
//! takes still come from the seed, so that a scenario can be run in more than one order.

mod act;
mod look;

use towline_protocol::epoch::Epoch;
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{Action, Failure};
use towline_protocol::voters::{Voter, Voters};

use crate::disk::Copy;
use crate::node::{self, Clock, name};
use crate::rng::Rng;
use crate::world::World;

/// The longest a packet is under way unless a test says otherwise, in milliseconds.
const DELAY_MS: u64 = 4;
/// How soon a cluster without a fault must have agreed on everything, in virtual milliseconds.
const WELL_WITHIN_MS: u64 = 15_000;

/// A cluster, and the clock it lives by.
pub struct Cluster {
    world: World,
    /// How many of the ends that were told have been asked for.
    heard: Vec<usize>,
    /// By node: a disk that was taken out of it, and which one it is.
    shelf: Vec<Option<(Copy, usize)>>,
}

/// A write that was executed, and may be acknowledged yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    value: u64,
    key: u8,
    /// Where its record ends.
    pub end: Lsn,
    /// In which epoch it was appended.
    pub epoch: Epoch,
}

impl Written {
    /// The value that was written; no other write has it.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.value
    }

    /// To which key.
    #[must_use]
    pub const fn key(&self) -> u8 {
        self.key
    }
}

/// A read that was evaluated, and may be answered yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    op: usize,
    /// What it returns if it is answered; 0 if nothing was written to its key.
    pub value: u64,
}

impl Cluster {
    /// `nodes` voters, of which a majority commits, with the order of events drawn from `seed`.
    #[must_use]
    pub fn found(seed: u64, nodes: usize) -> Self {
        Self::found_as(seed, nodes, nodes, None)
    }

    /// `nodes` nodes, of which the first `voting` vote and `w` of them commit; a majority if
    /// `None`.
    ///
    /// # Panics
    /// Unless 1 to 5 nodes have at least one voter among them, and as many as `w`.
    #[must_use]
    pub fn found_as(seed: u64, nodes: usize, voting: usize, w: Option<u8>) -> Self {
        let voter = |at: usize| Voter {
            node: name(at),
            incarnation: Incarnation(at as u64 + 1),
            zone: String::new(),
        };
        let voters = Voters::new((0..voting).map(voter).collect(), w).expect("1 to 5 voters");
        let mut world = World::founded(seed, Rng::new(seed), nodes, voters);
        // No vetoes, and whatever waits for the end of the faults need not wait.
        world.quiet = true;
        world.net.heal();
        world.net.delay_ms = DELAY_MS;
        for (at, node) in world.nodes.iter_mut().enumerate() {
            node.clock = Clock { ahead_ms: 0, rate: 1_000 };
            node.peers = (0..nodes).filter(|peer| *peer != at).collect();
        }
        Self { world, heard: vec![0; nodes], shelf: (0..nodes).map(|_| None).collect() }
    }

    /// The same cluster, on which clients write and read all the time on every node that says
    /// that it is open.
    #[must_use]
    pub fn with_clients(mut self) -> Self {
        self.world.at(1, crate::world::Event::Client);
        self
    }

    /// The virtual time, in milliseconds.
    #[must_use]
    pub const fn now_ms(&self) -> u64 {
        self.world.now_ms
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.world.nodes.len()
    }

    /// Whether there is none: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.world.nodes.is_empty()
    }

    /// Lets `ms` virtual milliseconds pass.
    pub fn run_for(&mut self, ms: u64) {
        let end_ms = self.world.now_ms + ms;
        self.world.run_until(end_ms, |_| false);
        self.world.now_ms = end_ms;
    }

    /// Lets time pass until `done`, for at most `ms` virtual milliseconds; whether it is done.
    pub fn run_until(&mut self, ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end_ms = self.world.now_ms + ms;
        while !done(self) {
            if self.world.now_ms >= end_ms {
                return false;
            }
            self.run_for(1);
        }
        true
    }

    /// The open primary, for which it waits `ms` virtual milliseconds.
    ///
    /// # Panics
    /// If none opens in time.
    #[must_use]
    pub fn primary_within(&mut self, ms: u64) -> usize {
        let opened = self.run_until(ms, |cluster| cluster.primary().is_some());
        assert!(opened, "no primary within {ms} ms: {}", self.world.describe());
        self.primary().expect("it was there a moment ago")
    }

    /// A write to `key` on `node` that is acknowledged.
    ///
    /// # Panics
    /// If it is not within some seconds.
    pub fn write(&mut self, node: usize, key: u8) -> Written {
        let written = self.execute(node, key).expect("the node is open for writes");
        let acknowledged = self.run_until(5_000, |cluster| cluster.is_acknowledged(&written));
        assert!(acknowledged, "{written:?} is not acknowledged: {}", self.world.describe());
        written
    }

    /// How the oldest candidacy or hand-over of `node` ended that was not asked for yet; `None`
    /// if none did since.
    pub fn ended(&mut self, node: usize) -> Option<Result<Epoch, Failure>> {
        let of_node = self.world.told.iter().filter(|(of, _)| *of == node);
        let (_, action) = of_node.clone().nth(self.heard[node])?;
        self.heard[node] += 1;
        match action {
            Action::Ended(ended) | Action::HandedOver(ended) => Some(ended.clone()),
            _ => None,
        }
    }

    /// The newest of them; the older ones are forgotten.
    pub fn last_ended(&mut self, node: usize) -> Option<Result<Epoch, Failure>> {
        std::iter::from_fn(|| self.ended(node)).last()
    }

    /// Waits until all nodes run, hold one log and have applied all of it, and checks that nothing
    /// acknowledged is missing and that all reads fit into one order.
    ///
    /// # Panics
    /// If that does not come to pass in time, or something is violated.
    pub fn ends_well(mut self) -> Self {
        let well = self.run_until(WELL_WITHIN_MS, |cluster| cluster.world.is_well(Lsn::ZERO));
        assert!(well, "not well after {WELL_WITHIN_MS} ms: {}", self.world.describe());
        self.world.checks.finish(&self.world.nodes);
        self
    }

    fn up(&self, node: usize) -> Option<&node::Running> {
        self.world.nodes[node].up.as_deref()
    }
}
