//! Becoming primary: ask, obey, fence, adopt, prepare, BARRIER.

use std::collections::BTreeMap;

use super::{Action, Following, Machine, Role};
use crate::epoch::Epoch;
use crate::frame::{Body, Positions};
use crate::id::NodeId;
use crate::lsn::Lsn;
use crate::voters::Voters;

/// The first pause after a candidacy that failed of its own accord, in milliseconds; it doubles.
const BACKOFF_MS: u64 = 200;
/// The longest such pause, in milliseconds.
const BACKOFF_MAX_MS: u64 = 3_200;
/// Two nodes never try in step: each waits this much longer than the voter before it by name.
const BACKOFF_RANK_MS: u64 = 130;

/// Why a node tries to become primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its role on disk is primary.
    Start,
    /// A voter obeys a higher epoch in which nobody leads.
    Retake,
    /// An operator or a coordinator says so.
    Failover {
        /// Even though the primary is alive and has its quorum.
        force: bool,
    },
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
}

/// A candidate's state.
#[derive(Debug)]
pub(super) struct Candidate {
    reason: Reason,
    /// The epoch it takes, from [`Phase::Obeying`] on.
    pub(super) epoch: Option<Epoch>,
    phase: Phase,
    started_ms: u64,
}

#[derive(Debug)]
enum Phase {
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
    pub fn promote(&mut self, force: bool, now_ms: u64) -> Result<(), Failure> {
        self.now_ms = self.now_ms.max(now_ms);
        let me = &self.identity;
        if !self.voters.counts(me.node, me.incarnation) {
            return Err(Failure::NotVoter(me.node));
        }
        match &self.role {
            Role::Leading(leading) => return Err(Failure::AlreadyPrimary(leading.epoch)),
            Role::Quarantined(reason) => return Err(Failure::Quarantined(reason.clone())),
            Role::Candidate(candidate) => {
                let epoch = candidate.epoch.unwrap_or(self.fence);
                return Err(Failure::OtherCandidate { node: me.node, epoch });
            }
            Role::Following(_) => {}
        }
        self.start_candidacy(Reason::Failover { force });
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
        let counts = self.voters.counts(me.node, me.incarnation);
        if self.claims && counts && idle && !heard_other && self.now_ms >= self.retry_ms {
            self.start_candidacy(Reason::Start);
        }
    }

    pub(super) fn start_candidacy(&mut self, reason: Reason) {
        self.role = Role::Candidate(Candidate {
            reason,
            epoch: None,
            phase: Phase::Asking(BTreeMap::new()),
            started_ms: self.now_ms,
        });
        self.call_voters();
        self.judge_answers();
    }

    /// Calls every voter that has not answered: a lost frame must not wedge a candidate, and the
    /// others must hear that it lives.
    fn call_voters(&mut self) {
        let Role::Candidate(candidate) = &self.role else { return };
        let (answered, epoch, body) = match &candidate.phase {
            Phase::Asking(answers) => (Some(answers), self.fence, Body::Ask),
            Phase::Fencing(fenced) => (Some(fenced), self.fence, Body::Fence),
            Phase::Obeying => return,
            Phase::Fetching { .. } | Phase::Preparing | Phase::Appending => {
                (None, self.fence, Body::Fence)
            }
        };
        let others = self.voters.members().iter().map(|voter| voter.node);
        let missing = others.filter(|node| {
            *node != self.identity.node
                && !answered.is_some_and(|answered| answered.contains_key(node))
        });
        let calls: Vec<Action> =
            missing.map(|node| Action::Send(node, self.frame(epoch, body.clone()))).collect();
        self.actions.extend(calls);
    }

    /// Called on every timeout while a candidate.
    pub(super) fn press_candidacy(&mut self) {
        let Role::Candidate(candidate) = &self.role else { return };
        if self.now_ms.saturating_sub(candidate.started_ms) >= self.timing.candidate_ms {
            let failure = match &candidate.phase {
                Phase::Fencing(fenced) => {
                    Failure::TooFew { reached: fenced.len(), needed: self.voters.r() }
                }
                _ => Failure::TooLong(self.timing.candidate_ms),
            };
            return self.fail_candidacy(failure);
        }
        self.call_voters();
        self.judge_answers();
    }

    /// A voter says where it stands.
    pub fn handle_positions(&mut self, from: NodeId, positions: Positions, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.highest = self.highest.max(positions.fence).max(positions.last);
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
        if let Some(failure) = self.gives_way(candidate.reason, answers) {
            return self.fail_candidacy(failure);
        }
        let counting =
            |node: &NodeId, positions: &Positions| self.voters.counts(*node, positions.incarnation);
        let reached = 1 + answers.iter().filter(|(node, at)| counting(node, at)).count();
        let needed = self.voters.r();
        // Enough is enough, after a moment for a primary that lives to say so.
        let patience_ms = self.timing.ask_ms / if reached >= needed { 4 } else { 1 };
        let waited = self.now_ms.saturating_sub(candidate.started_ms) >= patience_ms;
        if answers.len() < self.voters.n() - 1 && !waited {
            return;
        }
        if reached < needed {
            return self.fail_candidacy(Failure::TooFew { reached, needed });
        }
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
    fn gives_way(&self, reason: Reason, answers: &BTreeMap<NodeId, Positions>) -> Option<Failure> {
        let me = self.identity.node;
        for (from, positions) in answers {
            let Some(known_primary) =
                positions.known_primary.filter(|known_primary| known_primary.node != me)
            else {
                continue;
            };
            let speaks_of_itself = known_primary.node == *from;
            match reason {
                Reason::Failover { force: true } => {}
                Reason::Failover { force: false } if speaks_of_itself && known_primary.leads => {
                    return Some(Failure::PrimaryAlive {
                        node: known_primary.node,
                        epoch: known_primary.epoch,
                    });
                }
                Reason::Failover { force: false } => {}
                Reason::Start | Reason::Retake => {
                    if known_primary.age_ms < self.timing.candidate_ms {
                        let (node, epoch) = (known_primary.node, known_primary.epoch);
                        return Some(Failure::OtherCandidate { node, epoch });
                    }
                }
            }
        }
        None
    }

    /// This node's own fence is durable: now ask the others to obey.
    pub(super) fn start_fencing(&mut self, epoch: Epoch) {
        let own = (self.identity.node, self.positions());
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.epoch != Some(epoch) || !matches!(candidate.phase, Phase::Obeying) {
            return;
        }
        candidate.phase = Phase::Fencing(BTreeMap::from([own]));
        self.call_voters();
        self.judge_fenced();
    }

    /// A voter obeys this candidate, and says where it stands.
    pub fn handle_fenced(&mut self, from: NodeId, epoch: Epoch, positions: Positions, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if epoch != self.fence || positions.fence != epoch {
            return;
        }
        if let Role::Candidate(Candidate { phase: Phase::Fencing(fenced), .. }) = &mut self.role {
            fenced.insert(from, positions);
            self.judge_fenced();
        }
    }

    /// A voter obeys a higher epoch.
    pub fn handle_fence_refused(&mut self, fence: Epoch, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.highest = self.highest.max(fence);
        let Role::Candidate(candidate) = &self.role else { return };
        if candidate.epoch.is_some_and(|epoch| fence > epoch) {
            self.fail_candidacy(Failure::Outrun(fence));
        }
    }

    /// Goes on once R of every voter set that may matter have obeyed: then fewer than W voters
    /// can still acknowledge anything older, and one of the R holds every committed record.
    fn judge_fenced(&mut self) {
        let Role::Candidate(Candidate { phase: Phase::Fencing(fenced), .. }) = &self.role else {
            return;
        };
        let sets = std::iter::once(&self.voters).chain(fenced.values().map(|at| &at.voters));
        let enough = |set: &Voters| {
            let counts = fenced.iter().filter(|(node, at)| set.counts(**node, at.incarnation));
            counts.count() >= set.r()
        };
        if !sets.into_iter().all(enough) {
            return;
        }
        let longest = fenced.iter().max_by_key(|(node, at)| {
            // Among equals this node's own, which needs no fetching.
            (at.last, at.end, **node == self.identity.node)
        });
        let Some((&from, at)) = longest else { return };
        let (last, end) = (at.last, at.end);
        if from == self.identity.node {
            return self.prepare();
        }
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.phase = Phase::Fetching { from, last, end };
        }
        self.actions.push_back(Action::Fetch(from, self.fence));
    }

    /// Whether this candidate is fetching in `epoch`.
    pub(super) fn fetches(&self, epoch: Epoch) -> bool {
        matches!(&self.role, Role::Candidate(Candidate { phase: Phase::Fetching { .. }, .. })
            if self.fence == epoch)
    }

    /// The log now ends at `end`, all of it on disk; [`Machine::handle_history`] came before.
    pub fn handle_fetched(&mut self, end: Lsn, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let Role::Candidate(Candidate {
            phase: Phase::Fetching { last, end: wanted, from }, ..
        }) = &self.role
        else {
            return;
        };
        if (self.history.last_epoch(), end) != (*last, *wanted) {
            let failure = format!("{from} promised {last} up to {wanted}, the log ends at {end}");
            return self.fail_candidacy(Failure::Fetch(failure));
        }
        self.appended = end;
        self.flushed = end;
        self.prepare();
    }

    /// The longest log can not be had.
    pub fn handle_fetch_failed(&mut self, epoch: Epoch, reason: String, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.fetches(epoch) {
            self.fail_candidacy(Failure::Fetch(reason));
        }
    }

    fn prepare(&mut self) {
        let action = Action::Prepare {
            old: self.history.last_epoch(),
            new: self.fence,
            final_lsn: self.flushed,
        };
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.phase = Phase::Preparing;
            self.actions.push_back(action);
        }
    }

    /// The hook has prepared for `epoch`, or refused.
    pub fn handle_prepared(&mut self, epoch: Epoch, verdict: Result<(), String>, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.epoch != Some(epoch) || !matches!(candidate.phase, Phase::Preparing) {
            return;
        }
        match verdict {
            Err(reason) => self.fail_candidacy(Failure::Vetoed(reason)),
            Ok(()) => {
                candidate.phase = Phase::Appending;
                self.actions.push_back(Action::AppendBarrier(epoch, self.voters.clone()));
            }
        }
    }

    /// Gives up. What was fenced stays fenced; nothing was written.
    fn fail_candidacy(&mut self, failure: Failure) {
        self.role = Role::Following(Following::default());
        let members = self.voters.members();
        let rank = members.iter().position(|voter| voter.node == self.identity.node).unwrap_or(0);
        let pause_ms = (BACKOFF_MS << self.attempts.min(8)).min(BACKOFF_MAX_MS);
        self.attempts = self.attempts.saturating_add(1);
        self.retry_ms = self.now_ms + pause_ms + rank as u64 * BACKOFF_RANK_MS;
        self.actions.push_back(Action::Ended(Err(failure)));
    }
}
