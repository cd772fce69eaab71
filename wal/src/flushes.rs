//! Who waits for a flush, who leads the sync that gives it, and how far the log is flushed.
//!
//! One at a time leads. Threads that wait for the same sync wait together, and one call of the
//! kernel wakes them all; a task has a waker of its own. Whoever came too late for a sync is
//! woken to lead the next one. So a lone writer syncs by itself, and many are woken without a lock
//! that all of them need.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use rustix::thread::futex;
use tokio::sync::watch;
use towline_protocol::lsn::Lsn;

/// After a thread that gathered writers lost its core for longer than a sync takes, this many syncs
/// do not gather. Losing it costs a time slice, some ten syncs: a hundredth at most goes that way.
const CROWDED_SYNCS: u32 = 1_000;

/// Wakes every sleeper: the largest count the kernel takes.
const SLEEPERS_ALL: u32 = i32::MAX as u32;

/// The flushes of one log.
#[derive(Debug)]
pub(crate) struct Flushes {
    flushed: AtomicU64,
    watched: watch::Sender<Lsn>,
    queue: Mutex<Queue>,
}

/// Who waits.
#[derive(Debug, Default)]
struct Queue {
    /// Tasks, in the order of what they wait for, and each with a ticket of its own.
    waiting: BTreeMap<(Lsn, u64), Waker>,
    /// Threads whose records the sync covers that runs, or the next one if none does.
    covered: Crowd,
    /// Threads that came too late for it.
    late: Crowd,
    /// How far the sync reaches that runs.
    reach: Option<Lsn>,
    last_ticket: u64,
    /// Whether somebody leads.
    led: bool,
    /// Who leads, or led last.
    by: Lead,
    /// How many syncs callers led.
    led_by_callers: u64,
    /// When the sync that runs began.
    began: Option<Instant>,
    /// Who was released by the last sync, until the next leader asks.
    released: Option<Released>,
    /// For so many syncs more, no leader waits for whom the last one released.
    crowded: u32,
    /// Whether the syncer was called for those who can not lead, and has not looked yet.
    called: bool,
    /// After a failed sync nobody leads any more.
    failed: bool,
}

/// Threads that wait together.
#[derive(Debug, Default)]
struct Crowd {
    count: u64,
    bell: Arc<Bell>,
}

/// What threads sleep on, in the kernel: a number that changes when they are to wake.
#[derive(Debug, Default)]
pub(crate) struct Bell(AtomicU32);

impl Bell {
    /// Changes the number, and wakes so many of those who sleep on it. Who was only about to sleep
    /// does not.
    fn ring(&self, sleepers: u32) {
        self.0.fetch_add(1, Ordering::Relaxed);
        // It fails for no number of sleepers.
        let _ = futex::wake(&self.0, futex::Flags::PRIVATE, sleepers);
    }
}

/// A thread's place among those who wait together.
#[derive(Debug)]
pub(crate) struct Place {
    bell: Arc<Bell>,
    /// The bell's number when the place was given: under the lock, so no ring is missed.
    number: u32,
}

impl Place {
    /// Sleeps until the bell rings, or for nothing.
    pub(crate) fn sleep(&self) {
        // Interrupted, or rung before it slept: whoever wakes looks.
        let _ = futex::wait(&self.bell.0, futex::Flags::PRIVATE, self.number, None);
    }
}

/// Those whom a sync released: most of them append again at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Released {
    pub(crate) writers: u64,
    /// The number of the first record that any of them can append.
    pub(crate) next: u64,
    pub(crate) at: Instant,
    /// How long the sync took.
    pub(crate) took: Duration,
}

impl Queue {
    /// A thread slept there and does not any more. Where a sync was done since, nobody counts.
    fn leave(&mut self, place: &Place) {
        let crowds = [&mut self.covered, &mut self.late].into_iter();
        if let Some(crowd) = crowds.into_iter().find(|it| Arc::ptr_eq(&it.bell, &place.bell)) {
            crowd.count -= 1;
        }
    }
}

/// Who leads a sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Lead {
    /// A thread that waits for a flush.
    Caller,
    /// The log's own thread.
    #[default]
    Syncer,
}

/// What became of a sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Synced {
    /// Everything below is on the disk.
    UpTo(Lsn),
    /// There was nothing to sync.
    Nothing,
    /// It failed, and the log is poisoned.
    Failed,
}

/// What a thread that wants a flush has to do.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Nothing: it is there.
    Flushed,
    /// Lead the sync, and then say so by [`Flushes::finish`].
    Lead,
    /// Sleep there, and ask again with it.
    Sleep(Place),
    /// The log is poisoned.
    Failed,
}

/// What a task that wants a flush has to do: it never leads.
#[derive(Debug)]
pub(crate) enum Wait {
    /// Nothing: it is there.
    Flushed,
    /// Wait to be woken, and ask again with the number. The syncer is to be called if nobody leads.
    Until { number: u64, call_syncer: bool },
    /// The log is poisoned.
    Failed,
}

impl Flushes {
    pub(crate) fn new(flushed: Lsn) -> Self {
        Self {
            flushed: AtomicU64::new(flushed.get()),
            watched: watch::Sender::new(flushed),
            queue: Mutex::default(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything below is on this disk.
    pub(crate) fn flushed(&self) -> Lsn {
        Lsn::new(self.flushed.load(Ordering::Acquire))
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Lsn> {
        self.watched.subscribe()
    }

    /// What a thread has to do for everything below `wanted` to be flushed; `place` is where it
    /// slept.
    pub(crate) fn turn(&self, wanted: Lsn, place: Option<Place>, lead: Lead) -> Turn {
        let mut queue = self.queue();
        if let Some(place) = place {
            queue.leave(&place);
        }
        if self.flushed() >= wanted {
            return Turn::Flushed;
        }
        if queue.failed {
            return Turn::Failed;
        }
        if !queue.led {
            (queue.led, queue.by) = (true, lead);
            queue.led_by_callers += u64::from(lead == Lead::Caller);
            return Turn::Lead;
        }
        let is_late = queue.reach.is_some_and(|reach| wanted > reach);
        let crowd = if is_late { &mut queue.late } else { &mut queue.covered };
        crowd.count += 1;
        let (bell, number) = (Arc::clone(&crowd.bell), crowd.bell.0.load(Ordering::Relaxed));
        Turn::Sleep(Place { bell, number })
    }

    /// As [`Flushes::turn`], for a task. `number` is what the last [`Wait::Until`] said.
    pub(crate) fn wait(&self, wanted: Lsn, number: Option<u64>, waker: &Waker) -> Wait {
        let mut queue = self.queue();
        let key = number.map(|number| (wanted, number));
        if self.flushed() >= wanted || queue.failed {
            if let Some(key) = key {
                queue.waiting.remove(&key);
            }
            return if self.flushed() >= wanted { Wait::Flushed } else { Wait::Failed };
        }
        let key = key.unwrap_or_else(|| {
            queue.last_ticket += 1;
            (wanted, queue.last_ticket)
        });
        queue.waiting.insert(key, waker.clone());
        let call_syncer = !queue.led && !queue.called;
        queue.called |= call_syncer;
        Wait::Until { number: key.1, call_syncer }
    }

    /// Somebody does not wait any longer.
    pub(crate) fn leave(&self, wanted: Lsn, number: u64) {
        self.queue().waiting.remove(&(wanted, number));
    }

    /// The sync of everything below `reach` begins.
    pub(crate) fn begin(&self, reach: Lsn, now: Option<Instant>) {
        let mut queue = self.queue();
        (queue.reach, queue.began) = (Some(reach), now);
    }

    /// Those whom the last sync released, if no leader has asked for them yet and it is worth
    /// while to wait for them.
    pub(crate) fn take_released(&self) -> Option<Released> {
        let mut queue = self.queue();
        let released = queue.released.take();
        let is_crowded = queue.crowded > 0;
        queue.crowded = queue.crowded.saturating_sub(1);
        released.filter(|_| !is_crowded)
    }

    /// Somebody else had the core for longer than a sync takes: nobody gives it away for a while.
    pub(crate) fn crowded(&self) {
        self.queue().crowded = CROWDED_SYNCS;
    }

    /// The leader is done; `next_record` is the number of that. Wakes whoever it concerns; returns
    /// whether the syncer is to be called for those who are left.
    pub(crate) fn finish(&self, synced: Synced, next_record: u64) -> bool {
        let mut queue = self.queue();
        let began = queue.began.take();
        (queue.led, queue.reach) = (false, None);
        queue.failed |= synced == Synced::Failed;
        if let Synced::UpTo(flushed) = synced {
            self.flushed.store(flushed.get(), Ordering::Release);
        }
        let left = queue.waiting.split_off(&(self.flushed(), u64::MAX));
        let mut tasks = std::mem::replace(&mut queue.waiting, left);
        if queue.failed {
            tasks.append(&mut queue.waiting);
        }
        let late = std::mem::take(&mut queue.late);
        let covered = std::mem::replace(&mut queue.covered, late);
        let writers = covered.count + u64::from(queue.by == Lead::Caller);
        queue.released = began.map(|began| {
            let at = Instant::now();
            Released { writers, next: next_record, at, took: at - began }
        });
        // Whoever leads next first: until then the disk has nothing to do.
        let waits = queue.covered.count > 0;
        let first_bell = waits.then(|| Arc::clone(&queue.covered.bell));
        let next_sleepers = if queue.failed { SLEEPERS_ALL } else { 1 };
        let call_syncer = !waits && !queue.waiting.is_empty() && !queue.called;
        queue.called |= call_syncer;
        drop(queue);
        first_bell.into_iter().for_each(|bell| bell.ring(next_sleepers));
        if covered.count > 0 {
            covered.bell.ring(SLEEPERS_ALL);
        }
        if let Synced::UpTo(flushed) = synced {
            self.watched.send_replace(flushed);
        }
        tasks.into_values().for_each(Waker::wake);
        call_syncer
    }

    /// Nothing will be flushed any more; wakes everybody.
    pub(crate) fn fail(&self) {
        self.queue().failed = true;
        self.wake_all();
    }

    /// For how long the sync that runs now has been running.
    pub(crate) fn running_for(&self) -> Option<Duration> {
        self.queue().began.map(|began| began.elapsed())
    }

    /// What the syncer has to know: how many syncs callers have led, whether the last one was led
    /// by a caller, and whether somebody waits who can not lead.
    pub(crate) fn look(&self) -> Look {
        let mut queue = self.queue();
        queue.called = false;
        Look {
            led_by_callers: queue.led_by_callers,
            last_by_caller: queue.by == Lead::Caller,
            tasks_wait: !queue.waiting.is_empty(),
        }
    }

    /// Wakes everybody, though nothing is flushed: those who look find out why.
    pub(crate) fn wake_all(&self) {
        let queue = self.queue();
        queue.covered.bell.ring(SLEEPERS_ALL);
        queue.late.bell.ring(SLEEPERS_ALL);
        let wakers: Vec<_> = queue.waiting.values().cloned().collect();
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
        self.watched.send_modify(|_| {});
    }

    /// Nobody begins to lead as long as this is held.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.queue()
    }
}

/// What the syncer sees when it looks around.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Look {
    pub(crate) led_by_callers: u64,
    pub(crate) last_by_caller: bool,
    pub(crate) tasks_wait: bool,
}
