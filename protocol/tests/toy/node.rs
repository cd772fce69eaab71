//! One node: its disk, and what a crash takes from it.

use std::collections::{BTreeMap, VecDeque};

use towline_protocol::epoch::Epoch;
use towline_protocol::frame::Purpose;
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{Action, Decision, Identity, Machine, RoleView, Stored, Timing};

use super::disk::{Disk, SEGMENT};
use super::net::{LinkId, Packet};

pub(crate) const LOG: LogId = LogId(7);
pub(crate) const TIMING: Timing = Timing { heartbeat_ms: 20, ask_ms: 80, candidate_ms: 500 };

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) disk: Disk,
    /// Counts starts, so that what was begun in an earlier life does not reach a later one.
    pub(crate) life: u64,
    /// What runs; `None` while the node is down.
    pub(crate) up: Option<Running>,
}

/// A running node: everything a crash takes.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) machine: Machine,
    /// Actions not yet begun, and how far the current one is.
    pub(crate) actions: VecDeque<Action>,
    pub(crate) current: Option<(Action, u8)>,
    /// Whether a candidacy is under way whose end was not told.
    pub(crate) trying: bool,
    pub(crate) follow: Option<Follow>,
    pub(crate) serving: BTreeMap<LinkId, Serve>,
    pub(crate) flushing: bool,
    pub(crate) applied: Lsn,
    /// The epoch that was quiesced.
    pub(crate) quiesced: Option<Epoch>,
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    /// How far [`super::check::Checks`] has compared the committed log.
    pub(crate) checked: Lsn,
    /// The epoch it acknowledges in though it should not: [`super::Plant::AckAfterFence`].
    pub(crate) zombie: Option<(LinkId, Epoch)>,
}

/// A connection this node dialed to take records from.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) link: LinkId,
    pub(crate) peer: usize,
    pub(crate) purpose: Purpose,
    pub(crate) phase: Phase,
    /// Packets that came before the fence was durable.
    pub(crate) early: Vec<Packet>,
    pub(crate) heard_ms: u64,
}

#[derive(Debug)]
pub(crate) enum Phase {
    Dialed,
    /// The fence is being written; the second time, it is.
    Deciding(Decision, bool),
    Streaming {
        epoch: Epoch,
        until: Option<Lsn>,
    },
}

/// A replica or candidate this node sends records to.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) epoch: Epoch,
    /// How many records were sent or are known to be there.
    pub(crate) sent: usize,
    pub(crate) until: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) id: u64,
    pub(crate) end: Lsn,
    pub(crate) epoch: Epoch,
}

#[derive(Debug)]
pub(crate) struct Read {
    /// What the read saw.
    pub(crate) seen: Lsn,
    /// What everybody's acknowledged writes reached when it began.
    pub(crate) acked: Lsn,
    pub(crate) round: u64,
    pub(crate) epoch: Epoch,
}

impl Node {
    pub(crate) fn new(index: usize, disk: Disk) -> Self {
        let identity = Identity {
            cluster: ClusterId(1),
            log: LOG,
            node: name(index),
            incarnation: Incarnation(index as u64 + 1),
            segment_size: SEGMENT,
        };
        Self { identity, disk, life: 0, up: None }
    }

    /// Another disk, empty, and with it another incarnation.
    pub(crate) fn replace_disk(&mut self) {
        let founding = self.disk.founding.sets.newest().clone();
        self.disk = Disk::new(founding, false);
        self.identity.incarnation.0 += 100;
    }

    pub(crate) fn start(&mut self, now_ms: u64) {
        let disk = &self.disk;
        let stored = Stored {
            fence: disk.fence,
            history: disk.history.clone(),
            terms: disk.terms(),
            oldest: Lsn::ZERO,
            end: disk.end(),
            committed: disk.committed.max(disk.applied),
            applied: disk.applied,
            claims: disk.claims,
        };
        self.life += 1;
        self.up = Some(Running {
            machine: Machine::new(self.identity, TIMING, stored, now_ms),
            actions: VecDeque::new(),
            current: None,
            trying: false,
            follow: None,
            serving: BTreeMap::new(),
            flushing: false,
            applied: disk.applied,
            quiesced: None,
            writes: Vec::new(),
            reads: Vec::new(),
            checked: Lsn::ZERO,
            zombie: None,
        });
    }

    /// The epoch this node serves clients in.
    pub(crate) fn open_epoch(&self) -> Option<Epoch> {
        let machine = &self.up.as_ref()?.machine;
        let open = machine.role() == RoleView::Primary { open: true };
        open.then(|| machine.fence())
    }
}

impl Running {
    pub(crate) fn is_following(&self) -> bool {
        matches!(self.machine.role(), RoleView::Replica { .. })
    }
}

pub(crate) fn name(index: usize) -> NodeId {
    format!("n{index}").parse().expect("a letter and a digit name a node")
}

pub(crate) fn index(name: NodeId) -> usize {
    name.as_str()[1..].parse().expect("nodes are named by their index")
}
