//! A primary's part: whom to serve, what is committed, and whether it still leads.

use super::candidate::Reason;
use super::hand_over::HandOver;
use super::promise::Sent;
use super::{Action, Machine, Role, Timing};
use crate::epoch::{CommonPoint, Epoch};
use crate::frame::{
    Ack, Body, Heartbeat, Hello, PROTOCOL_VERSION, Positions, Purpose, Refusal, Welcome,
};
use crate::id::NodeId;
use crate::lsn::Lsn;
use crate::planted::{Bug, planted};
use crate::record::Digest;
use crate::tally::Tally;

/// A primary is thought to have its quorum while W voters were heard within so many heartbeats.
pub(super) const QUORUM_HEARTBEATS: u64 = 5;

/// A primary's state.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) epoch: Epoch,
    /// Whether clients are served: the BARRIER is committed and applied.
    pub(super) open: bool,
    pub(super) tally: Tally,
    /// The hand-over under way.
    pub(super) hand_over: Option<HandOver>,
    /// When the newest heartbeats went out, for leases.
    pub(super) sent: Sent,
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
    pub(super) fn new(epoch: Epoch, tally: Tally) -> Self {
        Self {
            epoch,
            open: false,
            tally,
            hand_over: None,
            sent: Sent::default(),
            number: 1,
            seen: 0,
            again: false,
            refused_ms: None,
        }
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Whether the epoch was ended: its END is committed.
    pub(super) fn is_ended(&self) -> bool {
        self.hand_over.as_ref().is_some_and(HandOver::is_ended)
    }

    /// The next heartbeat.
    fn beat(&mut self, now_ms: u64) {
        self.number += 1;
        self.sent.note(self.number, now_ms);
    }

    /// Only heartbeats from here on ask for a promise, so no echo of an earlier one renews a lease.
    fn begin_leases(&mut self, now_ms: u64) {
        self.sent = Sent::default();
        self.beat(now_ms);
        self.count_echoes(now_ms); // A single voter is its own commit set.
    }

    /// How far W voters have echoed; begins the next round if one is waited for.
    fn count_echoes(&mut self, now_ms: u64) {
        self.seen = self.seen.max(self.tally.seen_by_w(self.number));
        if self.again && self.seen == self.number {
            self.again = false;
            self.beat(now_ms);
            self.seen = self.seen.max(self.tally.seen_by_w(self.number));
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
        self.heard_of(hello.fence);
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
        // Another life of a voter's disk is served like any replica: it counts once it is granted.
        let known = leading.tally.progress().get(&hello.node);
        let same_life = known.filter(|known| known.incarnation == hello.incarnation);
        let acked = same_life.map(|known| known.flushed);
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
        let common = if planted(Bug::ForkByLengthAlone) {
            CommonPoint { epoch: self.last_epoch(), end: end.min(hello.end) }
        } else {
            self.history.common_point(end, &hello.history, hello.end)
        };
        if let Some(refusal) = self.given_up(hello, common) {
            return refusal;
        }
        if hello.committed > common.end {
            let reason = format!(
                "{} has committed up to {}, but the logs part at {} ({}); its epochs {}, ours {}",
                hello.node, hello.committed, common.end, common.epoch, hello.history, self.history
            );
            return Welcome::Refuse(Refusal::Diverged, reason);
        }
        if common.end < self.oldest {
            return Welcome::Snapshot { oldest: self.oldest };
        }
        let digest = Digest::EMPTY;
        if common.end == hello.end {
            Welcome::Stream { from: common.end, digest, until }
        } else {
            Welcome::Truncate { to: common.end, digest }
        }
    }

    /// The refusal of a node that has committed what an operator gave up when an epoch of this log
    /// was opened: only an operator can say that it, too, gives that up.
    fn given_up(&self, hello: &Hello, common: CommonPoint) -> Option<Welcome> {
        let mut behind = self.history.starts().iter().rev();
        let lossy = behind.find(|start| start.accepted_loss && start.previous_end >= common.end)?;
        (hello.committed > common.end).then(|| {
            let reason = format!(
                "when epoch {} was opened an operator gave up what {} has committed from {} to {}: \
                 keep its folder aside, and found it anew",
                lossy.epoch, hello.node, common.end, hello.committed
            );
            Welcome::Refuse(Refusal::LossAccepted, reason)
        })
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

    /// A replica's ack. `false` if it is of another epoch, or cannot be.
    pub fn handle_ack(&mut self, from: NodeId, epoch: Epoch, ack: &Ack, now_ms: u64) -> bool {
        self.now_ms = self.now_ms.max(now_ms);
        let Role::Leading(leading) = &mut self.role else { return false };
        // More than was ever appended is a lie or a bug; counting it would commit the future.
        let ordered = ack.applied <= ack.flushed && ack.flushed <= ack.received;
        let possible = ordered && ack.received <= self.appended && ack.seen <= leading.number;
        if epoch != leading.epoch || !possible {
            return false;
        }
        leading.tally.merge(from, ack, self.now_ms);
        self.count();
        true
    }

    /// The BARRIER of `epoch` is appended and ends at `end`; [`Machine::handle_history`] came
    /// before.
    pub fn handle_barrier(&mut self, epoch: Epoch, end: Lsn, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if epoch != self.fence || !matches!(self.role, Role::Candidate(_)) {
            return;
        }
        let me = (self.identity.node, self.identity.incarnation);
        let tally = Tally::new(me, self.terms.sets.clone(), end);
        self.role = Role::Leading(Leading::new(epoch, tally));
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
        let committed = leading.tally.committed(self.flushed);
        leading.count_echoes(self.now_ms);
        if let Some(committed) = committed {
            self.commit(committed.min(self.appended));
        }
        self.open_if_ready();
        self.press_hand_over();
    }

    pub(super) fn open_if_ready(&mut self) {
        let Role::Leading(leading) = &mut self.role else { return };
        let barrier_end = leading.tally.barrier_end();
        let applied = self.applied >= barrier_end || planted(Bug::OpenBeforeApplied);
        let ready = self.committed >= barrier_end && applied;
        if ready && !leading.open && leading.epoch == self.fence {
            leading.open = true;
            leading.begin_leases(self.now_ms);
            self.actions.push_back(Action::Open(leading.epoch));
            self.actions.push_back(Action::Ended(Ok(leading.epoch)));
        }
    }

    /// The news for every replica: its epoch, its number, and what it says.
    #[must_use]
    pub fn heartbeat(&self) -> Option<(Epoch, u64, Heartbeat)> {
        match &self.role {
            Role::Leading(leading) if leading.epoch == self.fence => {
                let news = Heartbeat {
                    committed: self.committed,
                    appended: self.appended,
                    lease_ms: if leading.open { self.terms.lease_ms } else { 0 },
                    ended: leading.is_ended(),
                };
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
        let wanted = leading.number + u64::from(!planted(Bug::RoundBeganTooEarly));
        if leading.seen == leading.number {
            leading.beat(self.now_ms);
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

    /// Without its quorum, and until it is open, a primary asks where the voters stand: whoever
    /// replaced it has no reason to call on it, and none of its replicas may be left to tell it.
    /// Once a voter is known to obey a higher epoch, and nobody leads in it for a while, it takes
    /// a new one.
    pub(super) fn keep_leading(&mut self) {
        if self.keep_handing_over() {
            return;
        }
        let (now_ms, leased) = (self.now_ms, self.terms.lease_ms > 0);
        let Role::Leading(leading) = &mut self.role else { return };
        if leased && leading.open {
            leading.beat(now_ms); // A lease is renewed by the echo of a numbered heartbeat.
        }
        let refused_ms = leading.refused_ms.unwrap_or(now_ms);
        if self.now_ms.saturating_sub(refused_ms) >= self.timing.candidate_ms {
            self.step_down();
            return self.start_candidacy(Reason::Retake);
        }
        if !leading.open || !leading.hears_w(&self.timing, self.now_ms) {
            let me = self.identity.node;
            let others = self.sets().nodes().into_iter();
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
            self.hear(known_primary.node, known_primary.epoch);
            self.step_down();
        }
    }
}
