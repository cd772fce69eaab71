//! The replica's path: from a primary's stream to this log.
//!
//! Dial, match logs, cut what the primary does not have, then take records until the stream
//! breaks; then dial again. A candidate fetches the longest log the same way.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{Purpose, Refusal, Welcome};
use towline_protocol::id::NodeId;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{Decision, Machine, RoleView};
use towline_protocol::record::Digest;
use towline_wal::WalError;

use crate::calls::Dialled;
use crate::inbound::digest_at;
use crate::refusals::PeerError;
use crate::shared::{Gate, Shared};

/// The pause between two dials, while a primary is expected any moment.
const PAUSE: Duration = Duration::from_millis(20);
/// The pause after a refusal that only an operator can end.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// Each time so many answers have led nowhere, another node is asked.
const REDIALS_PER_TURN: u32 = 50;

/// How one attempt to follow ended.
enum Ended {
    /// The log must be cut; then dial again.
    Cut(Lsn),
    /// Dial that node, or any other.
    Redial(Option<NodeId>),
    /// The stream broke or could not be had, for this reason.
    Broken(PeerError),
    /// Only an operator can help.
    Refused(PeerError),
    /// Everything that was to be fetched is here.
    Complete,
}

/// Follows whoever leads, until `stop`.
pub(crate) async fn follow(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut search = Search::default();
    loop {
        let following = shared.look(|machine| matches!(machine.role(), RoleView::Replica { .. }));
        // A deposed primary follows only once nothing of its own can be appended any more.
        let shut = *shared.gate.read().unwrap_or_else(PoisonError::into_inner) == Gate::Shut;
        let target = if following && shut { search.target(&shared) } else { None };
        let pause = match target {
            None => PAUSE,
            Some(node) => {
                let ended = tokio::select! {
                    _ = stop.changed() => return,
                    ended = follow_once(&shared, node, Purpose::Stream) => ended,
                };
                search.settle(&shared, node, ended).await
            }
        };
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Whom to dial: the primary or candidate heard last, as long as it answers; else each in turn.
#[derive(Default)]
struct Search {
    /// Where a redirect or a cut points.
    hint: Option<NodeId>,
    /// Whether the node heard last was of no use the last time.
    wander: bool,
    /// Answers that led nowhere.
    redials: u32,
    turn: usize,
    /// The trouble that was said last.
    said: String,
}

impl Search {
    fn target(&mut self, shared: &Shared) -> Option<NodeId> {
        let me = shared.identity.node;
        let heard = shared.look(Machine::primary).filter(|node| *node != me);
        let wander = std::mem::take(&mut self.wander);
        if let Some(node) = self.hint.take().or_else(|| heard.filter(|_| !wander)) {
            return Some(node);
        }
        let mut others = shared.config.peers.keys().filter(|node| **node != me);
        self.turn += 1;
        let nth = self.turn % others.clone().count().max(1);
        others.nth(nth).copied()
    }

    /// Makes the best of how an attempt ended, and says how long to pause.
    async fn settle(&mut self, shared: &Arc<Shared>, node: NodeId, ended: Ended) -> Duration {
        let (error, pause) = match ended {
            Ended::Complete => return PAUSE,
            Ended::Redial(to) => {
                // A candidate says so until its BARRIER stands: worth asking again, for a while.
                self.redials += 1;
                self.wander = self.redials % REDIALS_PER_TURN == 0;
                self.hint = to;
                return PAUSE;
            }
            Ended::Cut(to) => {
                if let Err(reason) = cut(shared, to).await {
                    shared.fail(reason);
                }
                self.hint = Some(node);
                return Duration::ZERO;
            }
            Ended::Broken(error) => (error, PAUSE),
            Ended::Refused(error) => (error, LONG_PAUSE),
        };
        self.wander = true;
        shared.count(&error);
        let reason = error.to_string();
        // The same trouble again and again is said once.
        if reason != self.said {
            tracing::info!(node = %shared.identity.node, peer = %node, "not following: {reason}");
            *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = reason.clone();
            self.said = reason;
        }
        pause
    }
}

/// Fetches the rest of `node`'s log as the candidate of `epoch`.
pub(crate) async fn fetch(
    shared: &Arc<Shared>,
    node: NodeId,
    epoch: Epoch,
    mut stop: watch::Receiver<bool>,
) -> Result<(), String> {
    loop {
        let ended = tokio::select! {
            _ = stop.changed() => return Err("overtaken by a higher epoch".to_owned()),
            ended = follow_once(shared, node, Purpose::Fetch(epoch)) => ended,
        };
        match ended {
            Ended::Complete => return Ok(()),
            Ended::Cut(to) => cut(shared, to).await?,
            Ended::Redial(_) => return Err(format!("{node} does not lend its log")),
            Ended::Broken(error) | Ended::Refused(error) => {
                shared.count(&error);
                return Err(error.to_string());
            }
        }
    }
}

async fn cut(shared: &Arc<Shared>, to: Lsn) -> Result<(), String> {
    let report = shared.cut(to).await?;
    *shared.cut_bytes.lock().unwrap_or_else(PoisonError::into_inner) += report.bytes;
    tracing::warn!(
        node = %shared.identity.node,
        "cut {} bytes ({} records) from {} on: they were never committed. Kept in {}",
        report.bytes,
        report.records,
        report.to,
        report.bundle.display()
    );
    Ok(())
}

async fn follow_once(shared: &Arc<Shared>, node: NodeId, purpose: Purpose) -> Ended {
    match try_follow(shared, node, purpose).await {
        Ok(ended) => ended,
        Err(error) => Ended::Broken(error),
    }
}

async fn try_follow(
    shared: &Arc<Shared>,
    node: NodeId,
    purpose: Purpose,
) -> Result<Ended, PeerError> {
    // A hello speaks of what is on disk, so everything that was received is flushed first.
    let wal = shared.wal();
    let flushed = shared.platform.blocking(move || wal.flush()).await??;
    let hello = shared.tell(|machine, _| {
        machine.handle_flushed(flushed);
        machine.hello(purpose)
    });
    let dialled = shared.dial(node, hello).await?;
    let decision = shared.tell(|machine, _| {
        machine.handle_welcome(node, dialled.epoch, purpose, dialled.answer.clone())
    });
    let said_so = matches!(dialled.answer, Welcome::Refuse(..));
    let refused = if said_so { PeerError::Refused } else { PeerError::TurnedAway };
    match decision {
        Decision::Redial(to) => Ok(Ended::Redial(to)),
        Decision::Refused(kind @ (Refusal::Busy | Refusal::Stale), reason) => {
            Ok(Ended::Broken(refused(kind, reason)))
        }
        Decision::Refused(kind, reason) => Ok(Ended::Refused(refused(kind, reason))),
        Decision::Quarantined(reason) => Ok(Ended::Refused(refused(Refusal::Diverged, reason))),
        Decision::Snapshot { oldest } => Ok(Ended::Refused(PeerError::Trimmed(oldest))),
        Decision::Cut { epoch, to, digest } => {
            if !same_log(shared, node, to, digest).await? {
                return Ok(Ended::Refused(PeerError::OtherRecords(to)));
            }
            adopt(shared, epoch).await?;
            dialled.connection.close(0, "cutting");
            Ok(Ended::Cut(to))
        }
        Decision::Stream { epoch, from, digest, until } => {
            if !same_log(shared, node, from, digest).await? {
                return Ok(Ended::Refused(PeerError::OtherRecords(from)));
            }
            adopt(shared, epoch).await?;
            take(shared, node, epoch, (from, until), dialled).await
        }
    }
}

/// Compares this log with a peer's by digest: Lsns and epochs agree by now, contents must too.
async fn same_log(
    shared: &Arc<Shared>,
    node: NodeId,
    at: Lsn,
    theirs: Digest,
) -> Result<bool, PeerError> {
    let ours = digest_at(shared, &shared.wal(), at).await?;
    if ours != theirs {
        let reason = format!(
            "the log of {node} and this one have the same epochs up to {at}, but not the same \
             records ({:016x} and {:016x}): one of the two is damaged. Verify both with \
             `towline wal verify`, then rebuild the damaged node",
            theirs.0, ours.0
        );
        shared.tell(|machine, _| machine.quarantine(reason));
    }
    Ok(ours == theirs)
}

/// Obeys a primary's epoch durably, before the first ack in it can leave. Once it is on disk the
/// rules know, even if nobody waits for it any more.
async fn adopt(shared: &Arc<Shared>, epoch: Epoch) -> Result<(), PeerError> {
    if shared.wal().control().fence >= epoch {
        return Ok(());
    }
    let on = Arc::clone(shared);
    let obey = move || {
        on.update_control(|control| control.fence = control.fence.max(epoch))?;
        on.tell(|machine, _| machine.handle_adopted(epoch));
        Ok::<_, WalError>(())
    };
    shared.platform.blocking(obey).await??;
    Ok(())
}

/// Takes records until the stream breaks or `until` is here.
async fn take(
    shared: &Arc<Shared>,
    node: NodeId,
    epoch: Epoch,
    (from, until): (Lsn, Option<Lsn>),
    mut dialled: Dialled,
) -> Result<Ended, PeerError> {
    let fetching = until.is_some();
    let begun =
        fetching || shared.tell(|machine, now_ms| machine.begin_session(node, epoch, now_ms));
    if !begun {
        return Ok(Ended::Redial(None));
    }
    let _session = LiveSession { shared, node, epoch };
    let wal = shared.wal();
    let accepts = || shared.look(|machine| fetching || machine.accepts(epoch));
    let grown = |_| learn_history(shared);
    let hear = |frame: &_, news: &_| {
        let took = shared.tell(|machine, now_ms| machine.handle_heartbeat(frame, news, now_ms));
        shared.repeat_ack();
        took
    };
    let tail = async {
        // The stream opens with its first record; until then there is only news.
        let mut stream = dialled.connection.accept_uni().await?;
        let taken =
            towline_receiver::receive_tail(&wal, node, epoch, until, &mut stream, accepts, grown);
        Ok::<_, PeerError>(taken.await?)
    };
    if fetching {
        if until.is_some_and(|until| from < until) {
            tail.await?;
        }
        return finish_fetch(shared).await;
    }
    shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clear();
    tracing::info!(node = %shared.identity.node, peer = %node, %epoch, "follows");
    let acks = shared.acks.subscribe();
    let from_peer = (node, shared.identity.log);
    let ended = tokio::select! {
        ended = tail => ended.err(),
        ended = towline_receiver::take_news(from_peer, &mut dialled.receiver, hear) => {
            ended.err().map(PeerError::from)
        }
        ended = towline_receiver::send_acks(node, epoch, acks, &mut dialled.sender) => {
            ended.err().map(PeerError::from)
        }
    };
    dialled.connection.close(0, "over");
    Ok(Ended::Broken(ended.unwrap_or(PeerError::Hangup)))
}

async fn finish_fetch(shared: &Arc<Shared>) -> Result<Ended, PeerError> {
    let wal = shared.wal();
    let end = shared.platform.blocking(move || wal.flush()).await??;
    learn_history(shared);
    shared.tell(|machine, now_ms| machine.handle_fetched(end, now_ms));
    Ok(Ended::Complete)
}

/// Tells the rules of a BARRIER the log has taken.
fn learn_history(shared: &Shared) {
    let wal = shared.wal();
    if wal.last_epoch() != shared.look(|machine| machine.last_epoch()) {
        let (history, terms) = (wal.history(), wal.terms());
        shared.tell(|machine, _| machine.handle_history(history, terms));
    }
}

/// Ends the session with the rules however the stream ends, a cancelled task included.
struct LiveSession<'a> {
    shared: &'a Shared,
    node: NodeId,
    epoch: Epoch,
}

impl Drop for LiveSession<'_> {
    fn drop(&mut self) {
        self.shared.tell(|machine, _| machine.end_session(self.node, self.epoch));
    }
}
