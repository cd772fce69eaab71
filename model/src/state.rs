//! A state of the world: what is on the disks, in memory, and on its way between nodes.
//!
//! # What is on its way
//!
//! There is no list of messages; what may still arrive is kept by attempt to become primary, and
//! that loses nothing. All frames of an attempt carry its epoch, and whoever obeys a higher one
//! refuses them, so only their order within one attempt is left to choose.
//!
//! - *Records*: a primary's log only grows while it leads, so everything it ever sent is a prefix
//!   of [`Attempt::sent`]. It stays there when the primary is gone: frames arrive late.
//! - *Acks* are cumulative, so the highest says all. A lost or late one is a primary that does not
//!   make use of it yet: committing is a step of its own, one record at a time.
//! - *FENCE* may reach a voter at any time after the attempt began, its death included. *FENCED*
//!   is noted at once; a lost one is a candidate that adopts from fewer.
//! - *Committed* travels like acks: learning it is a step of its own.

use crate::log::Log;
use crate::setting::Nodes;

/// The most nodes a setting has.
pub const NODES: usize = 4;
/// The most attempts: one per epoch, and one more for broken rules that use an epoch twice.
pub const SLOTS: usize = 4;

/// What a node does. The number is its attempt's slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Role {
    /// It follows, or waits.
    #[default]
    Follows,
    /// A candidate: voters are asked to obey.
    Fences(u8),
    /// A candidate: the longest log is fetched; the BARRIER follows as the last of it arrives.
    Fetches(u8),
    /// A primary: the BARRIER is in its log. It is open once that is committed.
    Leads(u8),
}

impl Role {
    /// The attempt it is made in, if it is.
    #[must_use]
    pub const fn slot(self) -> Option<u8> {
        match self {
            Self::Follows => None,
            Self::Fences(slot) | Self::Fetches(slot) | Self::Leads(slot) => Some(slot),
        }
    }
}

/// A node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Node {
    /// Its log; what lies past `flushed` may be lost in a crash.
    pub log: Log,
    /// How much of it is on disk.
    pub flushed: u8,
    /// The highest epoch it obeys, on disk.
    pub fence: u8,
    /// How much it knows is committed, on disk.
    pub committed: u8,
    /// In memory: what it does.
    pub role: Role,
    /// In memory: the attempt whose stream it takes.
    pub session: Option<u8>,
    /// The attempts it promised to delay FENCED for, as bits.
    pub promises: u8,
    /// For a check only: the highest epoch it ever said it obeys.
    pub obeyed: u8,
}

/// An attempt to become primary, and everything sent in its epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Attempt {
    /// Its epoch; zero if it has not begun.
    pub epoch: u8,
    /// Who tries.
    pub node: u8,
    /// Who said FENCED.
    pub fenced: Nodes,
    /// The logs they told of.
    pub told: [Log; NODES],
    /// What is to be fetched, then the primary's log: what may be on its way to replicas.
    pub sent: Log,
    /// How much each voter acknowledged in this epoch.
    pub acks: [u8; NODES],
    /// How much the primary committed: what its heartbeats say.
    pub committed: u8,
    /// Whose promise the primary still counts on.
    pub held: Nodes,
}

impl Attempt {
    /// Whether its BARRIER was written.
    #[must_use]
    pub const fn led(&self) -> bool {
        self.epoch > 0 && self.sent.last_epoch() == self.epoch
    }

    /// Who acknowledged at least `end` records.
    #[must_use]
    pub fn holders(&self, end: u8) -> Nodes {
        let held = (0..NODES).filter(|node| self.acks[*node] >= end);
        held.fold(0, |mask, node| mask | 1 << node)
    }
}

/// A client's read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Read {
    /// Not yet asked for.
    #[default]
    Idle,
    /// Evaluated on an open primary, not answered.
    Evaluated {
        /// The primary's attempt.
        slot: u8,
        /// The writes that were acknowledged before, as bits: it must have seen them.
        required: u8,
        /// What it saw: so much of the primary's log.
        seen: u8,
        /// Who echoed a frame that was sent after the evaluation.
        echoes: Nodes,
    },
    /// Answered, or refused.
    Over,
}

/// What went wrong, as bits; and what happened that should happen sometimes.
pub mod seen {
    /// Two nodes hold different records as committed.
    pub const DIVERGED: u8 = 1;
    /// Two attempts acknowledged in one epoch.
    pub const TWICE: u8 = 1 << 1;
    /// An ack left below an epoch its node had said it obeys.
    pub const LATE_ACK: u8 = 1 << 2;
    /// A node cut what it knew was committed.
    pub const CUT: u8 = 1 << 3;
    /// A read missed a write that was acknowledged before it began.
    pub const STALE: u8 = 1 << 4;
    /// A read answered with what was not committed.
    pub const DIRTY: u8 = 1 << 5;
    /// A read was answered.
    pub const ANSWERED: u8 = 1 << 6;
}

/// The world.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct State {
    /// The nodes.
    pub nodes: [Node; NODES],
    /// The attempts to become primary.
    pub attempts: [Attempt; SLOTS],
    /// For a check only: everything any primary committed.
    pub chosen: Log,
    /// For a check only: the epoch each write was acknowledged in; zero before.
    pub acked: [u8; 2],
    /// How many writes were sent.
    pub writes: u8,
    /// How many crashes there were.
    pub crashes: u8,
    /// The read.
    pub read: Read,
    /// See [`seen`].
    pub seen: u8,
}

impl State {
    /// A node.
    #[must_use]
    pub const fn node(&self, node: u8) -> &Node {
        &self.nodes[node as usize]
    }

    /// A node, to change.
    pub const fn node_mut(&mut self, node: u8) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    /// An attempt.
    #[must_use]
    pub const fn attempt(&self, slot: u8) -> &Attempt {
        &self.attempts[slot as usize]
    }

    /// An attempt, to change.
    pub const fn attempt_mut(&mut self, slot: u8) -> &mut Attempt {
        &mut self.attempts[slot as usize]
    }

    /// The attempt of a primary that is open: its BARRIER is committed.
    #[must_use]
    pub fn open(&self, node: u8) -> Option<u8> {
        let at = self.node(node);
        let Role::Leads(slot) = at.role else { return None };
        let (barrier, _) = at.log.last_barrier()?;
        (at.committed > barrier).then_some(slot)
    }

    /// Notes that something was seen.
    pub const fn note(&mut self, what: u8) {
        self.seen |= what;
    }

    /// Whether something was seen.
    #[must_use]
    pub const fn saw(&self, what: u8) -> bool {
        self.seen & what != 0
    }

    /// The writes acknowledged so far, as bits.
    #[must_use]
    pub fn acknowledged(&self) -> u8 {
        let numbers = (0..self.acked.len()).filter(|index| self.acked[*index] > 0);
        numbers.fold(0, |mask, index| mask | 1 << index)
    }
}
