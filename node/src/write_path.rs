//! The write path: from a payload to its acknowledgement, on the primary.
//!
//! ```text
//! propose ─▶ wal.append ─┬─▶ the log's syncer: fdatasync ─▶ flushed ─┐
//!                        └─▶ shipper ─▶ replica's log ─▶ fdatasync ──┴▶ acks ─▶ commit rule
//! committed ◀──────────────────────────── acknowledged ◀──────────────────────────┘
//! ```
//!
//! The local flush and the replicas' run at the same time; whichever W voters finish first commit
//! the record.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;
use towline_protocol::epoch::Epoch;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::Verdict;
use towline_protocol::record::RecordKind;

use crate::error::{ProposeError, WaitError};
use crate::node::Node;
use crate::shared::{Acknowledged, Gate, Shared};

/// A record that is in the primary's log, and not committed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposed {
    /// Where it lies.
    pub lsn: Lsn,
    /// Where it ends: the position to wait for.
    pub end: Lsn,
}

impl Node {
    /// Appends one record of the engine's, if this node is the open primary of `epoch`.
    ///
    /// It neither waits nor suspends, so that it may be called under the lock that orders a
    /// store's evaluations: the log's order is the order of these calls.
    ///
    /// # Errors
    /// [`ProposeError`]: the record is not in the log.
    pub fn propose(&self, epoch: Epoch, payload: &[u8]) -> Result<Proposed, ProposeError> {
        let max = self.max_payload();
        if payload.len() > max {
            return Err(ProposeError::TooLarge { len: payload.len(), max });
        }
        let shared = self.shared();
        // Held while appending: who closes the gate knows that no append is under way.
        let gate = shared.gate.read().unwrap_or_else(PoisonError::into_inner);
        if *gate != Gate::Open(epoch) {
            return Err(ProposeError::NotPrimary(epoch));
        }
        let appended = shared.wal().append(RecordKind::Data, 0, payload);
        let appended = appended.map_err(ProposeError::Log)?;
        Ok(Proposed { lsn: appended.lsn, end: appended.end })
    }

    /// The longest payload [`Node::propose`] takes, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        let of_log = self.shared().identity.segment_size.max_payload();
        let of_record = u64::from(towline_protocol::record::RECORD_PAYLOAD_MAX);
        usize::try_from(of_log.min(of_record)).unwrap_or(usize::MAX)
    }

    /// Waits until everything below `end` is committed while this node leads in `epoch`.
    ///
    /// # Errors
    /// [`WaitError`]: whether it is or will be committed is not known.
    pub async fn committed(&self, epoch: Epoch, end: Lsn) -> Result<(), WaitError> {
        let shared = self.shared();
        match wait(shared, epoch, shared.config.commit_timeout, |now| now.committed >= end).await {
            // It handed over so soon that the moment in between was not seen.
            Err(WaitError::Deposed)
                if shared.look(|machine| machine.verdict(epoch, end)) == Verdict::Committed =>
            {
                Ok(())
            }
            waited => waited,
        }
    }

    /// Waits until a commit set has answered a heartbeat that was sent after this call began:
    /// so no other primary had opened by then, and what was evaluated before the call was
    /// current. One round serves everybody who waits.
    ///
    /// # Errors
    /// [`WaitError`]: what was evaluated may be stale.
    pub async fn read_round(&self, epoch: Epoch) -> Result<(), WaitError> {
        let shared = self.shared();
        let round = shared.tell(|machine, _| machine.request_round());
        let round = round.map_err(|_| WaitError::Deposed)?;
        wait(shared, epoch, shared.config.commit_timeout, |now| now.rounds >= round).await
    }
}

async fn wait(
    shared: &Shared,
    epoch: Epoch,
    patience: Duration,
    reached: impl Fn(&Acknowledged) -> bool,
) -> Result<(), WaitError> {
    let mut acknowledged: watch::Receiver<Acknowledged> = shared.acknowledged.subscribe();
    let done = |now: &Acknowledged| now.leads != Some(epoch) || reached(now);
    // Most of what is waited for has happened by the time a batch is looked at: no timer then.
    if !done(&acknowledged.borrow_and_update()) {
        let waited = tokio::time::timeout(patience, acknowledged.wait_for(done)).await;
        if waited.map_err(|_| WaitError::Timeout)?.is_err() {
            return Err(WaitError::Deposed);
        }
    }
    let now = *acknowledged.borrow();
    // Both in one value: a position reached by another epoch's primary is not this one's.
    if now.leads == Some(epoch) && reached(&now) { Ok(()) } else { Err(WaitError::Deposed) }
}
