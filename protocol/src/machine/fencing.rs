//! Becoming primary, second half: fence, adopt, prepare, BARRIER.

use std::collections::BTreeMap;

use super::candidate::{Candidate, Phase, Reason};
use super::{Action, Failover, Failure, Machine, Role};
use crate::epoch::Epoch;
use crate::frame::Positions;
use crate::id::NodeId;
use crate::lsn::Lsn;
use crate::planted::{Bug, planted};
use crate::terms::{Terms, VoterSets};
use crate::voters::{Voter, Voters, VotersError};

impl Machine {
    /// This node's own fence is durable: now ask the others to obey.
    pub(super) fn start_fencing(&mut self, epoch: Epoch) {
        let now_ms = self.now_ms;
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.epoch != Some(epoch) || !matches!(candidate.phase, Phase::Obeying) {
            return;
        }
        candidate.phase = Phase::Fencing(BTreeMap::new());
        candidate.fencing_ms = now_ms;
        self.call_voters();
        self.judge_fenced();
    }

    /// A voter obeys this candidate, and says where it stands.
    pub fn handle_fenced(&mut self, from: NodeId, epoch: Epoch, positions: Positions, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if epoch != self.fence || positions.fence != epoch || from == self.identity.node {
            return;
        }
        if let Role::Candidate(Candidate { phase: Phase::Fencing(fenced), .. }) = &mut self.role {
            fenced.insert(from, positions);
            self.call_newly_named();
            self.judge_fenced();
        }
    }

    /// A log may name voters that this node's own does not: they are asked at once.
    fn call_newly_named(&mut self) {
        let Role::Candidate(Candidate { phase: Phase::Fencing(fenced), .. }) = &self.role else {
            return;
        };
        let known = self.sets();
        if fenced.values().any(|at| at.sets.newest().generation > known.newest().generation) {
            self.call_voters();
        }
    }

    /// A voter obeys the epoch `fence`, or may not obey this candidate's. Whether a primary is
    /// `at_work` there matters to who accepts a loss.
    pub fn handle_fence_refused(&mut self, from: NodeId, fence: Epoch, at_work: bool, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.heard_of(fence);
        let Role::Candidate(candidate) = &self.role else { return };
        let Some(epoch) = candidate.epoch else { return };
        if fence > epoch {
            self.fail_candidacy(Failure::Outrun(fence));
        } else if at_work && candidate.may_lose() && matches!(candidate.phase, Phase::Fencing(_)) {
            self.fail_candidacy(Failure::NotStopped(from));
        }
    }

    /// How many voters of `set` are among those who answered, this node counted in.
    fn reached(&self, set: &Voters, answers: &BTreeMap<NodeId, Positions>) -> usize {
        let me = &self.identity;
        let counts = |(node, at): &(&NodeId, &Positions)| {
            **node != me.node
                && (set.counts(**node, at.incarnation)
                    || planted(Bug::WipedDiskFenced) && set.get(**node).is_some())
        };
        answers.iter().filter(counts).count() + usize::from(set.counts(me.node, me.incarnation))
    }

    /// Whether those who answered are too few to commit a BARRIER.
    fn short_of_w(&self, sets: &VoterSets, answers: &BTreeMap<NodeId, Positions>) -> bool {
        let holds = |voter: &Voter| {
            let answer = answers.get(&voter.node).map(|at| at.incarnation);
            self.identity.is(voter) || answer == Some(voter.incarnation)
        };
        let newest = sets.newest();
        let holders = |set: &Voters| set.consenting(newest).filter(|voter| holds(voter)).count();
        sets.as_slice().iter().any(|set| holders(set) < set.w_before(newest))
    }

    /// What is missing to R voters of one of `sets`, this node counted in; `None` if nothing is.
    pub(super) fn short_of_r(
        &self,
        sets: &VoterSets,
        answers: &BTreeMap<NodeId, Positions>,
    ) -> Option<Failure> {
        let needed = |set: &Voters| set.r() - usize::from(planted(Bug::TooFewFenced));
        let most = if planted(Bug::ChangeFencesOldAlone) { 1 } else { VoterSets::MAX_LEN };
        let mut asked = sets.as_slice().iter().take(most);
        let short = asked.find(|set| self.reached(set, answers) < needed(set))?;
        Some(Failure::TooFew { reached: self.reached(short, answers), needed: short.r() })
    }

    /// Goes on once R of every set in force obey, by the longest log among them: then no commit set
    /// can acknowledge anything older, and one of the R holds every committed record.
    pub(super) fn judge_fenced(&mut self) {
        if self.is_bound() {
            return; // Its own promise to the old primary binds this node as any other voter.
        }
        let me = self.identity;
        let own = self.positions();
        // Who accepts a loss has time: every voter that lives shall have answered, its promise to
        // the old primary over.
        let patience_ms = self.timing.candidate_ms / 2 + u64::from(self.terms.lease_ms);
        let Role::Candidate(candidate) = &mut self.role else { return };
        let waited = self.now_ms.saturating_sub(candidate.fencing_ms) >= patience_ms;
        let may_lose = candidate.may_lose();
        let Phase::Fencing(fenced) = &mut candidate.phase else { return };
        fenced.insert(me.node, own);
        let fenced = fenced.clone();
        let Some((from, longest)) = longest(&fenced, me.node) else { return };
        let short = self.short_of_r(&longest.sets, &fenced).is_some()
            || may_lose && self.short_of_w(&longest.sets, &fenced);
        if short && !(may_lose && waited) {
            return;
        }
        if !longest.sets.newest().counts(me.node, me.incarnation) {
            return self.fail_candidacy(Failure::NotVoter(me.node));
        }
        let survivors = short.then(|| {
            let newest = longest.sets.newest();
            let counts = |(node, at): &(&NodeId, &Positions)| newest.counts(**node, at.incarnation);
            fenced.iter().filter(counts).map(|(node, _)| *node).collect()
        });
        let fetches = from != me.node && !planted(Bug::NothingFetched);
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.survivors = survivors;
            candidate.phase = Phase::Fetching { from, last: longest.last, end: longest.end };
        }
        if fetches {
            self.actions.push_back(Action::Fetch(from, self.fence));
        } else {
            self.prepare();
        }
    }

    /// Whether this candidate is fetching in `epoch`.
    pub(super) fn fetches(&self, epoch: Epoch) -> bool {
        matches!(&self.role, Role::Candidate(Candidate { phase: Phase::Fetching { .. }, .. })
            if self.fence == epoch)
    }

    /// A fetch that goes on is not cut short by the candidate's deadline.
    pub(super) fn fetch_goes_on(&mut self) {
        let now_ms = self.now_ms;
        if let Role::Candidate(candidate) = &mut self.role {
            if matches!(candidate.phase, Phase::Fetching { .. }) {
                candidate.started_ms = now_ms;
            }
        }
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
        let Role::Candidate(candidate) = &self.role else { return };
        if candidate.epoch != Some(epoch) || !matches!(candidate.phase, Phase::Preparing) {
            return;
        }
        if let Err(reason) = verdict {
            return self.fail_candidacy(Failure::Vetoed(reason));
        }
        let accepted_loss = candidate.survivors.is_some();
        match self.next_terms(epoch) {
            Err(error) => self.fail_candidacy(Failure::Voters(error)),
            Ok(terms) => {
                if let Role::Candidate(candidate) = &mut self.role {
                    candidate.phase = Phase::Appending;
                }
                self.actions.push_back(Action::AppendBarrier { epoch, terms, accepted_loss });
            }
        }
    }

    /// The terms of the epoch this candidate is about to open: those of the adopted log, and what
    /// it was asked to change.
    fn next_terms(&self, epoch: Epoch) -> Result<Terms, VotersError> {
        let (sets, lease_ms) = (self.sets(), self.terms.lease_ms);
        let Role::Candidate(candidate) = &self.role else { return Ok(self.terms.clone()) };
        if let Reason::Change(change) = &candidate.reason {
            let sets = sets.with(change.voters.clone(), epoch)?;
            return Ok(Terms { sets, lease_ms: change.lease_ms });
        }
        if let Reason::Failover(Failover { grant: Some((node, life)), .. }) = candidate.reason {
            if let Some(granted) = sets.newest().granting(node, life) {
                return Ok(Terms { sets: sets.with(granted, epoch)?, lease_ms });
            }
        }
        let Some(survivors) = &candidate.survivors else { return Ok(Terms { sets, lease_ms }) };
        // A majority of those who are left, and they alone: the others can not be asked.
        let newest = sets.newest();
        let left = newest.members().iter().filter(|voter| survivors.contains(&voter.node));
        let left = Voters::new(left.cloned().collect(), None)?;
        Ok(Terms { sets: VoterSets::of(left.introduced(epoch, newest)), lease_ms })
    }
}

/// Whose log is the longest: by the epoch of its last record, then by its end. Among equals this
/// node's own, which needs no fetching.
pub(super) fn longest(
    fenced: &BTreeMap<NodeId, Positions>,
    me: NodeId,
) -> Option<(NodeId, Positions)> {
    let longest = fenced.iter().max_by_key(|(node, at)| {
        let last = if planted(Bug::LongestByEndAlone) { Epoch::NONE } else { at.last };
        (last, at.end, **node == me)
    });
    longest.map(|(node, at)| (*node, at.clone()))
}
