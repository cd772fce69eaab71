//! What is published without a gap, and those who wait for it to grow.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{Digest, Fingerprint, RECORD_ALIGN};

use super::planted::{Bug, planted};
use super::{CLOSED, COUNT_MASK, Reservations, SLOTS, count_of, count_since, offset_of, slot_of};
use crate::atomics::{MutexGuard, Ordering, fence};

/// Somebody waits on `moved`.
const WAITER: usize = 1;
/// Somebody waits for `appended` to change.
const WATCHER: usize = 2;
/// The syncer waits on `work`.
const SYNCER: usize = 4;

/// What is drained.
#[derive(Debug)]
pub(crate) struct Prefix {
    /// How many records; wraps round as the count in the word does.
    count: u64,
    /// Everything below is in the log.
    pub(crate) end: Lsn,
    /// The digest of everything below `end`.
    pub(crate) digest: Digest,
    /// Where the target lies.
    pub(super) base: Lsn,
    /// How far the log has to be appended for the syncer to be woken.
    wake_syncer_at: Option<Lsn>,
    /// The syncer is to look around, whatever is appended.
    called: bool,
    /// Nothing more comes: nobody is to wait any longer.
    ended: bool,
}

impl Prefix {
    pub(super) const fn new(end: Lsn, digest: Digest) -> Self {
        Self {
            count: 0,
            end,
            digest,
            base: Lsn::ZERO,
            wake_syncer_at: None,
            called: false,
            ended: false,
        }
    }
}

impl<T> Reservations<T> {
    /// The published prefix, as it is now.
    pub(crate) fn prefix(&self) -> MutexGuard<'_, Prefix> {
        let mut prefix = self.prefix.lock().unwrap_or_else(PoisonError::into_inner);
        self.drain(&mut prefix);
        prefix
    }

    /// Drains unless somebody else does: for whoever only keeps the ring from filling up.
    pub(super) fn try_drain(&self) {
        if let Ok(mut prefix) = self.prefix.try_lock() {
            self.drain(&mut prefix);
        }
    }

    fn drain(&self, prefix: &mut Prefix) {
        let before = prefix.end;
        loop {
            let slot = &self.slots[slot_of(prefix.count)];
            let end = Lsn::new(slot.end.load(Ordering::Acquire));
            // Drained long ago, or never used: the slot's next record is not published.
            if end <= prefix.end {
                break;
            }
            let fingerprint = Fingerprint(slot.fingerprint.load(Ordering::Relaxed));
            prefix.digest = prefix.digest.followed_by(fingerprint);
            prefix.end = end;
            prefix.count = (prefix.count + 1) & COUNT_MASK;
        }
        if prefix.end > before {
            // The slots may be used again.
            self.shown.0.drained.store(prefix.count, Ordering::Release);
            self.tell(prefix);
        }
    }

    /// Tells those who want to know that the prefix has grown.
    fn tell(&self, prefix: &mut Prefix) {
        let mut wanted = self.shown.0.wanted.load(Ordering::Relaxed);
        if wanted == 0 {
            return;
        }
        if wanted & WAITER != 0 {
            self.moved.notify_all();
        }
        if wanted & WATCHER != 0 {
            self.appended.send_replace(prefix.end);
        }
        if prefix.wake_syncer_at.take_if(|at| *at <= prefix.end).is_some() {
            self.work.notify_one();
            wanted &= !SYNCER;
        }
        self.shown.0.wanted.store(wanted & SYNCER, Ordering::Relaxed);
    }

    /// Has whoever publishes next drain and tell. What was published before is drained here.
    fn want(&self, prefix: &mut Prefix, who: usize) {
        let wanted = self.shown.0.wanted.load(Ordering::Relaxed);
        self.shown.0.wanted.store(wanted | who, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.drain(prefix);
    }

    /// Whether nothing can be reserved, and nothing that is reserved is not published.
    pub(super) fn is_quiet(&self, prefix: &Prefix) -> bool {
        let word = self.word.0.load(Ordering::Acquire);
        word & CLOSED != 0 && count_of(word) == prefix.count
    }

    /// Waits until `done`, which is asked again whenever the prefix has grown; at the latest until
    /// nothing more comes.
    fn wait_until(&self, done: impl Fn(&Prefix) -> bool) -> MutexGuard<'_, Prefix> {
        let mut prefix = self.prefix();
        while !done(&prefix) && !prefix.ended {
            let before = prefix.end;
            self.want(&mut prefix, WAITER);
            if prefix.end == before {
                prefix = self.moved.wait(prefix).unwrap_or_else(PoisonError::into_inner);
            }
        }
        prefix
    }

    /// Waits until everything reserved before the word was closed is published. Returns whether
    /// it still is closed, and all published: then nothing changes while the tail is held.
    pub(crate) fn wait_quiet(&self) -> bool {
        if planted(Bug::SealedAtOnce) {
            return true;
        }
        let closed_and_not_quiet = |prefix: &Prefix| {
            self.word.0.load(Ordering::Acquire) & CLOSED != 0 && !self.is_quiet(prefix)
        };
        let prefix = self.wait_until(|prefix| !closed_and_not_quiet(prefix));
        self.is_quiet(&prefix)
    }

    /// Waits until a record may be reserved, as far as the ring goes.
    pub(crate) fn wait_slot(&self) {
        drop(self.wait_until(|prefix| {
            let count = count_of(self.word.0.load(Ordering::Acquire));
            count_since(prefix.count, count) < SLOTS
        }));
    }

    /// Waits until everything below `lsn` is published; `false` if nobody has reserved that much.
    pub(crate) fn wait_published(&self, lsn: Lsn) -> bool {
        let unreserved = |prefix: &Prefix| {
            let word = self.word.0.load(Ordering::Acquire);
            // A target that was just entered reserves nothing that anybody will publish.
            count_of(word) == prefix.count || lsn > prefix.base.advance(offset_of(word))
        };
        let prefix = self.wait_until(|prefix| prefix.end >= lsn || unreserved(prefix));
        prefix.end >= lsn || !unreserved(&prefix)
    }

    /// The end of what is reserved, and will be published.
    pub(crate) fn reserved(&self) -> Lsn {
        let prefix = self.prefix();
        let word = self.word.0.load(Ordering::Acquire);
        let in_flight = count_of(word) != prefix.count;
        if in_flight { prefix.base.advance(offset_of(word)) } else { prefix.end }
    }

    /// Where a record goes that is put while nothing can be reserved.
    pub(crate) fn next(&self, prefix: &Prefix) -> Option<Lsn> {
        let word = self.word.0.load(Ordering::Acquire);
        self.is_quiet(prefix).then(|| prefix.base.advance(offset_of(word)))
    }

    /// Adds a record that was put at [`Reservations::next`].
    ///
    /// # Panics
    /// If it is open or something reserved is not published.
    pub(crate) fn put(&self, prefix: &mut Prefix, end: Lsn, fingerprint: Fingerprint) {
        assert!(self.is_quiet(prefix), "nothing is in flight where a record is put");
        let word = self.word.0.load(Ordering::Acquire);
        let next = prefix.base.advance(offset_of(word));
        self.word.0.store(word + end.distance_from(next) / RECORD_ALIGN, Ordering::Release);
        prefix.digest = prefix.digest.followed_by(fingerprint);
        prefix.end = end;
        self.tell(prefix);
    }

    /// Nobody waits any longer: nothing more comes.
    pub(crate) fn end(&self) {
        let mut prefix = self.prefix();
        prefix.ended = true;
        self.moved.notify_all();
        self.work.notify_all();
        self.wake_watchers();
    }

    /// The syncer is to look around.
    pub(crate) fn call_syncer(&self) {
        let mut prefix = self.prefix();
        prefix.called = true;
        self.work.notify_one();
    }

    /// The syncer waits: for so long, until it is called, or until the log is appended up to
    /// `wake_at`. Returns whether it waited in vain.
    pub(crate) fn wait_for_work(&self, wake_at: Option<Lsn>, wait: Duration) -> bool {
        let mut prefix = self.prefix();
        prefix.wake_syncer_at = wake_at;
        if wake_at.is_some() {
            self.want(&mut prefix, SYNCER);
        }
        let is_due = wake_at.is_some_and(|at| at <= prefix.end);
        let mut waited_in_vain = false;
        if !(prefix.called || prefix.ended || is_due) {
            let woken =
                self.work.wait_timeout(prefix, wait).unwrap_or_else(PoisonError::into_inner);
            waited_in_vain = woken.1.timed_out();
            prefix = woken.0;
        }
        prefix.called = false;
        prefix.wake_syncer_at = None;
        let wanted = self.shown.0.wanted.load(Ordering::Relaxed);
        self.shown.0.wanted.store(wanted & !SYNCER, Ordering::Relaxed);
        waited_in_vain
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Lsn> {
        self.appended.subscribe()
    }

    /// Has whoever publishes next wake those who watch. Returns the end of the prefix.
    pub(crate) fn want_growth(&self) -> Lsn {
        let mut prefix = self.prefix();
        self.want(&mut prefix, WATCHER);
        prefix.end
    }

    /// Wakes those who watch, though nothing has grown.
    pub(crate) fn wake_watchers(&self) {
        self.appended.send_modify(|_| {});
    }
}
