//! A planned switch-over, and changes of the terms: both end an epoch on purpose.
//!
//! The primary executes nothing new, commits and answers everything it has executed, and ends its
//! epoch by an END record. Only once that is committed is a successor chosen: a voter that holds
//! all of the log takes the next epoch by the ordinary rules, so nothing here is needed for
//! safety. To change the terms, the primary is its own successor. If nobody takes over in time it
//! goes on, in a new epoch: behind an END nothing is appended.

use super::candidate::Reason;
use super::{Action, Failure, Machine, Role};
use crate::epoch::Epoch;
use crate::frame::Body;
use crate::id::NodeId;
use crate::lsn::Lsn;
use crate::terms::LEASE_MAX_MS;
use crate::voters::{Voter, Voters};

/// Other terms for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Who votes from then on; its generation and name are given by the rules.
    pub voters: Voters,
    /// What an ack promises from then on, in milliseconds, [`LEASE_MAX_MS`] at the most; 0 for
    /// reads by rounds.
    pub lease_ms: u32,
}

/// A hand-over under way.
#[derive(Debug)]
pub(super) struct HandOver {
    to: Successor,
    phase: Phase,
    started_ms: u64,
}

#[derive(Debug)]
enum Successor {
    /// The voter that is asked for; any if nobody is.
    Voter(Option<NodeId>),
    /// This node itself, on other terms.
    Itself(Change),
}

#[derive(Debug)]
enum Phase {
    /// The driver stops executing.
    Quiescing,
    /// The END is being appended.
    Ending,
    /// The END ends there, and is not committed yet, or no successor has caught up.
    Committing(Lsn),
    /// That voter was told to take over.
    Called(NodeId),
}

impl HandOver {
    /// Whether the END is committed: this epoch serves nobody any more.
    pub(super) const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Called(_))
    }
}

impl Machine {
    /// Hands over to `to`, or to whichever voter has caught up. How it ends is an
    /// [`Action::HandedOver`].
    ///
    /// # Errors
    /// [`Failure`] if it can not even begin.
    pub fn hand_over(&mut self, to: Option<NodeId>, now_ms: u64) -> Result<(), Failure> {
        self.now_ms = self.now_ms.max(now_ms);
        if let Some(node) = to.filter(|node| self.voters().get(*node).is_none()) {
            return Err(Failure::NotVoter(node));
        }
        self.start_hand_over(Successor::Voter(to))
    }

    /// Changes the log's terms: ends the epoch and opens the next on `change`. How it ends is an
    /// [`Action::Ended`], or an [`Action::HandedOver`] if it ends before it begins.
    ///
    /// # Errors
    /// [`Failure`] if it can not even begin: this node must lead and go on voting, and the new
    /// voters must be able to commit.
    pub fn change(&mut self, change: Change, now_ms: u64) -> Result<(), Failure> {
        self.now_ms = self.now_ms.max(now_ms);
        let sets = self.sets();
        let change = Change { lease_ms: change.lease_ms.min(LEASE_MAX_MS), ..change };
        let me = self.identity;
        if !change.voters.counts(me.node, me.incarnation) {
            return Err(Failure::NotVoter(me.node));
        }
        sets.with(change.voters.clone(), self.fence)?;
        let Role::Leading(leading) = &self.role else { return Err(Failure::NotPrimary(me.node)) };
        let (committed, progress) = (self.committed, leading.tally.progress());
        let follows = |node: NodeId, life| {
            let known = progress.get(&node).filter(|known| known.incarnation == life);
            known.is_some_and(|known| known.flushed >= committed && self.is_recent(known.heard_ms))
        };
        let ready = |set: &Voters| {
            let holds = |voter: &&Voter| me.is(voter) || follows(voter.node, voter.incarnation);
            set.consenting(&change.voters).filter(holds).count()
        };
        // The sets in force must commit it, and the new one all that follows.
        let older = sets.as_slice().iter().map(|set| (ready(set), set.w_before(&change.voters)));
        // And before any of it the END, which a disk that is to be replaced can not ack any more.
        let now = (ready(sets.newest()), sets.newest().w());
        let all = older.chain([now, (ready(&change.voters), change.voters.w())]);
        if let Some((ready, needed)) = all.into_iter().find(|(ready, needed)| ready < needed) {
            return Err(Failure::NotReady { ready, needed });
        }
        self.start_hand_over(Successor::Itself(change))
    }

    fn start_hand_over(&mut self, to: Successor) -> Result<(), Failure> {
        let (me, fence, now_ms) = (self.identity.node, self.fence, self.now_ms);
        let Role::Leading(leading) = &mut self.role else { return Err(Failure::NotPrimary(me)) };
        if !leading.open || leading.epoch != fence || leading.hand_over.is_some() {
            return Err(Failure::NotPrimary(me));
        }
        leading.hand_over = Some(HandOver { to, phase: Phase::Quiescing, started_ms: now_ms });
        self.actions.push_back(Action::Quiesce(fence));
        Ok(())
    }

    /// Nothing is executed in `epoch` any more.
    pub fn handle_quiesced(&mut self, epoch: Epoch, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let Some(hand_over) = self.hand_over_in(epoch) else { return };
        if matches!(hand_over.phase, Phase::Quiescing) {
            hand_over.phase = Phase::Ending;
            self.actions.push_back(Action::AppendEnd(epoch));
        }
    }

    /// The END of `epoch` is appended and ends at `end`.
    pub fn handle_end(&mut self, epoch: Epoch, end: Lsn, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let Some(hand_over) = self.hand_over_in(epoch) else { return };
        if matches!(hand_over.phase, Phase::Ending) {
            hand_over.phase = Phase::Committing(end);
            self.handle_appended(end);
            self.count();
        }
    }

    fn hand_over_in(&mut self, epoch: Epoch) -> Option<&mut HandOver> {
        let fence = self.fence;
        match &mut self.role {
            Role::Leading(leading) if leading.epoch == epoch && epoch == fence => {
                leading.hand_over.as_mut()
            }
            _ => None,
        }
    }

    /// Calls the successor once the END is committed; called whenever something commits.
    pub(super) fn press_hand_over(&mut self) {
        let Role::Leading(leading) = &self.role else { return };
        let Some(hand_over) = &leading.hand_over else { return };
        match (&hand_over.phase, &hand_over.to) {
            (Phase::Committing(end), Successor::Itself(change)) if self.committed >= *end => {
                let change = change.clone();
                self.step_down_for(Some(self.identity.node));
                self.start_candidacy(Reason::Change(change));
            }
            (Phase::Committing(end), Successor::Voter(wanted)) if self.committed >= *end => {
                let Some(node) = self.successor(*wanted, *end) else { return };
                if let Role::Leading(leading) = &mut self.role {
                    if let Some(hand_over) = &mut leading.hand_over {
                        hand_over.phase = Phase::Called(node);
                    }
                }
                self.call_successor();
            }
            _ => {}
        }
    }

    /// A voter that holds everything up to the END, on disk, and was heard a moment ago.
    fn successor(&self, wanted: Option<NodeId>, end: Lsn) -> Option<NodeId> {
        let Role::Leading(leading) = &self.role else { return None };
        let voters = leading.tally.voters();
        let able = leading.tally.progress().iter().filter(|(node, known)| {
            voters.counts(**node, known.incarnation)
                && wanted.is_none_or(|wanted| wanted == **node)
                && known.flushed >= end
                && self.is_recent(known.heard_ms)
        });
        able.max_by_key(|(_, known)| (known.applied, known.heard_ms)).map(|(node, _)| *node)
    }

    /// Tells the successor, again until it obeys: a lost frame must not wedge a hand-over.
    fn call_successor(&mut self) {
        let Role::Leading(leading) = &self.role else { return };
        let Some(HandOver { phase: Phase::Called(node), .. }) = leading.hand_over else { return };
        let frame = self.frame(leading.epoch, Body::HandOver);
        self.actions.push_back(Action::Send(node, frame));
    }

    /// On every timeout of a primary: `true` if the hand-over came to nothing and this node takes
    /// a new epoch instead.
    pub(super) fn keep_handing_over(&mut self) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        let Some(hand_over) = &leading.hand_over else { return false };
        if self.now_ms.saturating_sub(hand_over.started_ms) < self.timing.candidate_ms {
            self.press_hand_over();
            self.call_successor();
            return false;
        }
        self.step_down_for(None);
        self.start_candidacy(Reason::Retake);
        true
    }

    /// How a hand-over ended, told when the primary steps down for `successor`.
    pub(super) fn end_hand_over(&mut self, hand_over: &HandOver, successor: Option<NodeId>) {
        let ended = match (successor, &hand_over.phase, self.heard) {
            // To itself: its candidacy has an end of its own.
            (Some(node), ..) if node == self.identity.node => return,
            (Some(node), Phase::Called(called), Some(heard)) if node == *called => Ok(heard.epoch),
            (None, ..) => Err(Failure::NoSuccessor),
            _ => Err(Failure::Outrun(self.highest)),
        };
        self.actions.push_back(Action::HandedOver(ended));
    }

    /// The primary has ended its epoch and wants this node to take the next. `false` if it is not
    /// this node's primary.
    pub fn handle_hand_over(&mut self, from: NodeId, epoch: Epoch, now_ms: u64) -> bool {
        self.now_ms = self.now_ms.max(now_ms);
        if !self.accepts(epoch) || self.session_primary() != Some(from) || !self.votes() {
            return false;
        }
        self.release_promise();
        self.start_candidacy(Reason::HandOver);
        true
    }
}
