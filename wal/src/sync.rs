//! Group commit: one sync releases everybody whose records it covers.
//!
//! One at a time syncs for all: the log's own thread, or a caller that waits and finds
//! nobody at it. While it runs, the next batch fills; before it runs, those whom the last one
//! released may come back, or each sync would carry only half of the writers.

use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use towline_protocol::lsn::Lsn;

use crate::error::WalError;
use crate::flushes::{Lead, Turn, Wait};
use crate::log::Log;
use crate::planted::{Bug, planted};
use crate::reserve::count_since;
use crate::wal::SyncMode;

/// After so long without a record, how far the log is durable is noted in the control file.
const IDLE: Duration = Duration::from_secs(1);
/// While callers sync for themselves, the log's own thread lets them: it syncs what has waited for
/// so long. To wake it for every record would cost them more than it gives.
const GRACE: Duration = Duration::from_millis(1);

/// A leader waits for those whom the last sync released: no longer than this part of what it took
/// since its end, and no longer than that one without a record.
const GATHER_DIVISOR: u32 = 2;
const STALL_DIVISOR: u32 = 8;
/// A sync that took longer counts as this: the writers come back no later for a slow disk, and a
/// core is not given away in vain for as long as a stalled one was waited for.
const GATHER_FOR_MAX: Duration = Duration::from_micros(500);

/// The syncer's thread: a step whenever its mode says so.
pub(crate) fn run(log: &Log) {
    let mut seen = Seen::default();
    loop {
        match wait_for_work(log, &mut seen) {
            Work::Stop => return,
            // Only a note: what fails here fails where it matters, too.
            Work::Idle => drop(log.note_durable(log.flushed())),
            // A failed sync has poisoned the log; whoever waits has been told.
            Work::Sync => drop(log.sync_step(log.appended(), Lead::Syncer)),
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

/// What the syncer remembers from look to look.
#[derive(Default)]
struct Seen {
    led_by_callers: u64,
    unsynced_since: Option<Instant>,
}

fn wait_for_work(log: &Log, seen: &mut Seen) -> Work {
    loop {
        if log.is_stopped() {
            return Work::Stop;
        }
        let look = log.flushes.look();
        let (flushed, appended) = (log.flushed(), log.appended());
        let callers_lead = seen.led_by_callers != look.led_by_callers;
        seen.led_by_callers = look.led_by_callers;
        if appended == flushed || callers_lead {
            seen.unsynced_since = None;
        }
        let (wake_at, wait) = if appended == flushed && !callers_lead {
            (Some(flushed.advance(1)), IDLE)
        } else if look.tasks_wait && appended > flushed {
            return Work::Sync;
        } else {
            let since = *seen.unsynced_since.get_or_insert_with(Instant::now);
            let left = |most: Duration| most.saturating_sub(since.elapsed());
            match log.sync_mode {
                SyncMode::Eager if !look.last_by_caller => return Work::Sync,
                SyncMode::Eager => (None, left(GRACE)),
                SyncMode::Interval(every) => (None, left(every)),
                SyncMode::Bytes(most) if appended.distance_from(flushed) >= most => {
                    return Work::Sync;
                }
                SyncMode::Bytes(most) => (flushed.checked_add(most), IDLE),
                SyncMode::OnFlush => (None, IDLE),
            }
        };
        if wait.is_zero() {
            return Work::Sync;
        }
        let in_vain = log.reservations.wait_for_work(wake_at, wait);
        if in_vain && wait == IDLE && !log.is_stopped() && log.appended() == log.flushed() {
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
        self.wait_flushed(self.reservations.reserved())?;
        Ok(self.flushed())
    }

    /// Waits until everything below `lsn` is flushed; syncs itself if nobody else does. Blocks.
    ///
    /// # Errors
    /// [`WalError::Poisoned`] if a sync failed, now or before; [`WalError::NoBoundary`] if nobody
    /// has reserved that much yet.
    pub fn wait_flushed(&self, lsn: Lsn) -> Result<(), WalError> {
        while self.flushed() < lsn {
            if !self.sync_step(lsn, Lead::Caller)? && !self.reservations.wait_published(lsn) {
                return Err(WalError::NoBoundary(lsn));
            }
        }
        Ok(())
    }

    /// As [`Log::wait_flushed`], for a task: it is woken, with all others whose records the same
    /// sync covers, by the thread that synced. Can be dropped at any time.
    ///
    /// # Errors
    /// As [`Log::wait_flushed`], and [`WalError::Closed`] once the log is closed.
    pub fn until_flushed(&self, lsn: Lsn) -> UntilFlushed<'_> {
        UntilFlushed { log: self, lsn, number: None }
    }

    /// One sync, of everything that is published when it begins, unless a sync that ran meanwhile
    /// has covered what is `wanted`; `false` if nothing published is left to sync.
    pub(crate) fn sync_step(&self, wanted: Lsn, lead: Lead) -> Result<bool, WalError> {
        let mut place = None;
        loop {
            match self.flushes.turn(wanted, place.take(), lead) {
                Turn::Flushed => return Ok(true),
                Turn::Lead => return self.lead(),
                Turn::Failed => return Err(self.poisoned_error()),
                Turn::Sleep(own) => {
                    own.sleep();
                    place = Some(own);
                }
            }
            // Before it is flushed, this thread is woken to lead, or for nothing.
            if self.flushed() >= wanted {
                return Ok(true);
            }
        }
    }

    fn poisoned_error(&self) -> WalError {
        WalError::Poisoned(self.poisoned().unwrap_or_default())
    }

    /// The sync itself; one at a time.
    fn lead(&self) -> Result<bool, WalError> {
        if let Some(reason) = self.poisoned() {
            self.flushes.finish(None, true, self.reservations.count());
            return Err(WalError::Poisoned(reason));
        }
        if self.threads {
            self.gather();
        }
        let synced = self.sync_published();
        let failed = synced.is_err() && !planted(Bug::PoisonedGoesOn);
        let flushed = synced.as_ref().ok().copied().flatten();
        let call_syncer = self.flushes.finish(flushed, failed, self.reservations.count());
        if call_syncer {
            self.reservations.call_syncer();
        }
        if failed {
            self.wake_watchers();
        }
        Ok(synced?.is_some())
    }

    /// Lets those whom the last sync released append first, as long as they keep coming. It gives
    /// its core to them rather than sleep: a timer is later than they are.
    fn gather(&self) {
        let Some(released) = self.flushes.take_released() else { return };
        let took = released.took.min(GATHER_FOR_MAX);
        let (mut seen, mut since) = (released.next, Instant::now());
        loop {
            let (next, now) = (self.reservations.count(), Instant::now());
            if next != seen {
                (seen, since) = (next, now);
            }
            let all_came = count_since(released.next, next) >= released.writers;
            let too_long = now - released.at > took / GATHER_DIVISOR;
            if all_came || too_long || now - since > took / STALL_DIVISOR {
                return;
            }
            std::thread::yield_now();
            if now.elapsed() > released.took {
                return self.flushes.crowded();
            }
        }
    }

    /// For how long the sync that runs now has been running: a disk that stalls is seen here
    /// before anything fails. `None` if none runs, and for a log without threads.
    #[must_use]
    pub fn sync_in_flight_for(&self) -> Option<Duration> {
        self.flushes.running_for()
    }

    /// Returns how far the log is flushed now; `None` if nothing was left to sync.
    fn sync_published(&self) -> Result<Option<Lsn>, WalError> {
        let (target, unsynced, current) = {
            let tail = self.tail();
            (self.appended(), tail.unsynced.clone(), tail.segment.as_ref().map(|now| now.base()))
        };
        let flushed = self.flushed();
        if target <= flushed {
            return Ok(None);
        }
        self.flushes.begin(target, self.threads.then(Instant::now));
        for segment in &unsynced {
            if planted(Bug::SyncLeftOut) && Some(segment.base()) != current {
                continue;
            }
            if let Err(error) = segment.sync_between(flushed, target) {
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
        Ok(Some(target))
    }

    /// A failed sync is never tried again: the kernel may have dropped the pages and would say
    /// that all is well (the fsync study of ATC'20).
    pub(crate) fn poison(&self, error: &WalError) -> WalError {
        let reason = error.to_string();
        if planted(Bug::PoisonedGoesOn) {
            return WalError::Poisoned(reason);
        }
        let mut poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = poison.get_or_insert(reason).clone();
        drop(poison);
        let tail = self.tail();
        self.reservations.close();
        self.reservations.end();
        drop(tail);
        self.moved.notify_all();
        WalError::Poisoned(reason)
    }
}

/// Waits for a flush; see [`Log::until_flushed`].
#[derive(Debug)]
#[must_use = "nobody waits unless it is awaited"]
pub struct UntilFlushed<'a> {
    log: &'a Log,
    lsn: Lsn,
    number: Option<u64>,
}

impl UntilFlushed<'_> {
    fn ask(&mut self, waker: &Waker) -> Poll<Result<(), WalError>> {
        let (log, lsn) = (self.log, self.lsn);
        if !log.threads {
            return Poll::Ready(log.wait_flushed(lsn));
        }
        if log.is_stopped() {
            return Poll::Ready(Err(WalError::Closed));
        }
        if self.number.is_none() && lsn > log.reservations.reserved() {
            return Poll::Ready(Err(WalError::NoBoundary(lsn)));
        }
        match log.flushes.wait(lsn, self.number.take(), waker) {
            Wait::Flushed => Poll::Ready(Ok(())),
            Wait::Failed => Poll::Ready(Err(log.poisoned_error())),
            Wait::Until { number, call_syncer } => {
                self.number = Some(number);
                if call_syncer {
                    log.reservations.call_syncer();
                }
                // It may have been closed just now, and whoever waited was woken before.
                if log.is_stopped() { Poll::Ready(Err(WalError::Closed)) } else { Poll::Pending }
            }
        }
    }
}

impl Future for UntilFlushed<'_> {
    type Output = Result<(), WalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.log.flushed() >= self.lsn {
            return Poll::Ready(Ok(()));
        }
        self.ask(context.waker())
    }
}

impl Drop for UntilFlushed<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.log.flushes.leave(self.lsn, number);
        }
    }
}
