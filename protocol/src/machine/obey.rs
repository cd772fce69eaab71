//! A voter's part: where it stands, and the fence.

use super::{Action, Failure, Following, Machine, Role};
use crate::epoch::Epoch;
use crate::frame::{Body, Frame, Positions};
use crate::id::NodeId;
use crate::lsn::Lsn;

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
            voters: self.voters.clone(),
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
    pub fn handle_fence(&mut self, from: NodeId, epoch: Epoch, now_ms: u64) -> Option<Frame> {
        self.now_ms = self.now_ms.max(now_ms);
        let repeated = epoch == self.fence && self.obeys(from, epoch);
        if repeated && self.fence_durable == epoch {
            self.hear(from, epoch);
            // Asked again, because the answer was lost. Where this node stands has not changed:
            // in this epoch it took nothing yet.
            return (self.history.last_epoch() < epoch).then(|| self.fenced(epoch));
        }
        if repeated {
            return None;
        }
        if epoch <= self.fence || matches!(self.role, Role::Quarantined(_)) {
            return Some(self.frame(self.fence, Body::FenceRefused));
        }
        self.fence = epoch;
        self.hear(from, epoch);
        self.step_down();
        self.actions.push_back(Action::Obey(epoch));
        None
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
            let fenced = self.fenced(epoch);
            self.actions.push_back(Action::Send(heard.node, fenced));
        }
    }

    /// Whether `from` is the candidate whose epoch this node obeys.
    fn obeys(&self, from: NodeId, epoch: Epoch) -> bool {
        self.heard.is_some_and(|heard| heard.node == from && heard.epoch == epoch)
    }

    fn fenced(&self, epoch: Epoch) -> Frame {
        assert_eq!(epoch, self.fence_durable, "FENCED is said only of a durable fence");
        self.frame(epoch, Body::Fenced(Box::new(self.positions())))
    }

    /// Leaves whatever role for that of a replica without a session.
    pub(super) fn step_down(&mut self) {
        let was = std::mem::replace(&mut self.role, Role::Following(Following::default()));
        match was {
            Role::Leading(leading) => {
                self.actions.push_back(Action::Demote);
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
