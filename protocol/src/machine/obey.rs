//! A voter's part: where it stands, and the fence.

use super::candidate::{Candidate, Phase};
use super::{Action, Failure, Following, Machine, Role};
use crate::epoch::Epoch;
use crate::frame::{Body, Fence, Frame, Positions};
use crate::id::NodeId;
use crate::lsn::Lsn;
use crate::planted::{Bug, planted};

impl Machine {
    /// Where this node stands.
    #[must_use]
    pub fn positions(&self) -> Positions {
        Positions {
            incarnation: self.identity.incarnation,
            fence: self.fence_durable,
            last: self.history.last_epoch(),
            end: self.flushed,
            committed: self.committed,
            sets: self.sets(),
            known_primary: self.known_primary(),
        }
    }

    /// Somebody asks where this node stands.
    #[must_use]
    pub fn handle_ask(&mut self, now_ms: u64) -> Frame {
        self.now_ms = self.now_ms.max(now_ms);
        self.frame(self.fence_durable, Body::Positions(Box::new(self.positions())))
    }

    /// A candidate asks this node to obey its epoch. The answer is either at hand, or follows as
    /// an [`Action::Send`] once the fence is durable.
    ///
    /// From here on no ack of a lower epoch leaves this node, and a primary's own flush counts no
    /// longer: the fence rises in memory before it is written.
    pub fn handle_fence(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        fence: Fence,
        now_ms: u64,
    ) -> Option<Frame> {
        self.now_ms = self.now_ms.max(now_ms);
        let repeated = epoch == self.fence && self.obeys(from, epoch);
        if repeated && self.fence_durable == epoch {
            self.hear(from, epoch);
            // Asked again, because the answer was lost. Where this node stands has not changed:
            // in this epoch it took nothing yet.
            self.owe_fenced(from, epoch);
            return None;
        }
        if repeated {
            return None;
        }
        let quarantined = matches!(self.role, Role::Quarantined(_));
        if epoch <= self.fence || quarantined || !self.may_obey(from, epoch, fence) {
            let at_work = self.sees_quorum();
            return Some(self.frame(self.fence, Body::FenceRefused { at_work }));
        }
        self.fence = epoch;
        self.hear(from, epoch);
        self.step_down_for(Some(from));
        self.actions.push_back(Action::Obey(epoch));
        planted(Bug::FencedBeforeDurable).then(|| {
            self.frame(
                epoch,
                Body::Fenced(Box::new(Positions { fence: epoch, ..self.positions() })),
            )
        })
    }

    /// Whether `epoch`'s candidate is one this node may obey.
    fn may_obey(&self, from: NodeId, epoch: Epoch, fence: Fence) -> bool {
        // A loss is accepted of a side that is stopped. This side is not.
        let believes_stopped = !fence.accepts_loss || !self.sees_quorum();
        // The disk that a newer set has replaced must not win with an older one, where it could:
        // where it alone is enough to fence itself.
        let own = self.voters();
        let replaced = fence.newest < own.named_by && own.voids(from, epoch.incarnation);
        believes_stopped && !replaced
    }

    /// Whether a primary with its quorum is at work on this side.
    fn sees_quorum(&self) -> bool {
        match &self.role {
            Role::Leading(leading) => leading.has_quorum(&self.timing, self.now_ms),
            Role::Following(Following { session: Some(_) }) => {
                self.heard.is_some_and(|heard| self.is_recent(heard.at_ms))
            }
            _ => false,
        }
    }

    /// The fence of `epoch` is durable, and the log ends at `end`, all of it flushed.
    pub fn handle_obeyed(&mut self, epoch: Epoch, end: Lsn, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.fence_durable = self.fence_durable.max(epoch);
        self.appended = end;
        self.flushed = end;
        if epoch != self.fence {
            return; // A higher fence arrived meanwhile; its own turn comes.
        }
        if epoch.incarnation == self.identity.incarnation {
            self.start_fencing(epoch);
        } else if let Some(heard) = self.heard.filter(|heard| heard.epoch == epoch) {
            self.owe_fenced(heard.node, epoch);
        }
    }

    /// The fence of `epoch`, whose primary has answered this node, is durable: nothing lower is
    /// obeyed any more, whatever becomes of that conversation.
    pub fn handle_adopted(&mut self, epoch: Epoch) {
        self.heard_of(epoch);
        self.fence_durable = self.fence_durable.max(epoch);
        if epoch <= self.fence {
            return;
        }
        self.fence = epoch;
        // A candidate that still asks is not outrun: the epoch it takes will be higher.
        let asks = |candidate: &Candidate| matches!(candidate.phase, Phase::Asking(_));
        if !matches!(&self.role, Role::Candidate(candidate) if asks(candidate)) {
            self.step_down();
        }
    }

    /// Whether `from` is the candidate whose epoch this node obeys.
    fn obeys(&self, from: NodeId, epoch: Epoch) -> bool {
        self.heard.is_some_and(|heard| heard.node == from && heard.epoch == epoch)
    }

    pub(super) fn fenced(&self, epoch: Epoch) -> Frame {
        assert_eq!(epoch, self.fence_durable, "FENCED is said only of a durable fence");
        self.frame(epoch, Body::Fenced(Box::new(self.positions())))
    }

    /// Leaves whatever role for that of a replica without a session.
    pub(super) fn step_down(&mut self) {
        let heard = self.heard.map(|heard| heard.node);
        self.step_down_for(heard);
    }

    /// Leaves whatever role for that of a replica without a session; `successor` takes over.
    pub(super) fn step_down_for(&mut self, successor: Option<NodeId>) {
        let was = std::mem::replace(&mut self.role, Role::Following(Following::default()));
        match was {
            Role::Leading(leading) => {
                self.actions.push_back(Action::Demote);
                if let Some(hand_over) = &leading.hand_over {
                    self.end_hand_over(hand_over, successor);
                }
                if !leading.open {
                    let failure = Failure::Outrun(self.highest);
                    self.actions.push_back(Action::Ended(Err(failure)));
                }
            }
            Role::Candidate(_) => {
                self.actions.push_back(Action::Ended(Err(Failure::Outrun(self.fence))));
            }
            Role::Following(_) => {}
            Role::Quarantined(reason) => self.role = Role::Quarantined(reason),
        }
    }
}
