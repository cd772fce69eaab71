//! Every order of the steps of writers, drainers and those who wait, up to a number of preemptions,
//! on memory that shows what was not published to be seen as it was before.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{Digest, Fingerprint, RECORD_ALIGN};

use super::planted::{Bug, plant};
use super::{Place, Refused, Reservations, SLOTS};
use crate::atomics::{AtomicU64, Ordering};

/// How often a thread is taken off its core where it could go on. Two would find all bugs below.
const PREEMPTIONS: usize = 4;
/// Units of memory, of which each has room for one record.
const UNITS: u64 = 8;
const LEN: u64 = RECORD_ALIGN;

/// In the place of a segment: a word per unit, that shows old values to whoever was not told that
/// there is a new one.
struct Memory(Vec<AtomicU64>);

type All = Reservations<Arc<Memory>>;

fn memory() -> Arc<Memory> {
    Arc::new(Memory((0..UNITS).map(|_| AtomicU64::new(0)).collect()))
}

/// Open, in a target at 0 that is also returned.
fn opened() -> (Arc<All>, Arc<Memory>) {
    let all = Reservations::new(Lsn::ZERO, Digest::EMPTY, UNITS * LEN);
    let memory = memory();
    all.enter(Lsn::ZERO, 0, Arc::clone(&memory));
    all.open();
    (Arc::new(all), memory)
}

impl Memory {
    fn unit(&self, lsn: Lsn) -> &AtomicU64 {
        &self.0[(lsn.get() / LEN % UNITS) as usize]
    }

    fn write(&self, lsn: Lsn, value: u64) {
        assert_eq!(self.unit(lsn).swap(value, Ordering::Relaxed), 0, "nobody else wrote at {lsn}");
    }

    fn read(&self, lsn: Lsn) -> u64 {
        self.unit(lsn).load(Ordering::Relaxed)
    }
}

fn reserve(all: &All) -> Result<Place<'_, Arc<Memory>>, Refused> {
    all.reserve(LEN, || Lsn::ZERO)
}

/// Writes `value` and publishes it.
fn fill(place: Place<'_, Arc<Memory>>, value: u64) -> Lsn {
    let end = place.lsn.advance(LEN);
    place.target().write(place.lsn, value);
    place.publish(end, Fingerprint(value));
    end
}

/// Appends one record as the log does, into a ring that may be full.
fn append(all: &All, value: u64) -> Lsn {
    loop {
        match reserve(all) {
            Ok(place) => return fill(place, value),
            Err(Refused::Full) => all.wait_slot(),
            Err(refused) => panic!("{refused:?}"),
        }
    }
}

/// Reads what is published, and checks that it is what the digest says.
fn check(all: &All, memory: &Memory) -> Vec<u64> {
    let (end, digest) = {
        let prefix = all.prefix();
        (prefix.end, prefix.digest)
    };
    let values: Vec<_> = (0..end.get() / LEN).map(|at| memory.read(Lsn::new(at * LEN))).collect();
    let chained = |digest: Digest, value: &u64| digest.followed_by(Fingerprint(*value));
    assert_eq!(values.iter().fold(Digest::EMPTY, chained), digest, "{values:?}");
    values
}

/// Two writers, and one who reads what is published meanwhile: no two write the same bytes, and
/// what is read is whole and in order.
fn writers_and_a_reader() {
    let (all, memory) = opened();
    let writers = [1, 2].map(|value| {
        let all = Arc::clone(&all);
        thread::spawn(move || append(&all, value))
    });
    let seen = check(&all, &memory);
    let ends = writers.map(|writer| writer.join().unwrap());
    assert_ne!(ends[0], ends[1]);
    let mut found = check(&all, &memory);
    assert!(found.starts_with(&seen), "{seen:?} is no prefix of {found:?}");
    found.sort_unstable();
    assert_eq!(found, [1, 2]);
}

/// Somebody waits for what another has reserved before him.
fn a_waiter_behind_a_writer() {
    let (all, memory) = opened();
    let first = reserve(&all).unwrap();
    let waiter = {
        let all = Arc::clone(&all);
        thread::spawn(move || {
            let end = append(&all, 2);
            assert!(all.wait_published(end));
            assert!(all.prefix().end >= end);
        })
    };
    fill(first, 1);
    waiter.join().unwrap();
    assert_eq!(check(&all, &memory), [1, 2]);
}

/// Somebody waits for nobody: he is told so.
fn a_waiter_for_nothing() {
    let (all, _memory) = opened();
    let writer = {
        let all = Arc::clone(&all);
        thread::spawn(move || append(&all, 1))
    };
    assert!(!all.wait_published(Lsn::new(LEN * 2)));
    let end = writer.join().unwrap();
    assert!(all.wait_published(end));
}

/// More records than the ring has slots: none is overwritten before it is drained.
fn a_ring_that_is_full() {
    let (all, memory) = opened();
    let first = reserve(&all).unwrap();
    let writer = {
        let all = Arc::clone(&all);
        thread::spawn(move || {
            for nth in 0..SLOTS {
                append(&all, 2 + nth);
            }
        })
    };
    fill(first, 1);
    append(&all, 9);
    writer.join().unwrap();
    let mut found = check(&all, &memory);
    assert_eq!(found.remove(0), 1);
    found.sort_unstable();
    assert_eq!(found, [2, 3, 9]);
}

/// A segment is sealed and the next one entered, under a writer.
fn a_seal_and_the_next_segment() {
    let (all, memory) = opened();
    let writer = {
        let all = Arc::clone(&all);
        thread::spawn(move || reserve(&all).is_ok_and(|place| fill(place, 1) > Lsn::ZERO))
    };
    all.close();
    assert!(all.wait_quiet());
    let before = all.prefix().end;
    let seal = all.next(&all.prefix()).unwrap();
    assert_eq!(seal, before, "everything reserved is published");
    let sealed = check(&all, &memory);
    let next = self::memory();
    all.enter(Lsn::new(UNITS * LEN), 0, Arc::clone(&next));
    assert_eq!(writer.join().unwrap(), sealed == [1]);
    assert!(matches!(reserve(&all), Err(Refused::Closed)));
    all.open();
    append(&all, 7);
    assert_eq!(next.read(Lsn::new(UNITS * LEN)), 7);
}

/// A record is put while others would append: it lies between theirs.
fn a_record_that_is_put() {
    let (all, memory) = opened();
    let writer = {
        let all = Arc::clone(&all);
        thread::spawn(move || reserve(&all).is_ok_and(|place| fill(place, 1) > Lsn::ZERO))
    };
    all.close();
    assert!(all.wait_quiet());
    let mut prefix = all.prefix();
    let at = all.next(&prefix).unwrap();
    memory.write(at, 5);
    all.put(&mut prefix, at.advance(LEN), Fingerprint(5));
    drop(prefix);
    all.open();
    let appended = writer.join().unwrap();
    let found = check(&all, &memory);
    assert_eq!(found.len(), 1 + usize::from(appended));
    assert!(found.contains(&5));
}

/// A writer that gives up, as a dropped claim does, holds nobody up.
fn a_writer_that_gives_up() {
    struct Claim<'a>(Option<Place<'a, Arc<Memory>>>);
    impl Drop for Claim<'_> {
        fn drop(&mut self) {
            fill(self.0.take().unwrap(), 2);
        }
    }
    let (all, memory) = opened();
    let writer = {
        let all = Arc::clone(&all);
        thread::spawn(move || drop(Claim(Some(reserve(&all).unwrap()))))
    };
    let end = append(&all, 1);
    assert!(all.wait_published(end));
    writer.join().unwrap();
    let found = check(&all, &memory);
    assert!(found == [2, 1] || found == [1, 2], "{found:?}");
}

/// Whoever watches is told, or has seen it already.
fn a_watcher() {
    let (all, _memory) = opened();
    let mut told = all.subscribe();
    told.borrow_and_update();
    let writer = {
        let all = Arc::clone(&all);
        thread::spawn(move || append(&all, 1))
    };
    let seen = all.want_growth();
    let end = writer.join().unwrap();
    assert!(seen == end || told.has_changed().unwrap(), "seen {seen}");
}

/// The syncer sleeps until something is appended, and does not oversleep.
fn a_syncer_that_waits() {
    let (all, _memory) = opened();
    let syncer = {
        let all = Arc::clone(&all);
        thread::spawn(move || {
            while all.prefix().end == Lsn::ZERO {
                all.wait_for_work(Some(Lsn::new(1)), Duration::from_secs(1));
            }
        })
    };
    append(&all, 1);
    syncer.join().unwrap();
}

/// Nobody waits for a log that has ended.
fn a_log_that_ends() {
    let (all, _memory) = opened();
    let _forgotten = reserve(&all).unwrap();
    let waiter = {
        let all = Arc::clone(&all);
        thread::spawn(move || {
            all.wait_published(Lsn::new(LEN));
            all.wait_for_work(Some(Lsn::new(1)), Duration::from_secs(1));
        })
    };
    all.close();
    all.end();
    waiter.join().unwrap();
    assert!(!all.wait_quiet());
}

/// The promises of records in order never fall.
fn promises() {
    let (all, memory) = opened();
    // Something that can have been flushed.
    append(&all, 1);
    let flushed = Arc::new(AtomicU64::new(0));
    let writers = [0; 2].map(|_| {
        let (all, flushed) = (Arc::clone(&all), Arc::clone(&flushed));
        thread::spawn(move || {
            let promise = || Lsn::new(flushed.load(Ordering::Acquire));
            let place = all.reserve(LEN, promise).unwrap();
            let promised = place.promise.get();
            // One more, as 0 is what was never written.
            fill(place, promised + 1);
        })
    });
    flushed.store(1, Ordering::Release);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let found = check(&all, &memory);
    assert!(found.is_sorted(), "{found:?}");
}

/// Runs a model in all orders; returns in how many.
fn run(model: fn()) -> u64 {
    let runs = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_branches = 20_000;
    let counted = Arc::clone(&runs);
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    runs.load(std::sync::atomic::Ordering::Relaxed)
}

/// The models, and the bug that each of them finds, if there is one for it.
const MODELS: [(&str, fn(), Option<Bug>); 11] = [
    ("writers_and_a_reader", writers_and_a_reader, Some(Bug::RelaxedPublish)),
    ("a_waiter_behind_a_writer", a_waiter_behind_a_writer, Some(Bug::FlagBeforePublish)),
    ("a_waiter_for_nothing", a_waiter_for_nothing, None),
    ("a_ring_that_is_full", a_ring_that_is_full, Some(Bug::RingNeverFull)),
    ("a_seal_and_the_next_segment", a_seal_and_the_next_segment, Some(Bug::SealedAtOnce)),
    ("a_record_that_is_put", a_record_that_is_put, None),
    ("a_writer_that_gives_up", a_writer_that_gives_up, None),
    ("a_watcher", a_watcher, Some(Bug::FlagBeforePublish)),
    ("a_syncer_that_waits", a_syncer_that_waits, Some(Bug::FlagBeforePublish)),
    ("a_log_that_ends", a_log_that_ends, None),
    ("promises", promises, Some(Bug::PromiseBeforeLooking)),
];

#[test]
fn every_model_holds() {
    for (name, model, _) in MODELS {
        println!("loom: {name} runs={}", run(model));
    }
}

#[test]
fn every_planted_bug_is_found() {
    for (name, model, bug) in MODELS {
        let Some(bug) = bug else { continue };
        plant(Some(bug));
        let found = std::panic::catch_unwind(|| run(model));
        plant(None);
        assert!(found.is_err(), "{name} does not find {bug:?}");
        println!("loom: {name} finds {bug:?}");
    }
}
