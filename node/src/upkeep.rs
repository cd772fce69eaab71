//! What a log needs while it runs: its beginning is taken off when nobody needs it any longer, and
//! what is long on the disk is read again.
//!
//! Nothing is taken off unless the operator bounds what is kept: a replica that is past the bound
//! needs a snapshot, and there are none yet.

use std::collections::BTreeMap;
use std::error::Error;
use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use towline_protocol::id::NodeId;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::RoleView;
use towline_wal::{Damage, Scrub, SegmentCheck, Wal, WalError};

use crate::opening::log_dir;
use crate::shared::Shared;

/// The slot of this node's own engine. No node has that name.
const ENGINE_SLOT: &str = "@engine";
/// At most so many segments are taken off at a time: fences wait for that.
const SEGMENTS_AT_ONCE: u64 = 16;
/// So many damaged segments are remembered, the oldest.
const DAMAGED_MAX: usize = 64;

/// How a node looks after its log.
#[derive(Clone, Copy, Debug)]
pub struct Upkeep {
    /// The most stored bytes of the log that are kept for a replica. Without a bound, `None`, the
    /// whole log is kept. One that is further behind can not follow any more.
    pub keep_bytes_max: Option<u64>,
    /// How often the log's beginning is looked at.
    pub every: Duration,
    /// How fast the log is read again in the background to find what rotted; not at all if `None`.
    pub scrub_bytes_per_s: Option<NonZeroU64>,
    /// The pause before every pass over the whole log.
    pub scrub_every: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            keep_bytes_max: None,
            every: Duration::from_secs(10),
            scrub_bytes_per_s: NonZeroU64::new(8 << 20),
            scrub_every: Duration::from_secs(600),
        }
    }
}

/// What reading the log again has found, by segment.
pub(crate) type Damaged = BTreeMap<Lsn, Vec<Damage>>;

/// Looks after the beginning of the log, until the node stops.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut told = String::new();
    while !stops_within(&shared, shared.config.upkeep.every).await {
        let on = Arc::clone(&shared);
        let kept = shared.platform.blocking(move || on.keep_log()).await;
        let trouble = match kept {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        if !trouble.is_empty() && trouble != told {
            let node = shared.identity.node;
            tracing::warn!(%node, "what the log needs no more is not taken off: {trouble}");
        }
        told = trouble;
    }
}

/// Reads the log again, pass after pass, until the node stops.
pub(crate) async fn scrub(shared: Arc<Shared>) {
    let pace = shared.config.upkeep.scrub_bytes_per_s;
    if pace.is_none() || !shared.platform.has_threads() {
        return;
    }
    while !stops_within(&shared, shared.config.upkeep.scrub_every).await {
        let mut pass = Some(shared.wal().scrub(pace));
        while let Some(scrub) = pass {
            pass = scrub_one(&shared, scrub).await;
        }
    }
}

/// Reads one segment again; gives the pass back if there is more of it.
async fn scrub_one(shared: &Arc<Shared>, mut pass: Scrub) -> Option<Scrub> {
    let reading = shared.platform.blocking(move || {
        let checked = pass.next();
        (pass, checked)
    });
    let mut stopping = shared.stopping.subscribe();
    let (pass, checked) = tokio::select! {
        // It ends by itself when the log is closed, which does not wait for it.
        _ = stopping.wait_for(|stops| *stops) => return None,
        read = reading => read.ok()?,
    };
    match checked? {
        Ok(check) => {
            shared.note_check(check);
            Some(pass)
        }
        Err(WalError::Closed) => None,
        Err(error) => {
            tracing::warn!(node = %shared.identity.node, "reading the log again: {error}");
            None
        }
    }
}

/// Waits; whether the node stops meanwhile.
async fn stops_within(shared: &Shared, pause: Duration) -> bool {
    let mut stopping = shared.stopping.subscribe();
    tokio::time::timeout(pause, stopping.wait_for(|stops| *stops)).await.is_ok()
}

impl Shared {
    /// Moves the slots on, and takes off what none of them holds. Blocks.
    fn keep_log(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let upkeep = self.config.upkeep;
        let (leads, committed, replicas) = self.look(|machine| {
            let leads = matches!(machine.role(), RoleView::Primary { open: true });
            (leads, machine.committed(), machine.replicas())
        });
        if let Some(keep) = upkeep.keep_bytes_max {
            let (durable, applied) = (self.engine.durable(), *self.applied.borrow());
            if self.wal().stored_bytes_between(durable, applied) > keep {
                self.engine.checkpoint()?;
            }
        }
        let durable = self.engine.durable();
        // A cut replaces the log; what is done here is done to one of the two, and never half.
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let wal = self.wal();
        hold(&wal, ENGINE_SLOT, durable, None)?;
        let Some(keep) = upkeep.keep_bytes_max else { return Ok(()) };
        let oldest = wal.oldest().end;
        let mut to = committed.min(wal.flushed());
        let flushed = |peer: &NodeId| {
            let progress = replicas.iter().find(|(node, _)| leads && node == peer);
            progress.map(|(_, progress)| progress.flushed).filter(|flushed| *flushed >= oldest)
        };
        for peer in self.config.peers.keys().filter(|peer| **peer != self.identity.node) {
            match flushed(peer) {
                Some(flushed) => hold(&wal, peer.as_str(), flushed, Some(keep))?,
                // Nothing is known of it: as much is kept as it may be behind.
                None => to = to.min(kept_from(&wal, keep)),
            }
        }
        let first = wal.oldest().base;
        let size = wal.control().segment_size.bytes();
        to = to.min(first.advance(SEGMENTS_AT_ONCE.saturating_mul(size)));
        let trimmed = wal.trim(to)?;
        if trimmed.segments > 0 {
            let (node, oldest) = (self.identity.node, trimmed.oldest.end);
            tracing::info!(%node, segments = trimmed.segments, %oldest, "the log begins later now");
        }
        for slot in &trimmed.lagged {
            tracing::warn!(
                node = %self.identity.node,
                "{slot} is more than {keep} bytes behind: what it needs is gone, and it can not \
                 follow any more. Raise `keep_bytes_max` before it is another one's turn"
            );
        }
        self.tell(|machine, _| machine.handle_trimmed(wal.oldest().end));
        Ok(())
    }

    /// Remembers what a segment's check found, and says it once.
    fn note_check(&self, check: SegmentCheck) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if check.damaged.is_empty() {
            damaged.remove(&check.base);
            return;
        }
        if damaged.get(&check.base) == Some(&check.damaged) || damaged.len() >= DAMAGED_MAX {
            return;
        }
        for damage in &check.damaged {
            tracing::error!(
                node = %self.identity.node,
                "{} is damaged from {} to {}: {}. Stop this node and run `{}`",
                damage.path.display(),
                damage.from,
                damage.to,
                damage.what,
                self.repair_command()
            );
        }
        damaged.insert(check.base, check.damaged);
    }

    /// What mends this node's log.
    pub(crate) fn repair_command(&self) -> String {
        let dir = log_dir(&self.config.data_dir, self.identity.log);
        format!("towline wal repair {} --from FOLDER_OF_A_PEERS_LOG", dir.display())
    }

    /// The damage that was found and is still there.
    pub(crate) fn damage(&self) -> Vec<Damage> {
        let oldest = self.wal().oldest().base;
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.retain(|base, _| *base >= oldest);
        damaged.values().flatten().cloned().collect()
    }
}

/// Sees to it that the log is kept for `name` from `position` on.
fn hold(wal: &Wal, name: &str, position: Lsn, most: Option<u64>) -> Result<(), WalError> {
    let position = position.min(wal.appended());
    match wal.slots().iter().find(|slot| slot.name == name) {
        Some(slot) if !slot.lagged && slot.keep_bytes_max == most => {
            return wal.advance_slot(name, position);
        }
        // It was cut off and is back, or the bound was changed.
        Some(_) => wal.drop_slot(name)?,
        None => {}
    }
    wal.create_slot(name, position, most)
}

/// The base of the newest segment behind which more than `keep` bytes are stored.
fn kept_from(wal: &Wal, keep: u64) -> Lsn {
    let (oldest, flushed) = (wal.oldest().base, wal.flushed());
    let size = wal.control().segment_size;
    let mut base = size.base_of(flushed);
    while base > oldest && wal.stored_bytes_between(base, flushed) < keep {
        base = Lsn::new(base.get() - size.bytes());
    }
    base.max(oldest)
}

#[cfg(test)]
mod tests;
