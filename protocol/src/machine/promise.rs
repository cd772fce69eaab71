//! Leases: what an ack promises, and what a primary may make of it.
//!
//! While reads go by leases, an ack promises that its voter answers no FENCED for
//! [`Terms::lease_ms`](crate::terms::Terms::lease_ms). The voter counts from when it hears a
//! heartbeat, the primary from when it sent the one that the ack echoes, and a part less: so as
//! long as the clocks of the two run at nearly one speed, the primary's lease is over before the
//! voter's promise is (Gray & Cheriton, "Leases", SOSP '89). A machine whose clock stands still
//! while others run, a paused virtual machine, breaks it; rounds have no such clause.

use std::collections::VecDeque;

use super::{Machine, Role};
use crate::epoch::Epoch;
use crate::id::NodeId;
use crate::planted::{Bug, planted};

/// The primary uses this much less of a lease than was promised, as a part of 8: clocks may run
/// differently by some percent.
const MARGIN_OF_8: u64 = 1;
/// The newest heartbeats whose time of sending is remembered. An older echo renews nothing.
const SENT_MAX: usize = 64;

/// When the newest heartbeats were sent: their numbers and times, oldest first.
#[derive(Debug, Default)]
pub(super) struct Sent {
    times: VecDeque<(u64, u64)>,
}

impl Sent {
    /// Notes that heartbeat `number` goes out, at the earliest, now.
    pub(super) fn note(&mut self, number: u64, now_ms: u64) {
        if self.times.back().is_none_or(|(last, _)| *last < number) {
            if self.times.len() >= SENT_MAX {
                self.times.pop_front();
            }
            self.times.push_back((number, now_ms));
        }
    }

    /// When heartbeat `number` went out.
    fn at_ms(&self, number: u64) -> Option<u64> {
        self.times.iter().rev().find(|(sent, _)| *sent == number).map(|(_, at_ms)| *at_ms)
    }
}

impl Machine {
    /// Whether no other primary can have opened by now, by the promises of W voters: what was
    /// evaluated before this call is current. Always `false` unless the log's terms say that reads
    /// go by leases.
    ///
    /// The time must come from a clock that goes on while the machine is suspended.
    #[must_use]
    pub fn has_lease(&mut self, now_ms: u64) -> bool {
        self.now_ms = self.now_ms.max(now_ms);
        let lease_ms = u64::from(self.terms.lease_ms);
        let Role::Leading(leading) = &self.role else { return false };
        if lease_ms == 0 || leading.epoch != self.fence || !leading.open || leading.is_ended() {
            return false;
        }
        if leading.tally.voters().w() == 1 {
            return true; // Its own commit set: nobody is fenced without it.
        }
        let usable_ms = lease_ms - lease_ms * MARGIN_OF_8 / 8;
        let sent_ms = if planted(Bug::LeaseFromReceipt) {
            Some(leading.tally.heard_by_w_ms(self.now_ms))
        } else {
            leading.sent.at_ms(leading.tally.seen_by_w(leading.number()))
        };
        sent_ms.is_some_and(|sent_ms| self.now_ms < sent_ms + usable_ms)
    }

    /// This node acknowledges a heartbeat that asks for a promise of `lease_ms`.
    pub(super) fn promise(&mut self, lease_ms: u32) {
        self.promised_ms = self.promised_ms.max(self.now_ms + u64::from(lease_ms));
    }

    /// What was promised before a restart is not remembered, so it is promised again.
    pub(super) fn promise_again(&mut self) {
        if !planted(Bug::PromiseForgotten) {
            self.promise(self.terms.lease_ms);
        }
    }

    /// The epoch was ended by its own primary: what was promised to it binds no longer.
    pub(super) fn release_promise(&mut self) {
        self.promised_ms = self.now_ms;
    }

    /// Whether a promise still binds.
    pub(super) fn is_bound(&self) -> bool {
        self.now_ms < self.promised_ms && !planted(Bug::PromiseIgnored)
    }

    /// Answers `candidate`, whom this node obeys durably, as soon as no promise binds.
    pub(super) fn owe_fenced(&mut self, candidate: NodeId, epoch: Epoch) {
        self.owed = Some((candidate, epoch));
        self.pay_fenced();
    }

    /// Answers the candidate that waits, if no promise binds any more.
    pub(super) fn pay_fenced(&mut self) {
        if self.is_bound() {
            return;
        }
        let Some((candidate, epoch)) = self.owed.take() else { return };
        // Overtaken by a higher epoch, or by a session in this one.
        if epoch == self.fence && epoch == self.fence_durable && self.last_epoch() < epoch {
            let fenced = self.fenced(epoch);
            self.actions.push_back(super::Action::Send(candidate, fenced));
        }
    }
}
