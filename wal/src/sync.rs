//! Group commit: one sync releases everybody whose records it covers.
//!
//! One at a time syncs for all: the log's own thread, or a caller that waits and finds
//! nobody at it. While it runs, the next batch fills.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use towline_protocol::lsn::Lsn;

use crate::error::WalError;
use crate::log::Log;
use crate::planted::{Bug, planted};
use crate::wal::SyncMode;

/// After so long without a record, how far the log is durable is noted in the control file.
const IDLE: Duration = Duration::from_secs(1);

/// The syncer's thread: a step whenever its mode says so.
pub(crate) fn run(log: &Log) {
    loop {
        match wait_for_work(log) {
            Work::Stop => return,
            // Only a note: what fails here fails where it matters, too.
            Work::Idle => drop(log.note_durable(log.flushed())),
            // A failed sync has poisoned the log; whoever waits has been told.
            Work::Sync => drop(log.sync_step(log.appended())),
        }
        if log.poisoned().is_some() {
            return;
        }
    }
}

enum Work {
    Sync,
    Idle,
    Stop,
}

fn wait_for_work(log: &Log) -> Work {
    let mut tail = log.tail();
    let mut unsynced_since = None;
    loop {
        if tail.stop {
            return Work::Stop;
        }
        let (appended, flushed) = (log.appended(), log.flushed());
        if appended == flushed {
            unsynced_since = None;
        }
        let mut wait = IDLE;
        tail.wake_syncer_at = match log.sync_mode {
            _ if appended == flushed => Some(Lsn::ZERO),
            SyncMode::Eager => return Work::Sync,
            SyncMode::Interval(every) => {
                let since: &mut Instant = unsynced_since.get_or_insert_with(Instant::now);
                wait = every.saturating_sub(since.elapsed());
                if wait.is_zero() {
                    return Work::Sync;
                }
                None
            }
            SyncMode::Bytes(most) if appended.distance_from(flushed) >= most => return Work::Sync,
            SyncMode::Bytes(most) => flushed.checked_add(most),
            SyncMode::OnFlush => None,
        };
        let (woken, timeout) =
            log.unsynced.wait_timeout(tail, wait).unwrap_or_else(PoisonError::into_inner);
        tail = woken;
        tail.wake_syncer_at = None;
        if timeout.timed_out() && !tail.stop && log.appended() == log.flushed() {
            return Work::Idle;
        }
    }
}

impl Log {
    /// Flushes everything that is appended by now, and returns how far the log is flushed.
    /// Blocks.
    ///
    /// # Errors
    /// [`WalError::Poisoned`] if a sync failed, now or before.
    pub fn flush(&self) -> Result<Lsn, WalError> {
        let tail = self.tail();
        // A segment that was just entered reserves nothing that anybody will publish.
        let target = if tail.in_flight.is_empty() { self.appended() } else { tail.reserved };
        drop(tail);
        self.wait_flushed(target)?;
        Ok(self.flushed())
    }

    /// Waits until everything below `lsn` is flushed; syncs itself if nobody else does. Blocks.
    ///
    /// # Errors
    /// [`WalError::Poisoned`] if a sync failed, now or before; [`WalError::NoBoundary`] if nobody
    /// has reserved that much yet.
    pub fn wait_flushed(&self, lsn: Lsn) -> Result<(), WalError> {
        while self.flushed() < lsn {
            if self.sync_step(lsn)? {
                continue;
            }
            // Everything published is flushed, so `lsn` lies behind a reservation in flight.
            let tail = self.tail();
            if lsn > tail.reserved || (tail.in_flight.is_empty() && self.appended() < lsn) {
                return Err(WalError::NoBoundary(lsn));
            }
            if self.appended() < lsn {
                drop(self.wait_moved(tail));
            }
        }
        Ok(())
    }

    /// One sync, of everything that is published when it begins, unless a sync that ran meanwhile
    /// has covered what is `wanted`; `false` if nothing published is left to sync.
    pub(crate) fn sync_step(&self, wanted: Lsn) -> Result<bool, WalError> {
        let mut runs = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        // Not on the lock itself: whoever releases it would get it again first, and sync for
        // itself alone while those whose records are flushed still wait for it.
        while *runs {
            runs = self.synced.wait(runs).unwrap_or_else(PoisonError::into_inner);
            if self.flushed() >= wanted {
                return Ok(true);
            }
        }
        if let Some(reason) = self.poisoned() {
            return Err(WalError::Poisoned(reason));
        }
        if self.flushed() >= wanted {
            return Ok(true);
        }
        *runs = true;
        drop(runs);
        if self.threads {
            self.note_sync_began(Some(Instant::now()));
        }
        let synced = self.sync_published();
        self.note_sync_began(None);
        *self.syncing.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.synced.notify_all();
        synced
    }

    fn note_sync_began(&self, began: Option<Instant>) {
        *self.sync_began.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }

    /// For how long the sync that runs now has been running: a disk that stalls is seen here
    /// before anything fails. `None` if none runs, and for a log without threads.
    #[must_use]
    pub fn sync_in_flight_for(&self) -> Option<Duration> {
        let began = *self.sync_began.lock().unwrap_or_else(PoisonError::into_inner);
        began.map(|began| began.elapsed())
    }

    /// The sync itself; one at a time.
    fn sync_published(&self) -> Result<bool, WalError> {
        let (target, unsynced, current) = {
            let tail = self.tail();
            (self.appended(), tail.unsynced.clone(), tail.segment.as_ref().map(|now| now.base()))
        };
        if target <= self.flushed() {
            return Ok(false);
        }
        for segment in &unsynced {
            if planted(Bug::SyncLeftOut) && Some(segment.base()) != current {
                continue;
            }
            if let Err(error) = segment.sync() {
                return Err(self.poison(&error));
            }
        }
        // A segment that was the tail when the sync began may have taken more since, and one with
        // a reservation still in flight will.
        self.tail().unsynced.retain(|segment| {
            let base = segment.base();
            Some(base) == current
                || segment.header.size.next_base(base) > target
                || !unsynced.iter().any(|synced| synced.base() == base)
        });
        self.flushed.send_replace(target);
        Ok(true)
    }

    /// A failed sync is never tried again: the kernel may have dropped the pages and would say
    /// that all is well (the fsync study of ATC'20).
    fn poison(&self, error: &WalError) -> WalError {
        let reason = error.to_string();
        if planted(Bug::PoisonedGoesOn) {
            return WalError::Poisoned(reason);
        }
        let mut poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = poison.get_or_insert(reason).clone();
        drop(poison);
        self.moved.notify_all();
        self.wake_watchers();
        WalError::Poisoned(reason)
    }
}
