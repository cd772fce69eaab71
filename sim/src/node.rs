//! One node: its disk, and what a crash takes from it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{Purpose, Refusal};
use towline_protocol::id::{LogId, NodeId};
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{Action, Decision, Identity, Machine, RoleView, Stored, Timing};
use towline_wal::{Cursor, Level, Role, Wal, WalError};

use crate::disk::{CLUSTER, Copy, SEGMENT, Store};
use crate::engine::{Engine, KEYS};
use crate::net::{LinkId, Packet};
use crate::world::Event;

pub(crate) const LOG: LogId = LogId(7);
pub(crate) const TIMING: Timing = Timing { heartbeat_ms: 25, ask_ms: 80, candidate_ms: 400 };

/// A node's clock: it runs at a speed of its own, and jumps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) ahead_ms: u64,
    /// Its milliseconds in a thousand true ones.
    pub(crate) rate: u64,
}

impl Clock {
    pub(crate) const fn at(self, now_ms: u64) -> u64 {
        self.ahead_ms + now_ms * self.rate / 1_000
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: NodeId,
    pub(crate) store: Store,
    /// Counts starts, so that what was begun in an earlier life does not reach a later one.
    pub(crate) life: u64,
    /// What runs; `None` while the node is down.
    pub(crate) up: Option<Box<Running>>,
    pub(crate) clock: Clock,
    /// While it is paused: until when, and what happened to it meanwhile, which it handles then.
    pub(crate) paused_until_ms: Option<u64>,
    pub(crate) late: Vec<Event>,
    /// It is handling that now.
    pub(crate) wakes: bool,
    /// Whom its configuration names.
    pub(crate) peers: Vec<usize>,
    /// A backup of its disk.
    pub(crate) copy: Option<Copy>,
    /// Whether its disk was lost and another took its place.
    pub(crate) replaced: bool,
    /// Why its newest call to a primary was refused, if it was.
    pub(crate) refused: Option<Refusal>,
}

/// A running node: everything a crash takes.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) machine: Machine,
    pub(crate) wal: Arc<Wal>,
    /// The fence on its disk.
    pub(crate) fence: Epoch,
    /// Actions not yet begun, and how far the current one is.
    pub(crate) actions: VecDeque<Action>,
    pub(crate) current: Option<(Action, u8)>,
    /// Whether a candidacy is under way whose end was not told.
    pub(crate) trying: bool,
    pub(crate) follow: Option<Follow>,
    pub(crate) serving: BTreeMap<LinkId, Serve>,
    pub(crate) flushing: bool,
    pub(crate) engine: Engine,
    pub(crate) applier: Cursor,
    /// The epoch that clients were let in for.
    pub(crate) opened: Option<Epoch>,
    /// On an open primary: the engine's values with everything behind them in the log.
    pub(crate) view: [u64; KEYS],
    /// A hand-over is under way: nothing new is executed.
    pub(crate) quiesced: Option<Epoch>,
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    /// The epoch it acknowledges in though it should not: [`crate::Plant::AckAfterFence`].
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
    pub(crate) cursor: Cursor,
    /// Counts its frames of records.
    pub(crate) number: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) value: u64,
    pub(crate) end: Lsn,
    pub(crate) epoch: Epoch,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    /// Which operation of the checks' history it is.
    pub(crate) op: usize,
    pub(crate) value: u64,
    /// How far the log reached that it saw.
    pub(crate) seen: Lsn,
    pub(crate) round: u64,
    pub(crate) epoch: Epoch,
}

impl Node {
    pub(crate) fn now_ms(&self, true_ms: u64) -> u64 {
        self.clock.at(true_ms)
    }

    /// Opens the log and starts the rules on what it says.
    pub(crate) fn start(&mut self, true_ms: u64) -> Result<(), WalError> {
        let wal = self.store.open()?;
        let control = wal.control();
        let engine = self.store.engine;
        let identity = Identity {
            cluster: CLUSTER,
            log: LOG,
            node: self.name,
            incarnation: control.incarnation,
            segment_size: SEGMENT,
        };
        let stored = Stored {
            fence: control.fence,
            history: wal.history(),
            terms: wal.terms(),
            oldest: Lsn::ZERO,
            end: wal.flushed(),
            committed: control.committed.max(engine.applied),
            applied: engine.applied,
            claims: control.role == Role::Primary,
        };
        let machine = Machine::new(identity, TIMING, stored, self.now_ms(true_ms));
        let applier = wal.cursor(engine.applied, Level::Appended)?;
        self.life += 1;
        self.up = Some(Box::new(Running {
            machine,
            fence: control.fence,
            actions: VecDeque::new(),
            current: None,
            trying: false,
            follow: None,
            serving: BTreeMap::new(),
            flushing: false,
            engine,
            applier,
            opened: None,
            view: engine.values,
            quiesced: None,
            writes: Vec::new(),
            reads: Vec::new(),
            zombie: None,
            wal,
        }));
        Ok(())
    }

    /// The epoch this node serves clients in.
    pub(crate) fn open_epoch(&self) -> Option<Epoch> {
        let up = self.up.as_ref()?;
        let open = up.machine.role() == RoleView::Primary { open: true };
        up.opened.filter(|epoch| open && *epoch == up.machine.fence())
    }
}

impl Running {
    pub(crate) fn is_following(&self) -> bool {
        matches!(self.machine.role(), RoleView::Replica { .. })
    }

    /// Whether this node is the candidate of `epoch`; an action may be overtaken.
    pub(crate) fn tries(&self, epoch: Epoch) -> bool {
        self.machine.role() == RoleView::Candidate && self.machine.fence() == epoch
    }

    /// Tells the rules what the log's epochs and terms are now.
    pub(crate) fn learn(&mut self) {
        let (history, terms) = (self.wal.history(), self.wal.terms());
        self.machine.handle_history(history, terms);
    }

    /// Promises `epoch` on disk.
    pub(crate) fn persist_fence(&mut self, epoch: Epoch) -> Result<(), WalError> {
        if epoch > self.fence {
            self.wal.update_control(|control| control.fence = control.fence.max(epoch))?;
            self.fence = epoch;
        }
        Ok(())
    }
}

pub(crate) fn name(index: usize) -> NodeId {
    const NAMES: [&str; 5] = ["n0", "n1", "n2", "n3", "n4"];
    NAMES[index].parse().expect("a letter and a digit name a node")
}

pub(crate) fn index(name: NodeId) -> usize {
    usize::from(name.to_bytes()[1] - b'0')
}
