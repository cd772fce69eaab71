//! Becoming primary, first half: whom to ask, and when to give way. What follows, from the fence
//! to the BARRIER, is in `fencing.rs`.

use std::collections::BTreeMap;

use super::fencing::longest;
use super::{Action, Change, Following, Machine, Role};
use crate::epoch::Epoch;
use crate::frame::{Body, Fence, Positions};
use crate::id::{Incarnation, NodeId};
use crate::lsn::Lsn;
use crate::voters::VotersError;

/// The first pause after a candidacy that failed of its own accord, in milliseconds; it doubles.
const BACKOFF_MS: u64 = 200;
/// The longest such pause, in milliseconds.
const BACKOFF_MAX_MS: u64 = 3_200;
/// Two nodes never try in step: each waits this much longer than the voter before it by name.
const BACKOFF_RANK_MS: u64 = 130;

/// How an operator or a coordinator wants a node promoted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Failover {
    /// Even though the primary is alive and has its quorum.
    pub force: bool,
    /// Even though too few voters can be reached to be sure that nothing is lost, or to commit
    /// anything: what only the others hold is lost, and they are known to be stopped. Those who are
    /// left vote from then on. Without need it makes no difference.
    pub accept_loss: bool,
    /// This life of a voter's disk is to count instead of the one before. For where every voter
    /// commits: there no primary opens without it, and none could grant it.
    pub grant: Option<(NodeId, Incarnation)>,
}

/// Why a node tries to become primary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// Its role on disk is primary.
    Start,
    /// A voter obeys a higher epoch in which nobody leads, or a hand-over came to nothing.
    Retake,
    /// An operator or a coordinator says so.
    Failover(Failover),
    /// The primary says so, and has ended its own epoch.
    HandOver,
    /// It was primary a moment ago, and opens an epoch on other terms.
    Change(Change),
}

/// Why a candidacy ended without a primary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// This node does not vote, so it can not lead.
    #[error("{0} does not count as a voter: only a voter can become primary")]
    NotVoter(NodeId),
    /// It is primary already.
    #[error("this node is the primary already, in epoch {0}")]
    AlreadyPrimary(Epoch),
    /// It is quarantined.
    #[error("this node is quarantined: {0}")]
    Quarantined(String),
    /// The primary is alive and has its quorum.
    #[error("{node} leads in epoch {epoch} and has its quorum")]
    PrimaryAlive {
        /// The primary.
        node: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// Another candidate was heard a moment ago.
    #[error("{node} is trying to become primary in epoch {epoch}")]
    OtherCandidate {
        /// The candidate.
        node: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// Fewer voters than R could be reached.
    #[error("reached {reached} of the {needed} voters it takes to be sure nothing is lost")]
    TooFew {
        /// Voters reached, this node included.
        reached: usize,
        /// R.
        needed: usize,
    },
    /// A voter obeys a higher epoch already.
    #[error("a higher epoch is obeyed already: {0}")]
    Outrun(Epoch),
    /// The longest log could not be fetched.
    #[error("could not fetch the longest log: {0}")]
    Fetch(String),
    /// The hook refused.
    #[error("the promotion hook refused: {0}")]
    Vetoed(String),
    /// It took longer than a candidate may.
    #[error("not done within {0} ms")]
    TooLong(u64),
    /// This node does not lead, so it can neither hand over nor change the terms.
    #[error("{0} is not the open primary: ask the one that is")]
    NotPrimary(NodeId),
    /// A loss was accepted of a side that is not stopped.
    #[error("{0} follows a primary at work: stop that side, or promote a node of it")]
    NotStopped(NodeId),
    /// A loss was accepted and a disk granted in one.
    #[error("accept the loss of those who are gone first; then grant a disk")]
    LossAndGrant,
    /// No voter could take over in time.
    #[error("no voter has caught up and answers: this node goes on, in a new epoch")]
    NoSuccessor,
    /// The voters can not be changed so.
    #[error("the voters can not be changed so: {0}")]
    Voters(#[from] VotersError),
    /// The voters, of now or of then, are not enough to commit the change.
    #[error(
        "{ready} of the {needed} voters it takes are connected and have caught up; where every \
         voter commits, grant a new disk with a failover"
    )]
    NotReady {
        /// Voters of one set that follow closely, this node included.
        ready: usize,
        /// How many of that set it takes.
        needed: usize,
    },
}

/// A candidate's state.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) reason: Reason,
    /// The epoch it takes, from [`Phase::Obeying`] on.
    pub(super) epoch: Option<Epoch>,
    pub(super) phase: Phase,
    /// When its time began to run; again with every step of a fetch.
    pub(super) started_ms: u64,
    /// When it began to fence.
    pub(super) fencing_ms: u64,
    /// If fewer than R voters obey and an operator accepts the loss: those who do.
    pub(super) survivors: Option<Vec<NodeId>>,
}

impl Candidate {
    /// Whether it may do without R voters.
    pub(super) const fn may_lose(&self) -> bool {
        matches!(self.reason, Reason::Failover(Failover { accept_loss: true, .. }))
    }
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Where does everybody stand? Nothing has moved yet.
    Asking(BTreeMap<NodeId, Positions>),
    /// Its own fence is being made durable.
    Obeying,
    /// Others are obeying; who has, and where they stand, this node included.
    Fencing(BTreeMap<NodeId, Positions>),
    /// The longest log is fetched from a fenced voter.
    Fetching { from: NodeId, last: Epoch, end: Lsn },
    /// The hook prepares.
    Preparing,
    /// The BARRIER is being appended.
    Appending,
}

impl Machine {
    /// Tries to become primary because somebody says so. How it ends is an [`Action::Ended`].
    ///
    /// # Errors
    /// [`Failure`] if it can not even begin.
    pub fn promote(&mut self, how: Failover, now_ms: u64) -> Result<(), Failure> {
        self.now_ms = self.now_ms.max(now_ms);
        let me = &self.identity;
        if let Some((node, _)) = how.grant {
            if how.accept_loss {
                return Err(Failure::LossAndGrant);
            }
            if self.voters().get(node).is_none() {
                return Err(Failure::NotVoter(node));
            }
        }
        match &self.role {
            Role::Leading(leading)
                if leading.has_quorum(&self.timing, self.now_ms)
                    || !(how.accept_loss || how.grant.is_some()) =>
            {
                return Err(Failure::AlreadyPrimary(leading.epoch));
            }
            // It commits nothing while a voter's disk is gone: a new epoch does without.
            Role::Leading(_) => self.step_down_for(None),
            Role::Quarantined(reason) => return Err(Failure::Quarantined(reason.clone())),
            Role::Candidate(candidate) => {
                let epoch = candidate.epoch.unwrap_or(self.fence);
                return Err(Failure::OtherCandidate { node: me.node, epoch });
            }
            Role::Following(_) => {}
        }
        self.start_candidacy(Reason::Failover(how));
        Ok(())
    }

    /// A node whose role on disk is primary tries to lead when it hears of nobody else.
    pub(super) fn claim_if_alone(&mut self) {
        let me = &self.identity;
        let Role::Following(following) = &self.role else { return };
        let heard_other = self.heard.is_some_and(|heard| {
            heard.node != me.node
                && self.now_ms.saturating_sub(heard.at_ms) < self.timing.candidate_ms
        });
        let idle = following.session.is_none() && self.fence == self.fence_durable;
        if self.claims && self.votes() && idle && !heard_other && self.now_ms >= self.retry_ms {
            self.start_candidacy(Reason::Start);
        }
    }

    pub(super) fn start_candidacy(&mut self, reason: Reason) {
        // Handed the log on purpose, there is nobody to give way to.
        let asks = !matches!(reason, Reason::HandOver | Reason::Change(_));
        self.role = Role::Candidate(Candidate {
            reason,
            epoch: None,
            phase: Phase::Asking(BTreeMap::new()),
            started_ms: self.now_ms,
            fencing_ms: self.now_ms,
            survivors: None,
        });
        if !asks {
            return self.take_epoch();
        }
        self.call_voters();
        self.judge_answers();
    }

    /// Calls every voter that has not answered: a lost frame must not wedge a candidate, and the
    /// others must hear that it lives.
    pub(super) fn call_voters(&mut self) {
        let Role::Candidate(candidate) = &self.role else { return };
        let newest = self.voters().named_by;
        let fence = Body::Fence(Fence { newest, accepts_loss: candidate.may_lose() });
        let mut nodes = self.sets().nodes();
        let (answered, body) = match &candidate.phase {
            Phase::Asking(answers) => (Some(answers), Body::Ask),
            Phase::Fencing(fenced) => {
                nodes.extend(fenced.values().flat_map(|at| at.sets.nodes()));
                (Some(fenced), fence)
            }
            Phase::Obeying => return,
            Phase::Fetching { .. } | Phase::Preparing | Phase::Appending => (None, fence),
        };
        nodes.sort_unstable();
        nodes.dedup();
        let frame = self.frame(self.fence, body);
        let missing = nodes.into_iter().filter(|node| {
            *node != self.identity.node
                && !answered.is_some_and(|answered| answered.contains_key(node))
        });
        let calls: Vec<Action> = missing.map(|node| Action::Send(node, frame.clone())).collect();
        self.actions.extend(calls);
    }

    /// Called on every timeout while a candidate.
    pub(super) fn press_candidacy(&mut self) {
        let Role::Candidate(candidate) = &self.role else { return };
        // As long as their promises bind them, voters can not answer.
        let patience_ms = self.timing.candidate_ms + u64::from(self.terms.lease_ms);
        if self.now_ms.saturating_sub(candidate.started_ms) >= patience_ms {
            let failure = match &candidate.phase {
                Phase::Fencing(fenced) => {
                    Failure::TooFew { reached: fenced.len(), needed: self.voters().r() }
                }
                _ => Failure::TooLong(patience_ms),
            };
            return self.fail_candidacy(failure);
        }
        self.call_voters();
        self.judge_answers();
        self.judge_fenced();
    }

    /// A voter says where it stands.
    pub fn handle_positions(&mut self, from: NodeId, positions: Positions, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.heard_of(positions.fence.max(positions.last));
        self.learn_of_others(&positions);
        if let Role::Candidate(Candidate { phase: Phase::Asking(answers), .. }) = &mut self.role {
            answers.insert(from, positions);
            self.judge_answers();
        }
    }

    /// Goes on once everybody answered, or enough did and time is up.
    fn judge_answers(&mut self) {
        let Role::Candidate(candidate) = &self.role else { return };
        let Phase::Asking(answers) = &candidate.phase else { return };
        if let Some(failure) = self.gives_way(&candidate.reason, answers) {
            return self.fail_candidacy(failure);
        }
        let short = self.short_of_r(&self.sets(), answers);
        // Enough is enough, after a moment for a primary that lives to say so.
        let patient = short.is_some() || candidate.may_lose();
        let patience_ms = self.timing.ask_ms / if patient { 1 } else { 4 };
        let waited = self.now_ms.saturating_sub(candidate.started_ms) >= patience_ms;
        let everybody = self.sets().nodes().len();
        if answers.len() + 1 < everybody && !waited {
            return;
        }
        let short = short.filter(|_| !candidate.may_lose());
        let stranger = (!self.is_named(answers)).then_some(Failure::NotVoter(self.identity.node));
        match short.or(stranger) {
            Some(failure) => self.fail_candidacy(failure),
            None => self.take_epoch(),
        }
    }

    /// Whether the longest log that is known of names this node as a voter. Its own may be too
    /// short to: where a primary dies while the voters change, only the new ones can lead, and they
    /// learn from the old that they are voters.
    fn is_named(&self, answers: &BTreeMap<NodeId, Positions>) -> bool {
        let me = self.identity;
        let mut all = answers.clone();
        all.insert(me.node, self.positions());
        let longest = longest(&all, me.node);
        longest.is_some_and(|(_, at)| at.sets.newest().counts(me.node, me.incarnation))
    }

    /// Takes an epoch above all that was heard of.
    fn take_epoch(&mut self) {
        let epoch = self.highest.max(self.fence).next(self.identity.incarnation);
        self.fence = epoch;
        self.highest = epoch;
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.epoch = Some(epoch);
            candidate.phase = Phase::Obeying;
        }
        self.actions.push_back(Action::Obey(epoch));
    }

    /// Whether an answer says that somebody else leads, or is about to.
    fn gives_way(&self, reason: &Reason, answers: &BTreeMap<NodeId, Positions>) -> Option<Failure> {
        let me = self.identity.node;
        for (from, positions) in answers {
            let Some(known_primary) =
                positions.known_primary.filter(|known_primary| known_primary.node != me)
            else {
                continue;
            };
            let speaks_of_itself = known_primary.node == *from;
            let (node, epoch) = (known_primary.node, known_primary.epoch);
            match reason {
                // A loss is accepted only of a side that is stopped; this one is not.
                Reason::Failover(Failover { force, accept_loss, .. }) => {
                    if speaks_of_itself && known_primary.leads && (!force || *accept_loss) {
                        return Some(Failure::PrimaryAlive { node, epoch });
                    }
                }
                Reason::Start | Reason::Retake => {
                    if known_primary.age_ms < self.timing.candidate_ms {
                        return Some(Failure::OtherCandidate { node, epoch });
                    }
                }
                Reason::HandOver | Reason::Change(_) => {}
            }
        }
        None
    }

    /// Gives up. What was fenced stays fenced; nothing was written.
    pub(super) fn fail_candidacy(&mut self, failure: Failure) {
        self.role = Role::Following(Following::default());
        let members = self.voters().members();
        let rank = members.iter().position(|voter| voter.node == self.identity.node).unwrap_or(0);
        let pause_ms = (BACKOFF_MS << self.attempts.min(8)).min(BACKOFF_MAX_MS);
        self.attempts = self.attempts.saturating_add(1);
        self.retry_ms = self.now_ms + pause_ms + rank as u64 * BACKOFF_RANK_MS;
        self.actions.push_back(Action::Ended(Err(failure)));
    }
}
