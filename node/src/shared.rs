//! What a node's tasks share: the rules under one lock, and the watermarks they publish.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{Body, Frame};
use towline_protocol::id::NodeId;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{Action, Identity, Machine, RoleView};
use towline_transport::Endpoint;
use towline_wal::{Control, Wal, WalError};

use crate::config::NodeConfig;
use crate::engine::Engine;
use crate::error::PromotionError;
use crate::hook::PromotionHook;
use crate::opening::Opening;
use crate::platform::Platform;
use crate::refusals::{PeerError, Refusals};
use crate::upkeep::Damaged;
use crate::view::{Leadership, NodeState};

/// How many frames may wait for the driver, which may wait for the disk.
const FRAMES_MAX: usize = 256;

/// What the rules have acknowledged, published as one value so that nobody sees half of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Acknowledged {
    /// The epoch this node leads, open and not fenced; `None` on anything but such a primary.
    pub(crate) leads: Option<Epoch>,
    pub(crate) committed: Lsn,
    /// Everything below may be applied: committed, and on this disk as far as the rules know.
    pub(crate) applicable: Lsn,
    /// Every read round up to this one is over.
    pub(crate) rounds: u64,
}

/// Whether this node appends to its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    /// It does not.
    Shut,
    /// It does, in this epoch.
    Open(Epoch),
    /// No more in this epoch, but what it has appended is still answered.
    Quiesced(Epoch),
}

impl Gate {
    /// Whether clients of `epoch` are served, or still answered.
    fn serves(self, epoch: Epoch) -> bool {
        self == Self::Open(epoch) || self == Self::Quiesced(epoch)
    }
}

/// What an operator waits for.
pub(crate) type Promotion = oneshot::Sender<Result<Epoch, PromotionError>>;

pub(crate) struct Shared {
    pub(crate) config: NodeConfig,
    pub(crate) platform: Platform,
    pub(crate) identity: Identity,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) hook: Arc<dyn PromotionHook>,
    pub(crate) endpoint: Endpoint,
    /// The log as it is open now; a cut closes it and opens it again.
    pub(crate) opening: RwLock<Opening>,
    machine: Mutex<Machine>,
    started: Instant,
    /// Who may append. Whoever appends holds it for reading, and whoever closes it writes, so that
    /// no append is under way once it is closed.
    pub(crate) gate: RwLock<Gate>,
    pub(crate) acknowledged: watch::Sender<Acknowledged>,
    pub(crate) applied: watch::Sender<Lsn>,
    pub(crate) leadership: watch::Sender<Leadership>,
    /// The primary's news for every replica, and a replica's ack for its primary.
    pub(crate) news: watch::Sender<Option<Frame>>,
    pub(crate) acks: watch::Sender<Option<Frame>>,
    /// Grows whenever some replica has applied more.
    pub(crate) replicas: watch::Sender<u64>,
    /// Candidates that wait for this node's FENCED.
    pub(crate) fencing: Mutex<BTreeMap<NodeId, oneshot::Sender<Frame>>>,
    /// Calls under way: a node is not asked the same thing twice at once.
    pub(crate) calling: Mutex<BTreeSet<(NodeId, Epoch)>>,
    /// The operator who waits for a promotion.
    pub(crate) promotion: Mutex<Option<Promotion>>,
    /// The operator who waits for a hand-over.
    pub(crate) hand_over: Mutex<Option<Promotion>>,
    /// What each replica was handed, and how far away it is.
    pub(crate) sessions: Mutex<BTreeMap<NodeId, Session>>,
    /// Why the node is not well; empty if it is.
    pub(crate) trouble: Mutex<String>,
    pub(crate) cut_bytes: Mutex<u64>,
    /// What reading the log again has found.
    pub(crate) damaged: Mutex<Damaged>,
    pub(crate) refusals: Refusals,
    /// How many connections each peer holds that it dialled.
    pub(crate) inbound: Mutex<BTreeMap<NodeId, usize>>,
    failed: AtomicBool,
    /// Held while the control file is written, and while the log is cut: a handle of the log as
    /// it was must never write over what the cut has written.
    pub(crate) writing: Mutex<()>,
    actions: mpsc::UnboundedSender<Action>,
    /// How many of the actions that wait are frames to be sent.
    pub(crate) frames: AtomicUsize,
    pub(crate) stopping: watch::Sender<bool>,
}

/// A replica this primary serves.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) shipped: watch::Receiver<Lsn>,
    pub(crate) connection: towline_transport::Connection,
}

/// What [`Shared::new`] needs beside its defaults.
pub(crate) struct Parts {
    pub(crate) config: NodeConfig,
    pub(crate) platform: Platform,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) hook: Arc<dyn PromotionHook>,
    pub(crate) endpoint: Endpoint,
    pub(crate) opening: Opening,
    pub(crate) machine: Machine,
    pub(crate) started: Instant,
}

impl Shared {
    /// The state, and the queue of what the rules want done: [`FRAMES_MAX`] frames at the most, and
    /// a handful of actions for every change of role or epoch.
    pub(crate) fn new(parts: Parts) -> (Arc<Self>, mpsc::UnboundedReceiver<Action>) {
        let (actions, queue) = mpsc::unbounded_channel();
        let leadership = Leadership {
            state: NodeState::Starting,
            open: None,
            primary: None,
            fence: parts.machine.fence(),
        };
        let applied = parts.engine.applied();
        let shared = Self {
            identity: *parts.machine.identity(),
            config: parts.config,
            platform: parts.platform,
            engine: parts.engine,
            hook: parts.hook,
            endpoint: parts.endpoint,
            opening: RwLock::new(parts.opening),
            machine: Mutex::new(parts.machine),
            started: parts.started,
            gate: RwLock::new(Gate::Shut),
            acknowledged: watch::Sender::default(),
            applied: watch::Sender::new(applied),
            leadership: watch::Sender::new(leadership),
            news: watch::Sender::default(),
            acks: watch::Sender::default(),
            replicas: watch::Sender::default(),
            fencing: Mutex::default(),
            calling: Mutex::default(),
            promotion: Mutex::default(),
            hand_over: Mutex::default(),
            sessions: Mutex::default(),
            trouble: Mutex::default(),
            cut_bytes: Mutex::default(),
            damaged: Mutex::default(),
            refusals: Refusals::default(),
            inbound: Mutex::default(),
            failed: AtomicBool::new(false),
            writing: Mutex::default(),
            actions,
            frames: AtomicUsize::new(0),
            stopping: watch::Sender::new(false),
        };
        (Arc::new(shared), queue)
    }

    /// Milliseconds since the node started: the rules' clock.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The log as it is open now.
    pub(crate) fn wal(&self) -> Arc<Wal> {
        self.opening.read().unwrap_or_else(PoisonError::into_inner).wal()
    }

    /// Changes the control file of the log as it is open now. Durable on return.
    pub(crate) fn update_control(&self, change: impl FnOnce(&mut Control)) -> Result<(), WalError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.wal().update_control(change)
    }

    /// Looks at the rules.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.machine())
    }

    /// Tells the rules something, and publishes what follows from it before anybody else may.
    pub(crate) fn tell<T>(&self, tell: impl FnOnce(&mut Machine, u64) -> T) -> T {
        let mut machine = self.machine();
        machine.handle_appended(self.wal().appended());
        let told = tell(&mut machine, self.now_ms());
        self.publish(&mut machine);
        told
    }

    /// Puts the log that a cut has left in the place of the old one, and tells the rules before
    /// anybody else can see it. The lock of the rules is taken first here as everywhere.
    pub(crate) fn replace_log(&self, wal: Arc<Wal>) {
        let mut machine = self.machine();
        machine.handle_cut(wal.flushed(), wal.history(), wal.terms());
        *self.opening.write().unwrap_or_else(PoisonError::into_inner) = Opening::new(wal);
        self.publish(&mut machine);
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        // A panic under this lock is a broken invariant; the process ends with it.
        self.machine.lock().expect("the rules hold")
    }

    fn publish(&self, machine: &mut Machine) {
        let frame = |epoch, number, body| Frame { log: self.identity.log, epoch, number, body };
        let leads = match machine.role() {
            RoleView::Primary { open: true } => machine.heartbeat().map(|(epoch, ..)| epoch),
            _ => None,
        };
        let acknowledged = Acknowledged {
            leads,
            committed: machine.committed(),
            applicable: machine.applicable(),
            rounds: machine.rounds_seen(),
        };
        set(&self.acknowledged, acknowledged);
        let news = machine.heartbeat();
        set(
            &self.news,
            news.map(|(epoch, number, news)| frame(epoch, number, Body::Heartbeat(news))),
        );
        let ack = machine.ack();
        set(&self.acks, ack.map(|(epoch, ack)| frame(epoch, ack.seen, Body::Ack(ack))));
        set(&self.leadership, self.leadership_of(machine, leads));
        while let Some(action) = machine.poll_action() {
            if matches!(action, Action::Send(..)) {
                if self.frames.load(Ordering::Relaxed) >= FRAMES_MAX {
                    continue; // As good as lost on the way: whoever is not answered asks again.
                }
                self.frames.fetch_add(1, Ordering::Relaxed);
            }
            // Nobody takes actions any more only while the node stops.
            let _ = self.actions.send(action);
        }
    }

    fn leadership_of(&self, machine: &Machine, leads: Option<Epoch>) -> Leadership {
        // Not waited for: whoever is closing the gate may wait for an append, and the rules for
        // nobody. It publishes again once it is done.
        let gate = self.gate.try_read().map_or(Gate::Shut, |gate| *gate);
        let open = leads.filter(|epoch| gate.serves(*epoch));
        let state = match machine.role() {
            _ if self.failed.load(Ordering::Relaxed) => NodeState::Failed,
            RoleView::Replica { streaming: true } => NodeState::Streaming,
            RoleView::Replica { streaming: false } => NodeState::Starting,
            RoleView::Candidate => NodeState::Candidate,
            RoleView::Primary { .. } if open.is_some() => NodeState::Primary,
            RoleView::Primary { .. } => NodeState::Candidate,
            RoleView::Quarantined => NodeState::Quarantined,
        };
        Leadership { state, open, primary: machine.primary(), fence: machine.fence() }
    }

    /// Counts why a conversation with `peer` ended, and says it, with where this node stands.
    pub(crate) fn note(&self, peer: NodeId, error: &PeerError) {
        let (epoch, end) = self.look(|machine| (machine.fence(), machine.positions().end));
        let node = self.identity.node;
        match error.kind() {
            None => tracing::info!(%node, %peer, %epoch, %end, "connection ended: {error}"),
            Some(kind) => {
                self.count(error);
                let kind = kind.as_str();
                tracing::warn!(%node, %peer, %epoch, %end, kind, "refused: {error}");
            }
        }
    }

    /// Counts a refusal, if it is one; whoever calls says it.
    pub(crate) fn count(&self, error: &PeerError) {
        if let Some(kind) = error.kind() {
            self.refusals.count(kind);
        }
    }

    /// Returns once the node stops, also if it did so before this was called.
    pub(crate) async fn stopped(&self) {
        drop(self.stopping.subscribe().wait_for(|stopping| *stopping).await);
    }

    /// Sends the newest ack again, though nothing changed: the primary asked by a heartbeat, and
    /// a lost ack must never wedge it.
    pub(crate) fn repeat_ack(&self) {
        self.acks.send_modify(|_| {});
    }

    /// Sends the news again, though nothing changed: silence means death.
    pub(crate) fn repeat_news(&self) {
        self.news.send_modify(|_| {});
    }

    /// Something failed for good: nothing is acknowledged any more, and the operator is told.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(node = %self.identity.node, "{reason}");
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = Gate::Shut;
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = reason.clone();
        self.failed.store(true, Ordering::Relaxed);
        self.tell(|machine, _| machine.quarantine(reason));
    }
}

/// Publishes a value if it changed.
fn set<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|current| {
        let changed = *current != value;
        if changed {
            *current = value;
        }
        changed
    });
}
