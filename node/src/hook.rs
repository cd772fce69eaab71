//! The promotion hook: what an embedder or operator does around a takeover.

use std::time::Duration;

use towline_protocol::epoch::Epoch;
use towline_protocol::id::{LogId, NodeId};
use towline_protocol::lsn::Lsn;

/// What every call of a hook is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromotionContext {
    /// The log whose primary changes. With the new epoch and the phase it is the key under which
    /// a hook must be idempotent: a call may be repeated after a crash.
    pub log: LogId,
    /// The node that is being promoted.
    pub node: NodeId,
    /// The epoch of the log's last record.
    pub old_epoch: Epoch,
    /// The epoch the node is about to open. In `check` it is the one it would take now.
    pub new_epoch: Epoch,
    /// The end of the log that is taken over. In `check` it is this node's own end, which may
    /// still grow.
    pub final_lsn: Lsn,
    /// Whether the old primary handed over on purpose.
    pub planned: bool,
    /// Whether an operator accepted that acknowledged writes may be lost.
    pub possible_loss: bool,
    /// How long the call may take. A `pre_promote` that takes longer ends the promotion.
    pub deadline: Duration,
}

/// A hook's refusal, with a reason for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Veto(pub String);

/// Called around a promotion, on a thread of its own. Every method may be called again with the
/// same (log, new epoch).
pub trait PromotionHook: Send + Sync + 'static {
    /// Before anything moves. A veto leaves the cluster as it was.
    ///
    /// # Errors
    /// [`Veto`] to refuse the promotion.
    fn check(&self, _context: &PromotionContext) -> Result<(), Veto> {
        Ok(())
    }

    /// After the old primary is fenced and before the new one opens. A veto or a missed deadline
    /// ends this attempt; no write has been accepted in the new epoch.
    ///
    /// # Errors
    /// [`Veto`] to end the promotion.
    fn pre_promote(&self, _context: &PromotionContext) -> Result<(), Veto> {
        Ok(())
    }

    /// After the new primary has opened. It cannot veto.
    fn post_promote(&self, _context: &PromotionContext) {}
}

/// The hook that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHook;

impl PromotionHook for NoHook {}
