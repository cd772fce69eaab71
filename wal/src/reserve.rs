//! Reservations: who writes which bytes of the tail segment, and up to where all of it is there.
//!
//! ```text
//! reserve (one CAS) ─▶ checksum and copy ─▶ publish (one store) ─▶ drained by whoever needs it
//! ```
//!
//! One word says how far the tail segment is reserved, by how many records, and whether it takes
//! more. A writer advances it and then has its bytes, and a slot of a ring, to itself. Publishing
//! puts the record's end into the slot. The prefix that is published without a gap is computed, by
//! *draining* the ring under a lock, only when somebody asks for it or waits for it, or half the
//! ring is full. So writers share one word and a line of the ring, and nobody ever waits for a
//! writer that the scheduler took off its core, except by sleeping.
//!
//! What the reservations are made in, the *target*, is replaced only while the word is closed and
//! nothing is reserved that is not published. So whoever holds a [`Place`] may use the target.
#![allow(unsafe_code)]

#[cfg(all(test, towline_loom))]
mod loom_tests;
mod planted;
mod prefix;
#[cfg(all(test, not(towline_loom)))]
mod tests;

use tokio::sync::watch;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{Digest, Fingerprint, RECORD_ALIGN};

use crate::atomics::{AtomicU64, AtomicUsize, Cell, Condvar, Mutex, Ordering, fence};
use planted::{Bug, planted};
use prefix::Prefix;

/// So many records can be reserved and not yet drained; the next one waits for the oldest.
#[cfg(not(towline_loom))]
pub(crate) const SLOTS: u64 = 2048;
/// Few, so that the model checker gets round the ring.
#[cfg(towline_loom)]
pub(crate) const SLOTS: u64 = 2;
/// So many cache lines they take.
#[cfg(not(towline_loom))]
const LINES: u64 = SLOTS / 4;
/// One slot each.
#[cfg(towline_loom)]
const LINES: u64 = SLOTS;
/// After so many records somebody drains, though nobody asks, so that the ring is never full of
/// records that are all published.
const DRAIN_EVERY: u64 = SLOTS / 2;

// The word: the offset in the target in units of `RECORD_ALIGN`, whether it is closed, and the
// number of the next record, which wraps round.
const OFFSET_BITS: u32 = 27;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
const CLOSED: u64 = 1 << OFFSET_BITS;
const ONE_RECORD: u64 = CLOSED << 1;
const COUNT_MASK: u64 = u64::MAX / ONE_RECORD;

const _: () = assert!(SLOTS.is_power_of_two() && DRAIN_EVERY > 0);
const _: () =
    assert!(towline_protocol::lsn::SegmentSize::MAX.bytes() / RECORD_ALIGN <= OFFSET_MASK);

const fn count_of(word: u64) -> u64 {
    word / ONE_RECORD
}

/// How many records lie between two of their numbers.
pub(crate) const fn count_since(earlier: u64, later: u64) -> u64 {
    later.wrapping_sub(earlier) & COUNT_MASK
}

const fn offset_of(word: u64) -> u64 {
    (word & OFFSET_MASK) * RECORD_ALIGN
}

/// A record that is published and not drained.
#[derive(Debug)]
struct Slot {
    /// Where it ends: above the prefix's end, or the slot still holds what was drained long ago.
    end: AtomicU64,
    fingerprint: AtomicU64,
}

/// A value on a cache line, and its neighbour that is fetched with it, of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Alone<T>(T);

/// The reservations of one log.
#[derive(Debug)]
pub(crate) struct Reservations<T> {
    word: Alone<AtomicU64>,
    /// How many records are drained, and who wants to know of the next one: what writers only read.
    shown: Alone<Shown>,
    slots: Box<[Slot]>,
    target: Cell<Option<Target<T>>>,
    /// Where the room for records ends in every target.
    limit: u64,
    prefix: Mutex<Prefix>,
    /// Woken when the prefix has grown, for those who wait.
    moved: Condvar,
    /// Woken when there is something for the syncer to do.
    work: Condvar,
    appended: watch::Sender<Lsn>,
}

#[derive(Debug)]
struct Shown {
    drained: AtomicU64,
    /// Bits: who is to be told as soon as something is published. Changed under the prefix's lock.
    wanted: AtomicUsize,
}

#[derive(Debug)]
struct Target<T> {
    base: Lsn,
    value: T,
}

// SAFETY: the target, the only part that is not `Sync` by itself, is changed only in `enter`, while
// no `Place` exists and none can be made, and is otherwise only looked at, through `Place`s and by
// `enter` itself; the word's atomics order the two. It is dropped where `Reservations` is.
unsafe impl<T: Send + Sync> Sync for Reservations<T> {}

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// The target takes nothing, at the moment or any more.
    Closed,
    /// The record does not fit any more.
    NoRoom,
    /// Too many records are reserved and not published.
    Full,
}

/// A place that nobody else writes to, until it is published. One that is forgotten holds up
/// everything behind it.
#[derive(Debug)]
#[must_use = "what is reserved has to be published"]
pub(crate) struct Place<'a, T> {
    all: &'a Reservations<T>,
    count: u64,
    pub(crate) lsn: Lsn,
    /// What `promise` said when the place was reserved; it never falls from place to place.
    pub(crate) promise: Lsn,
}

impl<T> Reservations<T> {
    /// Closed, behind everything up to `end`, which is published. Records end at `limit` bytes of
    /// each target.
    pub(crate) fn new(end: Lsn, digest: Digest, limit: u64) -> Self {
        let slot = |_| Slot { end: AtomicU64::new(0), fingerprint: AtomicU64::new(0) };
        let shown = Shown { drained: AtomicU64::new(0), wanted: AtomicUsize::new(0) };
        Self {
            word: Alone(AtomicU64::new(CLOSED)),
            shown: Alone(shown),
            slots: (0..SLOTS).map(slot).collect(),
            target: Cell::new(None),
            limit,
            prefix: Mutex::new(Prefix::new(end, digest)),
            moved: Condvar::new(),
            work: Condvar::new(),
            appended: watch::Sender::new(end),
        }
    }

    /// Reserves `len` bytes, a multiple of [`RECORD_ALIGN`].
    ///
    /// `promise` is asked between looking at the word and advancing it. So if it never falls, the
    /// promises of places in order do not fall either.
    pub(crate) fn reserve(
        &self,
        len: u64,
        promise: impl Fn() -> Lsn,
    ) -> Result<Place<'_, T>, Refused> {
        let before = planted(Bug::PromiseBeforeLooking).then(&promise);
        let mut word = self.word.0.load(Ordering::Acquire);
        loop {
            if word & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            if offset_of(word) + len > self.limit {
                return Err(Refused::NoRoom);
            }
            let (count, drained) = (count_of(word), self.shown.0.drained.load(Ordering::Acquire));
            let is_full = count_since(drained, count) >= SLOTS;
            if is_full && !planted(Bug::RingNeverFull) {
                let now = self.word.0.load(Ordering::Acquire);
                if now == word {
                    return Err(Refused::Full);
                }
                word = now;
                continue;
            }
            let promise = before.unwrap_or_else(&promise);
            let next = word.wrapping_add(ONE_RECORD + len / RECORD_ALIGN);
            match self.word.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => {
                    // SAFETY: this record is reserved and not published from here on, so the
                    // target is not changed. It was set before the word was opened.
                    let target = unsafe { &*self.target.get() };
                    let base = target.as_ref().expect("an open word has a target").base;
                    let lsn = base.advance(offset_of(word));
                    assert!(promise <= lsn, "a promise of {promise} behind the record at {lsn}");
                    return Ok(Place { all: self, count, lsn, promise });
                }
                Err(now) => word = now,
            }
        }
    }

    /// Takes no more reservations, until [`Reservations::open`].
    pub(crate) fn close(&self) {
        self.word.0.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Takes reservations. Only the holder of the log's tail decides that.
    pub(crate) fn open(&self) {
        self.word.0.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// Whether it takes no reservations. Stays so while the log's tail is held.
    pub(crate) fn is_closed(&self) -> bool {
        self.word.0.load(Ordering::Acquire) & CLOSED != 0
    }

    /// The room that is left for records in the target. Only smaller later, while the log's tail
    /// is held.
    pub(crate) fn left(&self) -> u64 {
        self.limit.saturating_sub(offset_of(self.word.0.load(Ordering::Acquire)))
    }

    /// The number of the next record; wraps round.
    pub(crate) fn count(&self) -> u64 {
        count_of(self.word.0.load(Ordering::Acquire))
    }

    /// Goes on at `offset` in another target, which lies at `base`. Stays closed.
    ///
    /// # Panics
    /// If it is open or something reserved is not published.
    pub(crate) fn enter(&self, base: Lsn, offset: u64, value: T) {
        let mut prefix = self.prefix();
        let word = self.word.0.load(Ordering::Acquire);
        assert!(self.is_quiet(&prefix), "nothing is in flight where a segment is entered");
        // SAFETY: the word is closed and only the holder of the tail, who calls this, opens it,
        // so no place can be reserved; every one that was is published, which its writer does
        // last, and was drained with an acquiring load. So nobody looks at the target.
        unsafe { *self.target.get_mut() = Some(Target { base, value }) };
        let moved = (word & !OFFSET_MASK) | (offset / RECORD_ALIGN);
        // Only `close` can have changed it meanwhile, and it is closed.
        self.word.0.store(moved, Ordering::Release);
        prefix.base = base;
    }

    fn publish(&self, count: u64, end: Lsn, fingerprint: Fingerprint) {
        let wanted = || self.shown.0.wanted.load(Ordering::Relaxed);
        let before = planted(Bug::FlagBeforePublish).then(wanted);
        let relaxed = planted(Bug::RelaxedPublish);
        let slot = &self.slots[slot_of(count)];
        slot.fingerprint.store(fingerprint.0, Ordering::Relaxed);
        slot.end.store(end.get(), if relaxed { Ordering::Relaxed } else { Ordering::Release });
        // Whoever wants to know sets its bit, and then drains. So either it sees this record, or
        // its bit is seen here.
        fence(Ordering::SeqCst);
        if before.unwrap_or_else(wanted) != 0 {
            drop(self.prefix());
        } else if count % DRAIN_EVERY == DRAIN_EVERY - 1 {
            self.try_drain();
        }
    }
}

/// Neighbours lie on different cache lines: they are often published at the same time.
fn slot_of(count: u64) -> usize {
    let (line, place) = (count % LINES, count / LINES % (SLOTS / LINES));
    (line * (SLOTS / LINES) + place) as usize
}

impl<T> Place<'_, T> {
    /// What the place lies in.
    pub(crate) fn target(&self) -> &T {
        // SAFETY: this place is not published while it is borrowed, so the target is not changed
        // meanwhile, see `enter`.
        let target = unsafe { &*self.all.target.get() };
        &target.as_ref().expect("an open word has a target").value
    }

    /// The record is written, up to `end`: it belongs to the log once everything before it does.
    pub(crate) fn publish(self, end: Lsn, fingerprint: Fingerprint) {
        self.all.publish(self.count, end, fingerprint);
    }
}
