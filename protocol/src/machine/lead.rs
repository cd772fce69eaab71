//! A primary's part: whom to serve, what is committed, and whether it still leads.

use super::{Action, Machine, Reason, Role, Timing};
use crate::epoch::Epoch;
use crate::frame::{
    Ack, Body, Heartbeat, Hello, PROTOCOL_VERSION, Positions, Purpose, Refusal, Welcome,
};
use crate::id::NodeId;
use crate::lsn::Lsn;
use crate::record::Digest;
use crate::tally::Tally;

/// A primary is thought to have its quorum while W voters were heard within so many heartbeats.
const QUORUM_HEARTBEATS: u64 = 5;

/// A primary's state.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) epoch: Epoch,
    /// The end of the BARRIER: nothing is committed in this epoch before it is.
    pub(super) barrier_end: Lsn,
    /// Whether clients are served: the BARRIER is committed and applied.
    pub(super) open: bool,
    pub(super) tally: Tally,
    /// The number of the newest heartbeat.
    number: u64,
    /// The newest heartbeat that a round waits for; `seen <= number`.
    seen: u64,
    /// Whether reads wait for a round that begins when the running one ends.
    again: bool,
    /// Since when a voter obeys a higher epoch than this one.
    refused_ms: Option<u64>,
}

impl Leading {
    pub(super) const fn new(epoch: Epoch, barrier_end: Lsn, tally: Tally) -> Self {
        Self {
            epoch,
            barrier_end,
            open: false,
            tally,
            number: 1,
            seen: 0,
            again: false,
            refused_ms: None,
        }
    }

    pub(super) fn has_quorum(&self, timing: &Timing, now_ms: u64) -> bool {
        self.open && self.hears_w(timing, now_ms)
    }

    fn hears_w(&self, timing: &Timing, now_ms: u64) -> bool {
        let patience_ms = QUORUM_HEARTBEATS * timing.heartbeat_ms;
        self.tally.heard_by_w_ms(now_ms) + patience_ms >= now_ms
    }
}

/// A read round can not be had: this node does not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRound;

impl Machine {
    /// The answer to a node that dials this one. The driver fills in the digest of this log at
    /// the position the answer names; the node that asked compares it with its own.
    #[must_use]
    pub fn handle_hello(&mut self, hello: &Hello, now_ms: u64) -> Welcome {
        self.now_ms = self.now_ms.max(now_ms);
        if let Some((refusal, reason)) = self.foreign(hello) {
            return Welcome::Refuse(refusal, reason);
        }
        self.highest = self.highest.max(hello.fence);
        match hello.purpose {
            Purpose::Ask => Welcome::Ready,
            Purpose::Fetch(epoch) if self.fence_durable == epoch && self.fence == epoch => {
                self.match_logs(hello, self.flushed, Some(self.flushed))
            }
            Purpose::Fetch(epoch) => {
                let reason = format!("epoch {epoch} is not obeyed here, {} is", self.fence);
                Welcome::Refuse(Refusal::Stale, reason)
            }
            Purpose::Stream => self.serve(hello),
        }
    }

    fn serve(&mut self, hello: &Hello) -> Welcome {
        let (fence, primary) = (self.fence, self.primary());
        let now_ms = self.now_ms;
        let Role::Leading(leading) = &mut self.role else { return Welcome::Redirect(primary) };
        if leading.epoch != fence {
            return Welcome::Redirect(None);
        }
        if hello.fence > leading.epoch {
            leading.refused_ms.get_or_insert(now_ms);
            let reason = format!("{} obeys {}, above {}", hello.node, hello.fence, leading.epoch);
            return Welcome::Refuse(Refusal::Stale, reason);
        }
        let voter = leading.tally.voters().get(hello.node);
        if let Some(voter) = voter.filter(|voter| voter.incarnation != hello.incarnation) {
            let reason = format!(
                "{} comes with incarnation {}, but {} is the one that counts; its disk was \
                 replaced: grant the new one first",
                hello.node, hello.incarnation, voter.incarnation
            );
            return Welcome::Refuse(Refusal::Incarnation, reason);
        }
        let acked = leading.tally.progress().get(&hello.node).map(|known| known.flushed);
        if let Some(acked) = acked.filter(|acked| *acked > hello.end) {
            let reason = format!(
                "{} acknowledged up to {acked} in epoch {} and now holds {}: its disk lost writes",
                hello.node, leading.epoch, hello.end
            );
            return Welcome::Refuse(Refusal::LostAcked, reason);
        }
        self.match_logs(hello, self.appended, None)
    }

    /// STREAM or TRUNCATE: the last common entry of both histories, the lower of its two ends.
    fn match_logs(&self, hello: &Hello, end: Lsn, until: Option<Lsn>) -> Welcome {
        let common = self.history.common_point(end, &hello.history, hello.end);
        if hello.committed > common.end {
            let reason = format!(
                "{} has committed up to {}, but the logs part at {} ({}); its epochs \
                 {:?}, ours {:?}",
                hello.node,
                hello.committed,
                common.end,
                common.epoch,
                hello.history.starts(),
                self.history.starts()
            );
            return Welcome::Refuse(Refusal::Diverged, reason);
        }
        let digest = Digest::EMPTY;
        if common.end == hello.end {
            Welcome::Stream { from: common.end, digest, until }
        } else {
            Welcome::Truncate { to: common.end, digest }
        }
    }

    fn foreign(&self, hello: &Hello) -> Option<(Refusal, String)> {
        let me = &self.identity;
        if hello.version != PROTOCOL_VERSION {
            let reason = format!(
                "{} speaks protocol {}, {} speaks {PROTOCOL_VERSION}: upgrade the older of the two",
                hello.node, hello.version, me.node
            );
            return Some((Refusal::Version, reason));
        }
        if hello.cluster != me.cluster {
            let reason = format!(
                "{} is of cluster {}, {} of {}: correct the address in its configuration",
                hello.node, hello.cluster, me.node, me.cluster
            );
            return Some((Refusal::Cluster, reason));
        }
        if hello.segment_size != me.segment_size {
            let reason = format!(
                "{} has segments of {} bytes, {} of {}: its folder was founded for another log",
                hello.node,
                hello.segment_size.bytes(),
                me.node,
                me.segment_size.bytes()
            );
            return Some((Refusal::SegmentSize, reason));
        }
        None
    }

    /// A replica's ack. `false` if it is of another epoch or of a life that does not count.
    pub fn handle_ack(&mut self, from: NodeId, epoch: Epoch, ack: &Ack, now_ms: u64) -> bool {
        self.now_ms = self.now_ms.max(now_ms);
        let Role::Leading(leading) = &mut self.role else { return false };
        let voter = leading.tally.voters().get(from);
        let counts = voter.is_none_or(|voter| voter.incarnation == ack.incarnation);
        // More than was ever appended is a lie or a bug; counting it would commit the future.
        if epoch != leading.epoch || !counts || ack.flushed > self.appended {
            return false;
        }
        leading.tally.merge(from, ack, self.now_ms);
        self.count();
        true
    }

    /// The BARRIER of `epoch` is appended and ends at `end`.
    pub fn handle_barrier(&mut self, epoch: Epoch, end: Lsn, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if epoch != self.fence || !matches!(self.role, Role::Candidate(_)) {
            return;
        }
        let tally = Tally::new(self.identity.node, self.voters.clone());
        self.role = Role::Leading(Leading::new(epoch, end, tally));
        self.claims = true;
        self.attempts = 0;
        self.handle_appended(end);
        self.count();
    }

    /// The commit rule: `committed` moves once W voters have flushed, the current epoch's BARRIER
    /// included (Raft §5.4.2: what an older epoch left behind commits only with it).
    pub(super) fn count(&mut self) {
        let Role::Leading(leading) = &mut self.role else { return };
        if leading.epoch != self.fence {
            return; // Fenced: not even the own flush counts any more.
        }
        let reached = leading.tally.flushed_by_w(self.flushed);
        let barrier_end = leading.barrier_end;
        let seen = leading.tally.seen_by_w(leading.number);
        leading.seen = leading.seen.max(seen);
        if leading.again && leading.seen == leading.number {
            leading.again = false;
            leading.number += 1;
            leading.seen = leading.seen.max(leading.tally.seen_by_w(leading.number));
        }
        if reached >= barrier_end {
            self.commit(reached.min(self.appended));
        }
        self.open_if_ready();
    }

    pub(super) fn open_if_ready(&mut self) {
        let Role::Leading(leading) = &mut self.role else { return };
        let ready = self.committed >= leading.barrier_end && self.applied >= leading.barrier_end;
        if ready && !leading.open && leading.epoch == self.fence {
            leading.open = true;
            self.actions.push_back(Action::Open(leading.epoch));
            self.actions.push_back(Action::Ended(Ok(leading.epoch)));
        }
    }

    /// The news for every replica: its epoch, its number, and what it says.
    #[must_use]
    pub fn heartbeat(&self) -> Option<(Epoch, u64, Heartbeat)> {
        match &self.role {
            Role::Leading(leading) if leading.epoch == self.fence => {
                let news = Heartbeat { committed: self.committed, appended: self.appended };
                Some((leading.epoch, leading.number, news))
            }
            _ => None,
        }
    }

    /// Asks for a read round: what was evaluated before is current once [`Machine::rounds_seen`]
    /// has reached the number. A running round began too early to serve; the next one serves
    /// every read that is waiting by then.
    ///
    /// # Errors
    /// [`RetryRound`] if this node does not lead.
    pub fn request_round(&mut self) -> Result<u64, RetryRound> {
        let Role::Leading(leading) = &mut self.role else { return Err(RetryRound) };
        if leading.epoch != self.fence {
            return Err(RetryRound);
        }
        let wanted = leading.number + 1;
        if leading.seen == leading.number {
            leading.number = wanted;
            self.count(); // A single voter is its own commit set.
        } else {
            leading.again = true;
        }
        Ok(wanted)
    }

    /// Every round up to this one is over: a commit set has echoed it in this node's epoch.
    #[must_use]
    pub const fn rounds_seen(&self) -> u64 {
        match &self.role {
            Role::Leading(leading) => leading.seen,
            _ => 0,
        }
    }

    /// Without its quorum a primary asks where the voters stand: whoever replaced it has no reason
    /// to call on it, and none of its replicas may be left to tell it. Once a voter is known to
    /// obey a higher epoch, and nobody leads in it for a while, it takes a new one.
    pub(super) fn keep_leading(&mut self) {
        let Role::Leading(leading) = &self.role else { return };
        let refused_ms = leading.refused_ms.unwrap_or(self.now_ms);
        if self.now_ms.saturating_sub(refused_ms) >= self.timing.candidate_ms {
            self.step_down();
            return self.start_candidacy(Reason::Retake);
        }
        if !leading.hears_w(&self.timing, self.now_ms) {
            let me = self.identity.node;
            let others = self.voters.members().iter().map(|voter| voter.node);
            let ask = self.frame(self.fence, Body::Ask);
            let asks =
                others.filter(|node| *node != me).map(|node| Action::Send(node, ask.clone()));
            self.actions.extend(asks);
        }
    }

    /// A voter answers a primary that lacks its quorum.
    pub(super) fn learn_of_others(&mut self, positions: &Positions) {
        let now_ms = self.now_ms;
        let Role::Leading(leading) = &mut self.role else { return };
        if positions.fence > leading.epoch {
            leading.refused_ms.get_or_insert(now_ms);
        }
        let epoch = leading.epoch;
        let newer = positions.known_primary.filter(|known_primary| {
            known_primary.epoch > epoch && known_primary.age_ms < self.timing.candidate_ms
        });
        if let Some(known_primary) = newer {
            self.step_down();
            self.hear(known_primary.node, known_primary.epoch);
        }
    }
}
