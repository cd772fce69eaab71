//! The rules of one node for one log.
//!
//! A [`Machine`] decides; its driver acts. What happens comes in through the `handle_*` methods,
//! with the time as an argument; what is to be done goes out through [`Machine::poll_action`], in
//! order; getters answer what the machine knows. It does no I/O and holds no clock, so production
//! and simulation run the same rules.
//!
//! What must survive a crash is never assumed: the driver says when it is durable
//! ([`Machine::handle_obeyed`], [`Machine::handle_flushed`]). A promise made but not yet durable
//! only ever makes the machine refuse more.

mod candidate;
mod fencing;
mod follow;
mod hand_over;
mod lead;
mod obey;
mod promise;
mod verdict;

use std::collections::VecDeque;

pub use candidate::{Failover, Failure};
pub use follow::Decision;
pub use hand_over::Change;
pub use lead::RetryRound;
pub use verdict::Verdict;

use crate::epoch::{Epoch, History};
use crate::frame::{EPOCH_STEP_MAX, Frame, KnownPrimary};
use crate::id::{ClusterId, Incarnation, LogId, NodeId};
use crate::lsn::{Lsn, SegmentSize};
use crate::planted::{Bug, planted};
use crate::tally::Progress;
use crate::terms::{Terms, VoterSets};
use crate::voters::{Voter, Voters};
use candidate::Candidate;
use follow::Following;
use lead::Leading;

/// Who this node is. Fixed while the node runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The log these rules are for.
    pub log: LogId,
    /// Its name.
    pub node: NodeId,
    /// This life of its disk.
    pub incarnation: Incarnation,
    /// How its log is cut into segments.
    pub segment_size: SegmentSize,
}

impl Identity {
    /// Whether this node, in this life of its disk, is that voter.
    fn is(&self, voter: &Voter) -> bool {
        (self.node, self.incarnation) == (voter.node, voter.incarnation)
    }
}

/// How long the rules wait, in milliseconds. Safety depends on none of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Between two heartbeats of a primary, and two calls of a candidate.
    pub heartbeat_ms: u64,
    /// How long a candidate waits for answers before it goes on with those it has; a quarter of it
    /// once they are enough.
    pub ask_ms: u64,
    /// How long a candidate may try, beside the lease whose promises it waits out, and how long
    /// the others leave it alone to do so; also how long a hand-over may take.
    pub candidate_ms: u64,
}

impl Timing {
    /// What a node runs with unless told otherwise.
    pub const DEFAULT: Self = Self { heartbeat_ms: 100, ask_ms: 1_000, candidate_ms: 10_000 };
}

/// What the disk says when a node starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The highest epoch it has promised to obey.
    pub fence: Epoch,
    /// The epochs of its log.
    pub history: History,
    /// What the newest BARRIER of its log says, or its founding.
    pub terms: Terms,
    /// Everything from here on is in its log; what lies before was given up.
    pub oldest: Lsn,
    /// The end of its log, all of it on disk; [`Lsn::ZERO`] if it holds no record.
    pub end: Lsn,
    /// Everything below is committed: what the control file or the engine says, whichever is more.
    pub committed: Lsn,
    /// Everything below is in the engine.
    pub applied: Lsn,
    /// Whether its role on disk is primary.
    pub claims: bool,
}

/// What the driver is to do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// The order matters: stop taking records off streams and appending own ones, flush what the
    /// log holds, persist `epoch` as the fence; then [`Machine::handle_obeyed`].
    Obey(Epoch),
    /// This node is primary no longer: drop what is not applied, close every client.
    Demote,
    /// Send this to a node, over a connection of [`crate::frame::Purpose::Ask`].
    Send(NodeId, Frame),
    /// Dial that node with [`crate::frame::Purpose::Fetch`] and take its log as one's own; then
    /// [`Machine::handle_fetched`] or [`Machine::handle_fetch_failed`].
    Fetch(NodeId, Epoch),
    /// Call the promotion hook's `pre_promote`; then [`Machine::handle_prepared`].
    Prepare {
        /// The epoch of the log's last record.
        old: Epoch,
        /// The epoch to open.
        new: Epoch,
        /// The end of the log.
        final_lsn: Lsn,
    },
    /// Persist the role primary and append a BARRIER; then [`Machine::handle_history`] and
    /// [`Machine::handle_barrier`].
    AppendBarrier {
        /// The epoch it opens.
        epoch: Epoch,
        /// What holds from there on.
        terms: Terms,
        /// Whether it gives up what other nodes may have committed.
        accepted_loss: bool,
    },
    /// The epoch is open: take writes and reads.
    Open(Epoch),
    /// Persist the role replica: another node leads.
    Join,
    /// A candidacy ended.
    Ended(Result<Epoch, Failure>),
    /// Execute nothing new; see to it that no append is under way or begins; then
    /// [`Machine::handle_quiesced`].
    Quiesce(Epoch),
    /// Append the END of this epoch; then [`Machine::handle_end`].
    AppendEnd(Epoch),
    /// A hand-over ended: another node's epoch is obeyed, or this node goes on as before, in a new
    /// epoch of its own.
    HandedOver(Result<Epoch, Failure>),
    /// This disk lost what it had acknowledged: persist a new incarnation. The node stays
    /// quarantined, and takes the new one when it is started the next time.
    Renew,
}

/// What a node is, by the rules.
#[derive(Debug)]
enum Role {
    Following(Following),
    Candidate(Candidate),
    Leading(Leading),
    Quarantined(String),
}

/// The role, for those who watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleView {
    /// A replica; `streaming` while a primary's stream is live.
    Replica {
        /// Whether a primary's stream is live.
        streaming: bool,
    },
    /// Trying to become primary.
    Candidate,
    /// The primary of its fence's epoch; `open` once clients are served.
    Primary {
        /// Whether clients are served.
        open: bool,
    },
    /// Its log contradicts the cluster's, or its disk or engine failed; an operator must decide.
    Quarantined,
}

/// A primary or candidate that was heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    node: NodeId,
    epoch: Epoch,
    at_ms: u64,
}

/// The rules of one node for one log.
#[derive(Debug)]
pub struct Machine {
    identity: Identity,
    timing: Timing,
    /// The highest epoch obeyed. It rises in memory first and refuses from then on; it is spoken
    /// of to others only once it is durable.
    fence: Epoch,
    /// The highest epoch obeyed durably; `fence_durable <= fence`.
    fence_durable: Epoch,
    /// The epochs of the log, and the terms of the newest.
    history: History,
    terms: Terms,
    oldest: Lsn,
    /// `flushed <= appended`; `applied <= min(committed, flushed)`.
    appended: Lsn,
    flushed: Lsn,
    committed: Lsn,
    applied: Lsn,
    /// Whether the role on disk is primary, so that this node tries to lead on its own.
    claims: bool,
    /// The newest primary or candidate heard.
    heard: Option<Heard>,
    /// The highest epoch anybody spoke of; the next candidacy goes above it.
    highest: Epoch,
    /// Until when this node has promised no FENCED, and the candidate that waits for one.
    promised_ms: u64,
    owed: Option<(NodeId, Epoch)>,
    /// Candidacies of its own accord that failed since one succeeded, and when to try again.
    attempts: u32,
    retry_ms: u64,
    role: Role,
    actions: VecDeque<Action>,
    now_ms: u64,
    /// When [`Machine::handle_timeout`] was called last.
    ticked_ms: u64,
}

impl Machine {
    /// The rules of a node that starts with what its disk says.
    #[must_use]
    pub fn new(identity: Identity, timing: Timing, stored: Stored, now_ms: u64) -> Self {
        let mut machine = Self {
            identity,
            timing,
            fence: stored.fence,
            fence_durable: stored.fence,
            highest: stored.fence.max(stored.history.last_epoch()),
            history: stored.history,
            terms: stored.terms,
            oldest: stored.oldest,
            appended: stored.end,
            flushed: stored.end,
            committed: stored.committed.min(stored.end),
            applied: stored.applied,
            claims: stored.claims,
            heard: None,
            promised_ms: now_ms,
            owed: None,
            attempts: 0,
            retry_ms: now_ms,
            role: Role::Following(Following::default()),
            actions: VecDeque::new(),
            now_ms,
            ticked_ms: now_ms,
        };
        machine.promise_again();
        machine.handle_timeout(now_ms);
        machine
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Machine::handle_timeout`] wants to be called next, in milliseconds. Calls in between
    /// may move it; one that comes late, or too often, does no harm.
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        let pace = self.ticked_ms + self.timing.heartbeat_ms;
        match &self.role {
            Role::Quarantined(_) => u64::MAX,
            _ if self.owed.is_some() => pace.min(self.promised_ms),
            _ => pace,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.ticked_ms = self.now_ms;
        self.pay_fenced();
        match &mut self.role {
            Role::Following(_) => self.claim_if_alone(),
            Role::Candidate(_) => self.press_candidacy(),
            Role::Leading(_) => self.keep_leading(),
            Role::Quarantined(_) => {}
        }
    }

    /// The log grew: everything below `appended` is in it.
    pub fn handle_appended(&mut self, appended: Lsn) {
        if appended > self.appended {
            self.appended = appended;
            self.fetch_goes_on();
        }
    }

    /// The log gave up what lies before `oldest`.
    pub fn handle_trimmed(&mut self, oldest: Lsn) {
        self.oldest = self.oldest.max(oldest);
    }

    /// The log is on disk up to `flushed`.
    pub fn handle_flushed(&mut self, flushed: Lsn) {
        self.flushed = self.flushed.max(flushed);
        self.appended = self.appended.max(flushed);
        self.follow_commit();
        self.count();
    }

    /// The engine holds everything below `applied`.
    ///
    /// # Panics
    /// If that is more than is committed: the one thing that can not be mended.
    pub fn handle_applied(&mut self, applied: Lsn) {
        assert!(
            applied <= self.applicable(),
            "applied {applied} is over min(committed {}, flushed {})",
            self.committed,
            self.flushed
        );
        self.applied = self.applied.max(applied);
        self.open_if_ready();
    }

    /// The log took a BARRIER: its history and terms are these now.
    pub fn handle_history(&mut self, history: History, terms: Terms) {
        self.highest = self.highest.max(history.last_epoch());
        self.history = history;
        if !planted(Bug::VotersOfTheFounding) {
            self.terms = terms;
        }
    }

    /// The log was cut and opened again: it ends at `end`, all of it on disk. The epoch that wanted
    /// the cut is [adopted](Self::handle_adopted) by now.
    ///
    /// # Panics
    /// If something committed was cut.
    pub fn handle_cut(&mut self, end: Lsn, history: History, terms: Terms) {
        assert!(end >= self.committed, "cut to {end}, below committed {}", self.committed);
        self.appended = end;
        self.flushed = end;
        self.history = history;
        self.terms = terms;
    }

    /// Who this node is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The highest epoch this node obeys.
    #[must_use]
    pub const fn fence(&self) -> Epoch {
        self.fence
    }

    /// Everything below is committed, for good.
    #[must_use]
    pub const fn committed(&self) -> Lsn {
        self.committed
    }

    /// Everything below may be applied: committed, and on this disk.
    #[must_use]
    pub fn applicable(&self) -> Lsn {
        self.committed.min(self.flushed)
    }

    /// The newest voter set.
    #[must_use]
    pub fn voters(&self) -> &Voters {
        self.terms.sets.newest()
    }

    /// The voter sets in force, as far as this node knows.
    #[must_use]
    pub fn sets(&self) -> VoterSets {
        self.terms.sets.in_force(self.committed, &self.history)
    }

    /// Whether this node votes, in this life of its disk.
    #[must_use]
    pub fn votes(&self) -> bool {
        self.voters().counts(self.identity.node, self.identity.incarnation)
    }

    /// The epoch of the log's last record.
    #[must_use]
    pub fn last_epoch(&self) -> Epoch {
        self.history.last_epoch()
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> RoleView {
        match &self.role {
            Role::Following(following) => {
                RoleView::Replica { streaming: following.session.is_some() }
            }
            Role::Candidate(_) => RoleView::Candidate,
            Role::Leading(leading) => RoleView::Primary { open: leading.open },
            Role::Quarantined(_) => RoleView::Quarantined,
        }
    }

    /// Why the node is quarantined.
    #[must_use]
    pub fn quarantined(&self) -> Option<&str> {
        match &self.role {
            Role::Quarantined(reason) => Some(reason),
            _ => None,
        }
    }

    /// What is known of each replica, on a primary.
    #[must_use]
    pub fn replicas(&self) -> Vec<(NodeId, Progress)> {
        match &self.role {
            Role::Leading(leading) => {
                leading.tally.progress().iter().map(|(node, progress)| (*node, *progress)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The node to follow, as far as this one knows.
    #[must_use]
    pub fn primary(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leading(_) => Some(self.identity.node),
            // Whoever was heard before is about to be replaced.
            Role::Candidate(_) => None,
            _ => self.heard.map(|heard| heard.node),
        }
    }

    /// Who leads, for others who ask.
    fn known_primary(&self) -> Option<KnownPrimary> {
        let own =
            |leads| KnownPrimary { node: self.identity.node, epoch: self.fence, age_ms: 0, leads };
        match &self.role {
            Role::Leading(leading) => Some(own(leading.has_quorum(&self.timing, self.now_ms))),
            Role::Candidate(candidate) if candidate.epoch.is_some() => Some(own(false)),
            _ => self.heard.map(|heard| KnownPrimary {
                node: heard.node,
                epoch: heard.epoch,
                age_ms: self.now_ms.saturating_sub(heard.at_ms),
                leads: false,
            }),
        }
    }

    /// Notes that somebody knows of this epoch, so that the next one taken is above it. A number
    /// that is too far away to be true is nobody's: one that believed it would take an epoch that
    /// the others refuse.
    fn heard_of(&mut self, epoch: Epoch) {
        if epoch.number <= self.fence.number.saturating_add(EPOCH_STEP_MAX / 2) {
            self.highest = self.highest.max(epoch);
        }
    }

    /// Notes that a primary or candidate of this epoch lives.
    fn hear(&mut self, node: NodeId, epoch: Epoch) {
        self.heard_of(epoch);
        if self.heard.is_none_or(|heard| heard.epoch <= epoch) {
            self.heard = Some(Heard { node, epoch, at_ms: self.now_ms });
        }
    }

    /// A frame of this node's, in the epoch it obeys.
    fn frame(&self, epoch: Epoch, body: crate::frame::Body) -> Frame {
        Frame { log: self.identity.log, epoch, number: 0, body }
    }

    /// Moves `committed` on.
    fn commit(&mut self, committed: Lsn) {
        self.committed = self.committed.max(committed);
    }
}
