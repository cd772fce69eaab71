//! What an open log says of itself, and its control file.

use std::sync::PoisonError;

use tokio::sync::watch;
use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::{Epoch, History};
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::Digest;
use towline_protocol::terms::Terms;

use crate::control::Control;
use crate::error::WalError;
use crate::log::Log;
use crate::watch_appended::AppendedWatch;

impl Log {
    /// Why the log is poisoned, if it is.
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.poison.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the control file says.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the control file. Both copies are durable on return.
    ///
    /// For what a node keeps there: its fence, its role, how far it knows the log to be committed.
    /// The rest is the log's own account of itself; a change of that may let a loss pass for a torn
    /// tail.
    ///
    /// # Errors
    /// What the operating system says, or [`WalError::Closed`]; the change does not count then.
    ///
    /// # Panics
    /// If the change lowers the fence.
    pub fn update_control(&self, change: impl FnOnce(&mut Control)) -> Result<(), WalError> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = control.clone();
        change(&mut changed);
        assert!(changed.fence >= control.fence, "a fence never falls");
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.as_mut().ok_or(WalError::Closed)?.write(&*self.disk, &mut changed)?;
        *control = changed;
        Ok(())
    }

    /// Lets nobody change the control file through this log any more: it may soon be another's.
    pub(crate) fn close_control(&self) {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Makes this disk another one to the cluster: what it promised before is void, and it counts
    /// again once it is granted. Durable on return; holds from the next opening on.
    ///
    /// # Errors
    /// As [`Log::update_control`].
    pub fn renew(&self) -> Result<(), WalError> {
        let incarnation = Incarnation(self.disk.nonce());
        self.update_control(|control| control.incarnation = incarnation)
    }

    /// Everything below is in the log.
    #[must_use]
    pub fn appended(&self) -> Lsn {
        self.reservations.prefix().end
    }

    /// Everything below is on this disk.
    #[must_use]
    pub fn flushed(&self) -> Lsn {
        self.flushes.flushed()
    }

    /// [`Log::appended`] as it grows.
    #[must_use]
    pub fn watch_appended(&self) -> AppendedWatch {
        AppendedWatch::new(&self.reservations)
    }

    /// [`Log::flushed`] as it grows.
    #[must_use]
    pub fn watch_flushed(&self) -> watch::Receiver<Lsn> {
        self.flushes.subscribe()
    }

    /// The digest of everything appended.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.reservations.prefix().digest
    }

    /// The epochs of what is in the log.
    #[must_use]
    pub fn history(&self) -> History {
        self.lineage.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The epoch of the newest record.
    #[must_use]
    pub fn last_epoch(&self) -> Epoch {
        self.lineage.lock().unwrap_or_else(PoisonError::into_inner).0.last_epoch()
    }

    /// The BARRIER that opens the next epoch of exactly this log, under the terms it has now. For
    /// a log that no other node holds: among several, a candidate asks for its epoch first.
    #[must_use]
    pub fn next_barrier(&self) -> Barrier {
        let control = self.control();
        let _tail = self.tail();
        let previous = self.last_epoch();
        let (previous_end, digest) = {
            let prefix = self.reservations.prefix();
            (prefix.end, prefix.digest)
        };
        Barrier {
            epoch: previous.max(control.fence).next(control.incarnation),
            previous,
            previous_end,
            digest,
            terms: self.terms(),
            accepted_loss: false,
        }
    }

    /// Who votes and what an acknowledgement promises: what the newest BARRIER of the log says, or
    /// its founding.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.lineage.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// About how many bytes are stored between two positions: their distance without the Lsns
    /// that were skipped where an epoch ended early.
    #[must_use]
    pub fn stored_bytes_between(&self, from: Lsn, to: Lsn) -> u64 {
        let history = self.history();
        let skipped = history
            .starts()
            .iter()
            .map(|start| start.first.min(to).distance_from(start.previous_end.max(from)));
        to.distance_from(from).saturating_sub(skipped.sum())
    }

    /// Notes in the control file how far the log is durable.
    pub(crate) fn note_durable(&self, flushed: Lsn) -> Result<(), WalError> {
        if self.control.lock().unwrap_or_else(PoisonError::into_inner).durable >= flushed {
            return Ok(());
        }
        self.update_control(|control| control.durable = control.durable.max(flushed))
    }
}
