//! A replica's part: whom to follow, what to accept, what to acknowledge.

use super::lead::QUORUM_HEARTBEATS;
use super::{Action, Machine, Role};
use crate::epoch::{Epoch, History};
use crate::frame::{Ack, Frame, Heartbeat, Hello, PROTOCOL_VERSION, Purpose, Refusal, Welcome};
use crate::id::NodeId;
use crate::lsn::Lsn;
use crate::planted::{Bug, planted};
use crate::record::Digest;

/// A replica's state.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// The live stream, once its primary's log and this one are known to match.
    pub(super) session: Option<Session>,
}

#[derive(Debug)]
pub(super) struct Session {
    primary: NodeId,
    epoch: Epoch,
    /// What the primary says is committed; may be behind the end of this log.
    committed: Lsn,
    /// The newest heartbeat seen.
    seen: u64,
}

/// What to make of a [`Welcome`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// If this log's digest at `from` is `digest`: persist `epoch` as the fence if it is higher,
    /// then [`Machine::begin_session`] and take records. Otherwise quarantine.
    Stream {
        /// The answering node's epoch.
        epoch: Epoch,
        /// Where the records begin: this log's end.
        from: Lsn,
        /// The digest the logs must share there.
        digest: Digest,
        /// Where they end, for a fetch.
        until: Option<Lsn>,
    },
    /// If this log's digest at `to` is `digest`: persist the fence if `epoch` is higher, stop
    /// everything, cut the log, open it again, and dial again. Otherwise quarantine.
    Cut {
        /// The answering node's epoch.
        epoch: Epoch,
        /// The fork.
        to: Lsn,
        /// The digest the logs must share there.
        digest: Digest,
    },
    /// The answering log begins at this position, behind the end of this one: a snapshot is needed.
    Snapshot {
        /// The oldest position the answering log still holds.
        oldest: Lsn,
    },
    /// Dial that node instead, or any other.
    Redial(Option<NodeId>),
    /// Not now, or not ever: the reason is for the operator.
    Refused(Refusal, String),
    /// The answer contradicts what this node knows; it is quarantined.
    Quarantined(String),
}

impl Machine {
    /// The first words of this node to one it only asks. Its history is of no interest there.
    #[must_use]
    pub fn introduction(&self) -> Hello {
        Hello { history: History::default(), ..self.hello(Purpose::Ask) }
    }

    /// The first words of this node to one it dials. Before a stream, everything in the log must
    /// be flushed: they speak of what is on disk.
    ///
    /// # Panics
    /// If they would speak of records that are not flushed.
    #[must_use]
    pub fn hello(&self, purpose: Purpose) -> Hello {
        assert!(
            purpose == Purpose::Ask || self.flushed == self.appended,
            "a hello speaks of what is on disk: {} of {}",
            self.flushed,
            self.appended
        );
        Hello {
            version: PROTOCOL_VERSION,
            cluster: self.identity.cluster,
            node: self.identity.node,
            incarnation: self.identity.incarnation,
            segment_size: self.identity.segment_size,
            purpose,
            fence: self.fence,
            history: self.history.clone(),
            end: self.flushed,
            committed: self.committed,
        }
    }

    /// The answer of `from`, which obeys `epoch`, to this node's [`Hello`].
    pub fn handle_welcome(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        purpose: Purpose,
        answer: Welcome,
    ) -> Decision {
        if let Welcome::Refuse(refusal, reason) = answer {
            // Only a primary knows what is committed. Who is fetched from may have lost its disk
            // since it was fenced.
            let believed = purpose == Purpose::Stream
                && epoch >= self.fence
                && !self.replaced_leads(from, epoch, purpose);
            return self.handle_refusal(epoch, refusal, reason, believed);
        }
        if let Welcome::Redirect(node) = answer {
            return Decision::Redial(node.filter(|node| *node != self.identity.node));
        }
        let wanted = match purpose {
            Purpose::Stream => matches!(self.role, Role::Following(_)) && epoch >= self.fence,
            Purpose::Fetch(mine) => self.fetches(mine) && epoch == mine,
            Purpose::Ask => false,
        };
        if !wanted {
            let reason = if epoch < self.fence {
                format!("epoch {epoch} is below the fence {}", self.fence)
            } else {
                format!(
                    "this node asked in a role that it has no more, by now it is {:?}",
                    self.role()
                )
            };
            return Decision::Refused(Refusal::Stale, reason);
        }
        match answer {
            Welcome::Stream { from, digest, until } if from == self.flushed => {
                Decision::Stream { epoch, from, digest, until }
            }
            Welcome::Truncate { to, digest } if to < self.flushed => {
                if self.replaced_leads(from, epoch, purpose)
                    && self.cuts_off_replacement(from, epoch, to)
                {
                    let reason = format!(
                        "{from} comes with the disk {}, which this log has replaced: stop it",
                        epoch.incarnation
                    );
                    return Decision::Refused(Refusal::Incarnation, reason);
                }
                if to < self.committed {
                    return self.refuse_cut(epoch, purpose, to);
                }
                Decision::Cut { epoch, to, digest }
            }
            Welcome::Snapshot { oldest } => Decision::Snapshot { oldest },
            // An answer to an older hello, or to none of ours: dial again.
            _ => Decision::Redial(None),
        }
    }

    /// What a node that is not `believed` says of this one is only noted.
    fn handle_refusal(
        &mut self,
        epoch: Epoch,
        refusal: Refusal,
        reason: String,
        believed: bool,
    ) -> Decision {
        self.heard_of(epoch);
        match refusal {
            _ if !believed => {}
            // A disk that forgot counts no longer, and must not pass for the one that promised.
            Refusal::LostAcked => {
                self.quarantine(reason.clone());
                self.actions.push_back(Action::Renew);
            }
            Refusal::Diverged | Refusal::LossAccepted => {
                self.quarantine(reason.clone());
            }
            _ => {}
        }
        Decision::Refused(refusal, reason)
    }

    /// Whether the one that answers leads on a disk that this log has replaced.
    fn replaced_leads(&self, from: NodeId, epoch: Epoch, purpose: Purpose) -> bool {
        // A fetch is made in an epoch of this node's own.
        purpose == Purpose::Stream && self.voters().voids(from, epoch.incarnation)
    }

    /// Whether the cut to `to` takes off the very record that replaced the disk of `from`, which
    /// this node's ack could then commit: because the replacement is settled, so that it is wrong
    /// whoever obeys; or because in a set that is still in force the replaced disk is enough to
    /// fence by itself, and may lead without any who know of the replacement.
    fn cuts_off_replacement(&self, from: NodeId, epoch: Epoch, to: Lsn) -> bool {
        let sets = self.sets();
        let mut holding = sets.as_slice().iter().filter(|set| set.counts(from, epoch.incarnation));
        let settled = holding.clone().next().is_none();
        let start = self.history.start_of(self.voters().named_by);
        let cut_off = start.is_some_and(|start| start.first >= to);
        cut_off && (settled || holding.any(|set| set.r() == 1))
    }

    fn refuse_cut(&mut self, epoch: Epoch, purpose: Purpose, to: Lsn) -> Decision {
        let reason = format!(
            "epoch {epoch} wants this log cut to {to}, below what it knows is committed ({}); \
             its epochs: {}",
            self.committed, self.history
        );
        if purpose != Purpose::Stream {
            return Decision::Refused(Refusal::Diverged, reason);
        }
        self.quarantine(reason.clone());
        Decision::Quarantined(reason)
    }

    /// This node's log contradicts its primary's, or its disk or its engine failed: nothing is
    /// acknowledged or taken any more. The first reason stays; what follows from it may be another.
    pub fn quarantine(&mut self, reason: String) {
        if matches!(self.role, Role::Quarantined(_)) {
            return;
        }
        self.step_down();
        self.role = Role::Quarantined(reason);
    }

    /// The logs match and `epoch` is obeyed durably: acks may leave from here on. `false` if a
    /// higher fence arrived meanwhile.
    #[must_use]
    pub fn begin_session(&mut self, primary: NodeId, epoch: Epoch, now_ms: u64) -> bool {
        self.now_ms = self.now_ms.max(now_ms);
        if epoch < self.fence {
            return false;
        }
        let Role::Following(following) = &mut self.role else { return false };
        following.session = Some(Session { primary, epoch, committed: Lsn::ZERO, seen: 0 });
        self.fence = epoch;
        self.fence_durable = epoch;
        self.hear(primary, epoch);
        if std::mem::take(&mut self.claims) {
            self.actions.push_back(Action::Join);
        }
        true
    }

    /// The stream from `primary` in `epoch` broke.
    pub fn end_session(&mut self, primary: NodeId, epoch: Epoch) {
        if let Role::Following(following) = &mut self.role {
            following
                .session
                .take_if(|session| session.primary == primary && session.epoch == epoch);
        }
    }

    /// Whether records or news of `epoch` may be taken. Lower than the fence is refused, whoever
    /// sent them.
    #[must_use]
    pub fn accepts(&self, epoch: Epoch) -> bool {
        self.session().is_some_and(|session| session.epoch == epoch && epoch == self.fence)
    }

    /// The primary's news. `false` if it is not, or no longer, this node's primary.
    #[must_use]
    pub fn handle_heartbeat(&mut self, frame: &Frame, news: &Heartbeat, now_ms: u64) -> bool {
        self.now_ms = self.now_ms.max(now_ms);
        if !self.accepts(frame.epoch) {
            return false;
        }
        let Role::Following(following) = &mut self.role else { return false };
        let Some(session) = &mut following.session else { return false };
        session.committed = session.committed.max(news.committed);
        session.seen = session.seen.max(frame.number);
        let (primary, epoch) = (session.primary, session.epoch);
        self.hear(primary, epoch);
        self.promise(news.lease_ms);
        if news.ended {
            self.release_promise();
        }
        self.follow_commit();
        true
    }

    /// What to acknowledge now; `None` without a live session. Repeating it does no harm.
    #[must_use]
    pub fn ack(&self) -> Option<(Epoch, Ack)> {
        let session = self.session()?;
        let obeyed = session.epoch == self.fence_durable && session.epoch == self.fence;
        if !obeyed {
            return None;
        }
        let ack = Ack {
            incarnation: self.identity.incarnation,
            received: self.appended,
            flushed: if planted(Bug::AckBeforeFlush) { self.appended } else { self.flushed },
            applied: self.applied,
            seen: session.seen,
        };
        Some((session.epoch, ack))
    }

    /// The primary of the live stream.
    pub(super) fn session_primary(&self) -> Option<NodeId> {
        self.session().map(|session| session.primary)
    }

    /// Whether something heard then was heard a moment ago.
    pub(super) fn is_recent(&self, at_ms: u64) -> bool {
        at_ms + QUORUM_HEARTBEATS * self.timing.heartbeat_ms >= self.now_ms
    }

    fn session(&self) -> Option<&Session> {
        match &self.role {
            Role::Following(following) => following.session.as_ref(),
            _ => None,
        }
    }

    /// Takes the primary's word for what is committed, as far as this log holds it on disk.
    pub(super) fn follow_commit(&mut self) {
        if let Some(committed) = self.session().map(|session| session.committed) {
            let uncapped = planted(Bug::CommitHeardUncapped);
            self.commit(if uncapped { committed } else { committed.min(self.flushed) });
        }
    }
}
