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
use crate::flushes::{Lead, Released, Synced, Turn, Wait};
use crate::log::Log;
use crate::planted::{Bug, planted};
use crate::reserve::count_since;
use crate::wal::SyncMode;

/// After so long without a record, how far the log is durable is noted in the control file.
const IDLE: Duration = Duration::from_secs(1);
/// While callers sync for themselves, the log's own thread lets them: it syncs what has waited for
/// so long. To wake it for every record would cost them more than it gives.
const GRACE: Duration = Duration::from_millis(1);
/// Each time it looks and they still do, it waits twice as long, and at last so long: a look takes
/// a core from whoever syncs, if only for a moment.
const GRACE_MAX: Duration = Duration::from_millis(8);

/// After a sync that took T, the next leader waits for the writers it released until T/2 after its
/// end ...
const GATHER_DIVISOR: u32 = 2;
/// ... and gives up earlier if no record came for T/8.
const STALL_DIVISOR: u32 = 8;
/// T counts as no more than this: writers come back no later from a slow disk than from a fast one.
const GATHER_FOR_MAX: Duration = Duration::from_micros(500);

/// The syncer's thread: a step whenever its mode says so.
pub(crate) fn run(log: &Log) {
    let mut seen = Seen { led_by_callers: 0, grace: GRACE, unsynced_since: None };
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
struct Seen {
    led_by_callers: u64,
    /// How long callers are let, by now.
    grace: Duration,
    unsynced_since: Option<Instant>,
}

fn wait_for_work(log: &Log, seen: &mut Seen) -> Work {
    loop {
        if log.is_stopped() || log.poisoned().is_some() {
            return Work::Stop;
        }
        let look = log.flushes.look();
        let (flushed, appended) = (log.flushed(), log.appended());
        let callers_lead = seen.led_by_callers != look.led_by_callers;
        seen.led_by_callers = look.led_by_callers;
        seen.grace = if callers_lead { (seen.grace * 2).min(GRACE_MAX) } else { GRACE };
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
                SyncMode::Eager => (None, left(seen.grace)),
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
            // Woken by the sync that covers it, to lead the next one, or spuriously.
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
            self.flushes.finish(Synced::Failed, self.reservations.count());
            return Err(WalError::Poisoned(reason));
        }
        if self.threads {
            self.gather();
        }
        let synced = self.sync_published();
        let outcome = match &synced {
            Ok(Some(flushed)) => Synced::UpTo(*flushed),
            Ok(None) => Synced::Nothing,
            Err(_) if planted(Bug::PoisonedGoesOn) => Synced::Nothing,
            Err(_) => Synced::Failed,
        };
        let call_syncer = self.flushes.finish(outcome, self.reservations.count());
        if call_syncer {
            self.reservations.call_syncer();
        }
        if outcome == Synced::Failed {
            self.wake_watchers();
        }
        Ok(synced?.is_some())
    }

    /// Lets those whom the last sync released append first, as long as they keep coming. It gives
    /// its core to them rather than sleep: a timer is later than they are.
    fn gather(&self) {
        let Some(released) = self.flushes.take_released() else { return };
        let mut gathering = Gathering::new(released, Instant::now());
        loop {
            let now = Instant::now();
            if !gathering.waits(self.reservations.count(), now) {
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
        let mut tail = self.tail();
        tail.unsynced.retain(|segment| {
            let base = segment.base();
            Some(base) == current
                || segment.header.size.next_base(base) > target
                || !unsynced.iter().any(|synced| synced.base() == base)
        });
        let is_over = tail.synced(target) && self.threads;
        drop(tail);
        if is_over {
            self.provision.come_to_rest();
        }
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
        // Also if it is no sync that failed: nobody leads another one.
        self.flushes.fail();
        WalError::Poisoned(reason)
    }
}

/// How long a leader waits for those whom the last sync released.
#[derive(Debug)]
struct Gathering {
    released: Released,
    /// What counts as the time that sync took.
    took: Duration,
    /// The number of the next record, and when it last changed.
    seen: (u64, Instant),
}

impl Gathering {
    fn new(released: Released, now: Instant) -> Self {
        let took = released.took.min(GATHER_FOR_MAX);
        Self { released, took, seen: (released.next, now) }
    }

    /// Whether it is worth while to wait on; `next` is the number of the next record.
    fn waits(&mut self, next: u64, now: Instant) -> bool {
        if next != self.seen.0 {
            self.seen = (next, now);
        }
        let all_came = count_since(self.released.next, next) >= self.released.writers;
        let too_long = now - self.released.at > self.took / GATHER_DIVISOR;
        !(all_came || too_long || now - self.seen.1 > self.took / STALL_DIVISOR)
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

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    /// A sync that took so long released so many writers; and its end.
    fn released(writers: u64, took: Duration) -> (Gathering, Instant) {
        let at = Instant::now();
        (Gathering::new(Released { writers, next: 100, at, took }, at), at)
    }

    #[test]
    fn nobody_is_waited_for_who_is_there() {
        // A lone writer leads only once its own record is appended.
        let (mut gathering, at) = released(1, 200 * MICRO);
        assert!(!gathering.waits(101, at));
        let (mut gathering, at) = released(3, 200 * MICRO);
        assert!(gathering.waits(101, at) && gathering.waits(102, at));
        assert!(!gathering.waits(103, at));
    }

    #[test]
    fn the_wait_is_a_part_of_the_sync_and_of_a_fast_one_at_the_most() {
        for (took, most) in [(200 * MICRO, 100), (500 * MICRO, 250), (90_000_000 * MICRO, 250)] {
            let (mut gathering, at) = released(1_000, took);
            let last = (0..).take_while(|micros| {
                // They keep coming.
                gathering.waits(101 + micros, at + MICRO * u32::try_from(*micros).unwrap())
            });
            assert_eq!(last.count(), most + 1, "after {took:?}");
        }
    }

    #[test]
    fn a_wait_ends_when_nobody_comes_any_more() {
        let (mut gathering, at) = released(1_000, 400 * MICRO);
        assert!(gathering.waits(101, at + 40 * MICRO));
        assert!(gathering.waits(101, at + 90 * MICRO));
        assert!(!gathering.waits(101, at + 91 * MICRO));
    }
}
