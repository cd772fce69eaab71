//! The handle of a running node: start, look, promote, stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{LogId, NodeId};
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{self, Identity, Machine, RoleView, Stored, Verdict};
use towline_transport::Endpoint;
use towline_wal::{Control, Disk, Role, Wal};

use crate::config::{NodeConfig, Peer};
use crate::engine::Engine;
use crate::error::{NodeError, PromotionError};
use crate::hook::PromotionHook;
use crate::opening::{Opening, log_dir};
use crate::platform::Platform;
use crate::shared::{Parts, Promotion, Shared};
use crate::view::{Leadership, ReplicaStatus, Status, Token, Watermarks};
use crate::{driver, inbound, upkeep};

/// A running node. Clones are handles of the same one.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// How an operator wants a node promoted.
#[derive(Debug, Clone, Copy)]
pub struct Failover {
    /// Take over even though the primary is alive and has its quorum.
    pub force: bool,
    /// How long to wait for the new epoch to open.
    pub timeout: Duration,
}

/// A promotion that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promoted {
    /// The epoch that is open now.
    pub epoch: Epoch,
    /// The end of the log that was taken over.
    pub final_lsn: Lsn,
}

impl Node {
    /// Starts the node whose founding lies in the configured folder: opens its log, listens, and
    /// follows or leads as the cluster's state demands.
    ///
    /// # Errors
    /// [`NodeError`]; the folder is unchanged but for what recovery is allowed to cut.
    pub async fn start(
        config: NodeConfig,
        engine: Arc<dyn Engine>,
        hook: Arc<dyn PromotionHook>,
    ) -> Result<Self, NodeError> {
        Self::start_on(Platform::real(), config, engine, hook).await
    }

    /// As [`Node::start`], on a platform of the caller's.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_on(
        platform: Platform,
        config: NodeConfig,
        engine: Arc<dyn Engine>,
        hook: Arc<dyn PromotionHook>,
    ) -> Result<Self, NodeError> {
        let (log, dir, control) = founded(&platform, &config)?;
        let mut options = log_options(&platform, &config);
        // The engine holds nothing that was not flushed here: less is a loss, not a torn tail.
        options.expect_durable = engine.applied();
        let (wal, report) = Wal::open(&dir, options)?;
        report_recovery(&config, &report);
        let endpoint = bind(&platform, &config, &control)?;
        let identity = Identity {
            cluster: control.cluster,
            log,
            node: control.node,
            incarnation: control.incarnation,
            segment_size: control.segment_size,
        };
        let control = wal.control();
        let stored = Stored {
            fence: control.fence,
            history: wal.history(),
            terms: wal.terms(),
            oldest: wal.oldest().end,
            end: wal.flushed(),
            committed: control.committed.max(engine.applied()),
            applied: engine.applied(),
            claims: control.role == Role::Primary,
        };
        let machine = Machine::new(identity, config.timing(), stored, 0);
        let opening = Opening::new(wal);
        let started = Instant::now();
        let parts = Parts { config, platform, engine, hook, endpoint, opening, machine, started };
        let (shared, actions) = Shared::new(parts);
        let running = |source| NodeError::Io { what: "starting the applier".to_owned(), source };
        shared.run_opening().map_err(running)?;
        let tasks = vec![
            tokio::spawn(driver::drive(Arc::clone(&shared), actions)),
            tokio::spawn(driver::tick(Arc::clone(&shared))),
            tokio::spawn(inbound::accept(Arc::clone(&shared))),
            tokio::spawn(upkeep::keep(Arc::clone(&shared))),
            tokio::spawn(upkeep::scrub(Arc::clone(&shared))),
        ];
        Ok(Self { shared, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// Whether the configured folder holds this node's log. Changes nothing, so that an engine
    /// can be kept from opening its own files in a folder that is not its node's.
    ///
    /// # Errors
    /// [`NodeError`], as [`Node::start`] would give it.
    pub fn check_folder(config: &NodeConfig) -> Result<(), NodeError> {
        founded(&Platform::real(), config).map(|_| ())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The node's name.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.identity.node
    }

    /// Every node of the cluster, as configured.
    #[must_use]
    pub fn peers(&self) -> &BTreeMap<NodeId, Peer> {
        &self.shared.config.peers
    }

    /// Who leads, as it changes.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// How far the engine is, as it changes.
    #[must_use]
    pub fn watch_applied(&self) -> watch::Receiver<Lsn> {
        self.shared.applied.subscribe()
    }

    /// The node's positions.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        // From the last to the first, so that their order holds in what is returned, too.
        let applied = *self.shared.applied.borrow();
        let committed = self.shared.acknowledged.borrow().committed;
        let wal = self.shared.wal();
        let flushed = wal.flushed();
        Watermarks { appended: wal.appended(), flushed, committed, applied }
    }

    /// Waits until `k` replicas have applied everything below `end`, or `timeout` is over (`None`:
    /// for ever). How many have.
    pub async fn wait_applied(&self, end: Lsn, k: usize, timeout: Option<Duration>) -> usize {
        let mut changes = self.shared.replicas.subscribe();
        let reached = || {
            let replicas = self.shared.look(Machine::replicas);
            replicas.iter().filter(|(_, progress)| progress.applied >= end).count()
        };
        let enough = async { while reached() < k && changes.changed().await.is_ok() {} };
        match timeout {
            None => enough.await,
            // How many have by then is the answer either way.
            Some(timeout) => drop(tokio::time::timeout(timeout, enough).await),
        }
        reached()
    }

    /// The fate of a write that was not acknowledged in time.
    #[must_use]
    pub fn verdict(&self, token: Token) -> Verdict {
        if token.log != self.shared.identity.log {
            return Verdict::Unknown;
        }
        self.shared.tell(|machine, _| machine.verdict(token.epoch, token.end))
    }

    /// Makes this node the primary. Returns once it is open for clients.
    ///
    /// # Errors
    /// [`PromotionError`]: it is not, or not yet.
    pub async fn failover(&self, how: Failover) -> Result<Promoted, PromotionError> {
        let (old, fence, end) = self
            .shared
            .look(|machine| (machine.last_epoch(), machine.fence(), machine.positions().end));
        let next = fence.next(self.shared.identity.incarnation);
        let context = self.shared.context(old, next, end);
        let hook = Arc::clone(&self.shared.hook);
        let checked = self.shared.platform.blocking(move || hook.check(&context));
        match tokio::time::timeout(self.shared.config.hook_deadline, checked).await {
            Err(_) => return Err(PromotionError::Refused("the hook's check hangs".to_owned())),
            Ok(Err(panicked)) => return Err(PromotionError::Refused(panicked.to_string())),
            Ok(Ok(Err(veto))) => return Err(PromotionError::Refused(veto.to_string())),
            Ok(Ok(Ok(()))) => {}
        }
        let rules = machine::Failover { force: how.force, ..Default::default() };
        let begin = |machine: &mut Machine, now_ms| machine.promote(rules, now_ms);
        let epoch = self.order(&self.shared.promotion, how.timeout, begin).await?;
        let history = self.shared.wal().history();
        let final_lsn = history.start_of(epoch).map_or(Lsn::ZERO, |start| start.previous_end);
        Ok(Promoted { epoch, final_lsn })
    }

    /// Hands over to `to`, or to whichever voter has caught up: executes nothing new, commits and
    /// answers what was executed, ends the epoch, and lets the other take the next. Returns that
    /// epoch. If nobody takes over in time, this node goes on in a new epoch of its own.
    ///
    /// # Errors
    /// [`PromotionError`].
    pub async fn hand_over(
        &self,
        to: Option<NodeId>,
        timeout: Duration,
    ) -> Result<Epoch, PromotionError> {
        let begin = |machine: &mut Machine, now_ms| machine.hand_over(to, now_ms);
        self.order(&self.shared.hand_over, timeout, begin).await
    }

    /// Has the rules begin something for which one caller at a time may wait, and waits for its
    /// end.
    async fn order(
        &self,
        waiting: &Mutex<Option<Promotion>>,
        timeout: Duration,
        begin: impl FnOnce(&mut Machine, u64) -> Result<(), machine::Failure>,
    ) -> Result<Epoch, PromotionError> {
        let slot = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, wait) = oneshot::channel();
        {
            let mut slot = slot();
            // A caller who went away waits no longer.
            if slot.as_ref().is_some_and(|other| !other.is_closed()) {
                let reason = "another caller waits for one already".to_owned();
                return Err(PromotionError::Refused(reason));
            }
            *slot = Some(ended);
        }
        if let Err(failure) = self.shared.tell(begin) {
            slot().take();
            return Err(failure.into());
        }
        match tokio::time::timeout(timeout, wait).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => Err(PromotionError::Timeout("the node stops".to_owned())),
            Err(_) => {
                slot().take();
                let reason = format!("{timeout:?} are over; `towline list` shows what happens");
                Err(PromotionError::Timeout(reason))
            }
        }
    }

    /// Everything the node shows of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let wal = shared.wal();
        let trouble = shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (voters, progress, quarantine, epoch, leading) = shared.look(|machine| {
            (
                machine.voters().clone(),
                machine.replicas(),
                machine.quarantined().map(str::to_owned),
                machine.last_epoch(),
                matches!(machine.role(), RoleView::Primary { .. }),
            )
        });
        let sessions = shared.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let replica = |(node, progress): (NodeId, towline_protocol::tally::Progress)| {
            let session = sessions.get(&node);
            ReplicaStatus {
                node,
                connected: session.is_some(),
                shipped: session.map_or(progress.received, |session| *session.shipped.borrow()),
                received: progress.received,
                flushed: progress.flushed,
                applied: progress.applied,
                lag_bytes: wal.stored_bytes_between(progress.flushed, wal.appended()),
                rtt_us: session.map_or(0, |session| {
                    u64::try_from(session.connection.rtt().as_micros()).unwrap_or(u64::MAX)
                }),
            }
        };
        let control = wal.control();
        Status {
            cluster: control.cluster_name,
            cluster_id: control.cluster,
            log: shared.identity.log,
            node: shared.identity.node,
            incarnation: shared.identity.incarnation,
            leadership: *shared.leadership.borrow(),
            epoch,
            watermarks: self.watermarks(),
            voters: (voters.n(), voters.w()),
            voter_nodes: voters.members().iter().map(|voter| voter.node).collect(),
            replicas: progress.into_iter().filter(|_| leading).map(replica).collect(),
            oldest: wal.oldest().end,
            stored_bytes: wal.stored_bytes_between(wal.oldest().end, wal.appended()),
            sync_in_flight: wal.sync_in_flight_for(),
            slots: wal.slots(),
            damage: shared.damage(),
            repair_command: shared.repair_command(),
            cut_bytes: *shared.cut_bytes.lock().unwrap_or_else(PoisonError::into_inner),
            refusals: shared.refusals.counts(),
            reason: quarantine.unwrap_or(trouble),
        }
    }

    /// Stops cleanly: no more appends, everything flushed, what is durable and committed noted.
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        shared.close_gate();
        shared.stopping.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A task that panicked has been printed.
            let _ = task.await;
        }
        shared.endpoint.close(0, "the node stops").await;
        let on = Arc::clone(shared);
        shared.halt_opening().await;
        let closing = shared.platform.blocking(move || {
            let committed = on.look(Machine::committed);
            on.update_control(|control| control.committed = control.committed.max(committed))?;
            on.wal().shutdown()
        });
        if let Ok(Err(error)) = closing.await {
            tracing::error!(node = %shared.identity.node, "closing the log: {error}");
        }
    }

    /// Ends the node as the end of its process does: nothing is flushed, noted or said. For
    /// simulations, where one process is many; only there has nothing a thread of its own.
    pub fn abort(&self) {
        let shared = &self.shared;
        shared.stopping.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(JoinHandle::abort);
        shared.abort_opening();
    }
}

/// The log of this node, where it lies, and what its control file says.
fn founded(
    platform: &Platform,
    config: &NodeConfig,
) -> Result<(LogId, PathBuf, Control), NodeError> {
    let disk = platform.disk();
    let log = the_log(&*disk, &config.data_dir)?;
    let dir = log_dir(&config.data_dir, log);
    let control = towline_wal::read_control_on(&*disk, &dir)?;
    belongs(config, &dir, &control)?;
    Ok((log, dir, control))
}

/// The one log below a data folder.
fn the_log(disk: &dyn Disk, data_dir: &Path) -> Result<LogId, NodeError> {
    let parent = data_dir.join("logs");
    let found = match disk.list(&parent) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(NodeError::NotFounded(data_dir.to_owned()));
        }
        Err(source) => {
            return Err(NodeError::Io { what: format!("reading {}", parent.display()), source });
        }
    };
    let logs: Vec<LogId> =
        found.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect();
    match logs.as_slice() {
        [] => Err(NodeError::NotFounded(data_dir.to_owned())),
        [log] => Ok(*log),
        several => Err(NodeError::ManyLogs { path: data_dir.to_owned(), count: several.len() }),
    }
}

fn belongs(config: &NodeConfig, dir: &Path, control: &Control) -> Result<(), NodeError> {
    let foreign = |what| Err(NodeError::Foreign { path: dir.to_owned(), what });
    if control.node != config.node {
        let (is, says) = (control.node, config.node);
        return foreign(format!("this folder is node {is}'s, the configuration says {says}"));
    }
    if control.cluster_name != config.cluster {
        let (is, says) = (&control.cluster_name, &config.cluster);
        return foreign(format!(
            "this folder is of cluster {is:?}, the configuration says {says:?}"
        ));
    }
    Ok(())
}

fn bind(
    platform: &Platform,
    config: &NodeConfig,
    control: &Control,
) -> Result<Endpoint, NodeError> {
    let credentials = platform.credentials(config)?;
    let shown = credentials.identity();
    if (shown.node, shown.cluster) != (control.node, control.cluster) {
        let (node, cluster) = (control.node, control.cluster);
        let what = format!("it is no certificate of node {node} of cluster {cluster}");
        return Err(NodeError::Foreign { path: config.tls.cert.clone(), what });
    }
    platform.endpoint(config, credentials)
}

pub(crate) fn salvage_dir(config: &NodeConfig) -> PathBuf {
    config.data_dir.join("salvage")
}

pub(crate) fn log_options(platform: &Platform, config: &NodeConfig) -> towline_wal::Options {
    towline_wal::Options {
        salvage_dir: Some(salvage_dir(config)),
        disk: platform.disk(),
        threads: platform.has_threads(),
        ..Default::default()
    }
}

fn report_recovery(config: &NodeConfig, report: &towline_wal::Report) {
    tracing::info!(node = %config.node, ?report, "opened the log");
}
