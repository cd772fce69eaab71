//! The boundary between two epochs: writers are kept out, and the next segment begins with a
//! BARRIER.

use std::sync::{MutexGuard, PoisonError};

use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::EpochStart;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{RecordHeader, RecordKind};

use crate::error::WalError;
use crate::log::{Appended, Log, Tail};
use crate::provision::Purpose;

/// Keeps writers out while an epoch begins.
#[derive(Debug)]
pub(crate) struct Hold<'a>(&'a Log);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut tail = self.0.tail();
        tail.held = false;
        self.0.reopen(&tail);
        self.0.moved.notify_all();
    }
}

impl Log {
    /// Begins an epoch: at the next segment boundary, with `barrier` as its first record.
    ///
    /// # Errors
    /// [`WalError::Fork`] if the barrier does not follow on exactly this log, also because
    /// something was appended since [`Log::next_barrier`] was asked; [`WalError::NoSpace`] or
    /// [`WalError::NotReady`] if no segment was ready in time; [`WalError::History`] if there were
    /// too many epochs; [`WalError::Poisoned`], [`WalError::Closed`], or what the operating system
    /// says of the control file. The epoch has not begun then.
    pub fn begin_epoch(&self, barrier: &Barrier) -> Result<Appended, WalError> {
        let _hold = self.hold()?;
        let (tail, first) = self.wait_boundary()?;
        let payload = barrier.encode();
        let (tail, sync_lsn) = self.enter_epoch(tail, barrier, first)?;
        let header = RecordHeader::new(RecordKind::Barrier, 0, first, sync_lsn, &payload);
        self.put_next(tail, &header, &payload)
    }

    /// Keeps writers out, and waits until nothing is in flight.
    pub(crate) fn hold(&self) -> Result<Hold<'_>, WalError> {
        let mut tail = self.tail();
        self.check_open(&tail)?;
        while tail.held {
            tail = self.wait_moved(tail);
            self.check_open(&tail)?;
        }
        tail.held = true;
        self.reservations.close();
        drop(tail);
        let hold = Hold(self);
        self.reservations.wait_quiet();
        Ok(hold)
    }

    /// Waits, with writers kept out, until the segment a BARRIER would open is ready, so that
    /// the epoch is then entered without letting go of the lock. Returns the BARRIER's place.
    fn wait_boundary(&self) -> Result<(MutexGuard<'_, Tail>, Lsn), WalError> {
        let mut tail = self.tail();
        let mut deadline = None;
        loop {
            tail = self.let_leave(tail)?;
            self.check_open(&tail)?;
            let first = self.size.barrier_after(self.appended());
            let base = self.size.base_of(first);
            self.provision(&tail, base, Purpose::Vital)?;
            if tail.may_be_left() && self.provision.has(base, Purpose::Vital) {
                return Ok((tail, first));
            }
            tail = self.wait_ready(tail, &mut deadline)?;
        }
    }

    /// Checks that `barrier` follows on this log, persists the history, and enters the segment
    /// whose first record it will be. The history is written first: an entry without its BARRIER
    /// is dropped on opening, a BARRIER without its entry would be an epoch nobody knows.
    pub(crate) fn enter_epoch<'a>(
        &'a self,
        tail: MutexGuard<'a, Tail>,
        barrier: &Barrier,
        first: Lsn,
    ) -> Result<(MutexGuard<'a, Tail>, Lsn), WalError> {
        let fork = |what: String| Err(WalError::Fork { epoch: barrier.epoch, what });
        let (last, end) = (self.last_epoch(), self.appended());
        if (barrier.previous, barrier.previous_end) != (last, end) {
            return fork(format!(
                "it says {} ended at {}, here {last} ends at {end}",
                barrier.previous, barrier.previous_end
            ));
        }
        let digest = self.digest();
        if barrier.digest != digest {
            return fork(format!(
                "its digest up to {end} is {:016x}, here it is {:016x}",
                barrier.digest.0, digest.0
            ));
        }
        let start: EpochStart = barrier.start(first);
        let mut history = self.history();
        history.push(start)?;
        let base = self.size.base_of(first);
        let entered = self
            .update_control(|control| control.history = history.clone())
            .and_then(|()| self.enter(tail, (base, barrier.epoch), Purpose::Vital));
        let tail = entered.inspect_err(|_| self.epoch_not_entered())?;
        let lineage = (history, barrier.terms.clone());
        *self.lineage.lock().unwrap_or_else(PoisonError::into_inner) = lineage;
        Ok((tail, self.flushed()))
    }

    /// Takes an epoch that did not begin out of the control file, where it may be by now: the log
    /// may go on in the epoch it has, past the place of this one's BARRIER.
    fn epoch_not_entered(&self) {
        let before = self.history();
        if let Err(error) = self.update_control(|control| control.history = before) {
            // Opening drops an entry that is ahead of the log, so the log must not grow.
            let _ = self.poison(&error);
        }
    }
}
