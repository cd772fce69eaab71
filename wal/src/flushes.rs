//! Who waits for a flush, who leads the sync that gives it, and how far the log is flushed.
//!
//! One at a time leads. Whoever comes while a sync runs waits for it on a waker of his own, and is
//! woken when his records are flushed, or when it is his turn to lead. So a lone writer syncs by
//! himself, and many are woken without a lock that all of them need.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use towline_protocol::lsn::Lsn;

/// For so many syncs nobody waits, after somebody who did lost his core to others. A slice of it
/// is some ten syncs long, so this costs a hundredth.
const CROWDED_SYNCS: u32 = 1_000;

/// The flushes of one log.
#[derive(Debug)]
pub(crate) struct Flushes {
    flushed: AtomicU64,
    watched: watch::Sender<Lsn>,
    queue: Mutex<Queue>,
}

/// Who waits, in the order of what they wait for.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<(Lsn, u64), Waiting>,
    next: u64,
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

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    lead: Lead,
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

/// Who leads a sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Lead {
    /// A thread that waits for a flush.
    Caller,
    /// The log's own thread.
    #[default]
    Syncer,
    /// A task: it must not block, so it only waits.
    Never,
}

/// What somebody who wants a flush has to do.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Nothing: it is there.
    Flushed,
    /// Lead the sync, and then say so by [`Flushes::finish`].
    Lead,
    /// Wait to be woken, and ask again with the number. The syncer is to be called if nobody leads.
    Wait { number: u64, call_syncer: bool },
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

    /// What to do for everything below `wanted` to be flushed. `number` is what the last
    /// [`Turn::Wait`] said.
    pub(crate) fn turn(&self, wanted: Lsn, number: Option<u64>, lead: Lead, waker: &Waker) -> Turn {
        let mut queue = self.queue();
        let key = number.map(|number| (wanted, number));
        let leads = lead != Lead::Never && !queue.led;
        if self.flushed() >= wanted || queue.failed || leads {
            if let Some(key) = key {
                queue.waiting.remove(&key);
            }
            if self.flushed() >= wanted {
                return Turn::Flushed;
            }
            if queue.failed {
                return Turn::Failed;
            }
            (queue.led, queue.by) = (true, lead);
            queue.led_by_callers += u64::from(lead == Lead::Caller);
            return Turn::Lead;
        }
        let key = key.unwrap_or_else(|| {
            queue.next += 1;
            (wanted, queue.next)
        });
        queue.waiting.insert(key, Waiting { waker: waker.clone(), lead });
        let call_syncer = !queue.led && !queue.called;
        queue.called |= call_syncer;
        Turn::Wait { number: key.1, call_syncer }
    }

    /// Somebody does not wait any longer.
    pub(crate) fn leave(&self, wanted: Lsn, number: u64) {
        self.queue().waiting.remove(&(wanted, number));
    }

    /// The leader begins.
    pub(crate) fn begin(&self, now: Option<Instant>) {
        self.queue().began = now;
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

    /// The leader has synced everything below `flushed`, or has failed; `next` is the number of
    /// the next record. Wakes whoever that concerns; returns whether the syncer is to be called
    /// for those who are left.
    pub(crate) fn finish(&self, flushed: Option<Lsn>, failed: bool, next: u64) -> bool {
        let mut queue = self.queue();
        let began = queue.began.take();
        queue.led = false;
        queue.failed |= failed;
        if let Some(flushed) = flushed {
            self.flushed.store(flushed.get(), Ordering::Release);
        }
        let behind = (self.flushed(), u64::MAX);
        let left = queue.waiting.split_off(&behind);
        let mut done = std::mem::replace(&mut queue.waiting, left);
        if queue.failed {
            done.append(&mut queue.waiting);
        }
        let callers = done.values().filter(|it| it.lead != Lead::Never).count() as u64;
        let writers = callers + u64::from(queue.by == Lead::Caller);
        queue.released = began.map(|began| {
            let at = Instant::now();
            Released { writers, next, at, took: at - began }
        });
        // Whoever leads next first: until he does, the disk has nothing to do.
        let next = queue.waiting.values().find(|it| it.lead != Lead::Never);
        let next = next.map(|it| it.waker.clone());
        let call_syncer = next.is_none() && !queue.waiting.is_empty() && !queue.called;
        queue.called |= call_syncer;
        drop(queue);
        next.into_iter().for_each(Waker::wake);
        if let Some(flushed) = flushed {
            self.watched.send_replace(flushed);
        }
        done.into_values().for_each(|it| it.waker.wake());
        call_syncer
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
            tasks_wait: queue.waiting.values().any(|it| it.lead == Lead::Never),
        }
    }

    /// Wakes everybody, though nothing is flushed: those who look find out why.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<_> = self.queue().waiting.values().map(|it| it.waker.clone()).collect();
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
