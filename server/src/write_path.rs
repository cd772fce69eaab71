//! The path of every command that touches keys, from its evaluation to its reply.
//!
//! ```text
//! run     lock ─▶ evaluate ─▶ propose the effects ─▶ record them ─▶ unlock
//! settle  wait until everything seen is committed
//!         ─▶ if nothing was appended: wait for a round, which proves that this node still leads
//!         ─▶ reply
//! ```
//!
//! Commands are evaluated against the applied state plus every effect that is proposed and not
//! yet applied, so they need not wait for each other; only replies wait. A batch of pipelined
//! commands waits once.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use towline::{Leadership, Node, ProposeError, Token, Verdict, WaitError};
use towline_engine::{Command, Evaluator, Reply, Store};
use towline_protocol::epoch::Epoch;
use towline_protocol::id::LogId;
use towline_protocol::lsn::Lsn;

use crate::batch::{Batch, Settled, Waits};
use crate::resp::Value;
use crate::token;

/// Effects that are proposed and not yet applied may take this much memory, in bytes; past it
/// writes wait.
const PENDING_BYTES_MAX: usize = 64 << 20;

/// Evaluates commands and holds their replies back until they may be seen.
pub struct WritePath {
    node: Node,
    store: Arc<Store>,
    log: LogId,
    leadership: watch::Receiver<Leadership>,
    applied: watch::Receiver<Lsn>,
    stage: Mutex<Stage>,
    commit_timeout: Duration,
}

/// What one command after another is evaluated with.
struct Stage {
    evaluator: Evaluator,
    /// The epoch whose proposed effects the evaluator holds.
    epoch: Option<Epoch>,
}

/// Why commands were not evaluated. Nothing was appended.
#[derive(Debug)]
enum Refusal {
    /// This node may not write.
    ReadOnly,
    /// Too many effects are not yet applied, as of this position.
    Full(Lsn),
    /// Another reason, as the client is told it.
    Error(Value),
}

impl WritePath {
    /// The write path of a running node whose engine is `store`.
    #[must_use]
    pub fn new(node: Node, store: Arc<Store>, commit_timeout: Duration) -> Self {
        let evaluator = Evaluator::new(Arc::clone(&store), PENDING_BYTES_MAX);
        let stage = Stage { evaluator, epoch: None };
        Self {
            log: node.status().log,
            leadership: node.leadership(),
            applied: node.watch_applied(),
            stage: Mutex::new(stage),
            node,
            store,
            commit_timeout,
        }
    }

    /// Evaluates `commands` as one: no other command comes between them, and their effects are
    /// one record. Gives their replies and what these wait for; they must be put into `batch`.
    ///
    /// # Errors
    /// The reply that says why nothing was evaluated, and that nothing was written.
    pub async fn run(
        &self,
        batch: &mut Batch,
        commands: &[Command],
    ) -> Result<(Vec<Reply>, Waits), Value> {
        let deadline = Instant::now() + self.commit_timeout;
        loop {
            let applied = match self.evaluate(batch, commands) {
                Ok(evaluated) => return Ok(evaluated),
                Err(Refusal::Error(error)) => return Err(error),
                Err(Refusal::ReadOnly) => return Err(self.read_only()),
                Err(Refusal::Full(applied)) => applied,
            };
            let mut watch = self.applied.clone();
            let advanced = timeout_at(deadline, watch.wait_for(|now| *now > applied)).await;
            if !matches!(advanced, Ok(Ok(_))) {
                return Err(Value::error(format!(
                    "BUSY too many writes wait to be applied, for over {} ms; nothing was \
                     written, try again",
                    self.commit_timeout.as_millis()
                )));
            }
        }
    }

    fn evaluate(
        &self,
        batch: &mut Batch,
        commands: &[Command],
    ) -> Result<(Vec<Reply>, Waits), Refusal> {
        let writes = commands.iter().any(Command::is_write);
        let mut stage = self.lock();
        let Some(epoch) = self.leadership.borrow().open else {
            drop(stage);
            return self.read(commands, writes);
        };
        if !batch.is_of(epoch) {
            return Err(Refusal::ReadOnly);
        }
        stage.enter(epoch);
        let applied = *self.applied.borrow();
        stage.evaluator.forget_applied(applied);
        if writes && stage.evaluator.is_full() {
            return Err(Refusal::Full(applied));
        }
        let mut evaluation = stage.evaluator.evaluate(commands, clock_ms());
        let replies = std::mem::take(&mut evaluation.replies);
        let Some(effects) = &evaluation.effects else {
            return Ok((replies, Waits::Round { saw: evaluation.saw }));
        };
        let proposed = self.node.propose(epoch, effects).map_err(refused)?;
        stage.evaluator.record(&evaluation, proposed.end);
        Ok((replies, Waits::Commit { end: proposed.end }))
    }

    /// Reads of a node that does not lead: of what it has applied, which is committed.
    fn read(&self, commands: &[Command], writes: bool) -> Result<(Vec<Reply>, Waits), Refusal> {
        if writes {
            return Err(Refusal::ReadOnly);
        }
        let now_ms = clock_ms();
        let replies =
            commands.iter().map(|command| towline_engine::read(&self.store, command, now_ms));
        Ok((replies.collect(), Waits::Nothing))
    }

    /// Waits until everything in the batch may be seen, and gives its replies. Those for which
    /// the wait failed become errors.
    pub async fn settle(&self, batch: Batch) -> Settled {
        let Some(epoch) = batch.epoch() else {
            return batch.into_settled(|_| None, false);
        };
        let highest = batch.highest();
        let committed =
            if highest == Lsn::ZERO { Ok(()) } else { self.node.committed(epoch, highest).await };
        let current = match committed {
            Ok(()) if batch.needs_round() => self.node.read_round(epoch).await,
            other => other,
        };
        let deposed =
            committed.or(current) == Err(WaitError::Deposed) || current == Err(WaitError::Deposed);
        batch.into_settled(
            |waits| match (waits, committed, current) {
                (Waits::Commit { end }, Err(error), _) => self.unsettled(epoch, end, error),
                (Waits::Round { .. }, _, Err(error)) => Some(self.unconfirmed(error)),
                _ => None,
            },
            deposed,
        )
    }

    /// The error for a write whose wait failed, unless its fate is known to be good: a batch
    /// waits for its last write, and earlier ones may be committed.
    fn unsettled(&self, epoch: Epoch, end: Lsn, error: WaitError) -> Option<Value> {
        let token = self.token(epoch, end);
        if self.node.verdict(token) == Verdict::Committed {
            return None;
        }
        let cause = match error {
            WaitError::Timeout => {
                format!("not acknowledged within {} ms", self.commit_timeout.as_millis())
            }
            WaitError::Deposed => "not acknowledged before this node was deposed".to_owned(),
        };
        Some(Value::error(format!(
            "INDETERMINATE {cause}; the write may still commit; ask TOWLINE VERDICT {}",
            token::text(token)
        )))
    }

    fn unconfirmed(&self, error: WaitError) -> Value {
        match error {
            WaitError::Timeout => Value::error(format!(
                "UNCONFIRMED too few voters confirmed within {} ms that this node still leads; \
                 nothing was written, try again",
                self.commit_timeout.as_millis()
            )),
            WaitError::Deposed => self.read_only(),
        }
    }

    /// The error for a write to a node that may not write.
    #[must_use]
    pub fn read_only(&self) -> Value {
        let primary = self.leadership.borrow().primary;
        let known = primary.and_then(|node| Some((node, self.node.peers().get(&node)?)));
        let primary = match known {
            Some((node, _)) if node == self.node.id() => {
                "This node is about to be the primary and not open yet".to_owned()
            }
            Some((node, peer)) => format!("Primary is {node} at {}", peer.resp),
            None => "No primary is known at the moment".to_owned(),
        };
        Value::error(format!("READONLY You can't write against a read only replica. {primary}"))
    }

    /// Whether this node may write now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.leadership.borrow().open.is_some()
    }

    /// The token of a write of this node in `epoch`, whose record ends at `end`.
    #[must_use]
    pub fn token(&self, epoch: Epoch, end: Lsn) -> Token {
        Token { log: self.log, epoch, end }
    }

    /// Drops the effects of an epoch as soon as it is over, rather than with the first command of
    /// the next. Ends when the node does.
    pub async fn drop_effects_on_demotion(&self) {
        let mut leadership = self.leadership.clone();
        while leadership.changed().await.is_ok() {
            let mut stage = self.lock();
            // Looked at under the lock: an epoch that opens meanwhile keeps its effects.
            let open = leadership.borrow_and_update().open;
            if stage.epoch != open {
                stage.evaluator.clear();
                stage.epoch = None;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().expect("no evaluation has panicked: what it left could not be trusted")
    }
}

impl Stage {
    /// Effects proposed in another epoch may have been cut.
    fn enter(&mut self, epoch: Epoch) {
        if self.epoch != Some(epoch) {
            self.evaluator.clear();
            self.epoch = Some(epoch);
        }
    }
}

fn clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn refused(error: ProposeError) -> Refusal {
    match error {
        ProposeError::NotPrimary(_) => Refusal::ReadOnly,
        ProposeError::TooLarge { len, max } => Refusal::Error(Value::error(format!(
            "ERR the write takes a record of {len} bytes of at most {max}; nothing was written"
        ))),
        ProposeError::Log(reason) => Refusal::Error(Value::error(format!(
            "MISCONF the log cannot take writes: {reason}; nothing was written"
        ))),
    }
}
