//! Every crash state of every short workload: what a power cut may leave, opened and judged.

mod states;
mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use towline_protocol::lsn::Lsn;
use towline_wal::simulated::SimDisk;
use towline_wal::{Wal, WalError, found_on};

use crate::log::{append, begin, dir, founding, open, payload, read_back, verify};
use crate::oracle::Oracle;
use crate::random::mix;
use crate::tally::{Tally, on_every_core};
use states::States;
use workload::{Moment, OPERATIONS, Start, moments};

/// The longest workload.
const LENGTH_MAX: usize = 3;
/// About so many states there are: what a run of fewer chooses among.
const STATES_ALL: u64 = 44_000_000;
/// A short run leaves all but one in so many of the longest workloads out: to do what they do takes
/// longer than to judge a few of their states.
const LONGEST: u64 = 3;
/// A workload that is shorter by one has its states tried more densely, by so many powers of two.
const DENSER: usize = 3;
/// At one moment in so many, at least, the process is killed and the power stays.
const KILLED: u64 = 6;
/// What a short run looks at, of all states.
const STATES: u64 = 60_000;
/// In one state of so many, a crash during its recovery is tried at every moment of that.
const RECOVERED_AGAIN: u64 = 8;
/// In one state of so many the log goes on, and loses power again.
const GOES_ON: u64 = 4;

/// How much is looked at.
pub(crate) enum Budget {
    Full,
    /// About so many states of all workloads, chosen evenly.
    States(u64),
    /// What every build looks at.
    Short,
}

/// One workload: `fresh:af`.
struct Workload {
    start: Start,
    operations: String,
}

impl Workload {
    fn name(&self) -> String {
        format!("{}:{}", self.start.name(), self.operations)
    }
}

/// Every workload, the shortest first.
fn workloads() -> Vec<Workload> {
    let mut of_length = vec![String::new()];
    let mut all = of_length.clone();
    for _ in 0..LENGTH_MAX {
        let longer = |shorter: &String| {
            OPERATIONS.chars().map(|letter| format!("{shorter}{letter}")).collect::<Vec<_>>()
        };
        of_length = of_length.iter().flat_map(longer).collect();
        all.extend_from_slice(&of_length);
    }
    let workload = |operations: String| {
        Start::ALL.map(|start| Workload { start, operations: operations.clone() })
    };
    all.into_iter().flat_map(workload).collect()
}

/// Tries the states of all workloads. Every failure says how it is tried again.
pub(crate) fn run(budget: &Budget, tally: &Tally) {
    let workloads = workloads();
    let every = match budget {
        Budget::Full => 1,
        Budget::States(count) => STATES_ALL.div_ceil((*count).max(1)),
        Budget::Short => STATES_ALL / STATES,
    };
    let (next, all) = (AtomicU64::new(0), AtomicU64::new(0));
    on_every_core(|| {
        while let Ok(at) = usize::try_from(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(workload) = workloads.get(at).filter(|_| !tally.is_over()) else { return };
            let is_longest = workload.operations.len() == LENGTH_MAX;
            let is_left_out = is_longest && mix(at as u64) % LONGEST != 0;
            if is_left_out && matches!(budget, Budget::Short) {
                continue;
            }
            let seen = workload.run(every, mix(at as u64), tally);
            all.fetch_add(seen, Ordering::Relaxed);
        }
    });
    println!("crash-states: {} workloads have {} states", workloads.len(), all.into_inner());
}

impl Workload {
    /// Runs it and tries one of its states in `every`, more of a short one. Returns how many it
    /// has.
    fn run(&self, every: u64, lot: u64, tally: &Tally) -> u64 {
        let name = self.name();
        let mut recorded = Vec::new();
        tally.run(
            || name.clone(),
            || {
                recorded = moments(self.start, &self.operations)?;
                Ok(())
            },
        );
        let longer = LENGTH_MAX.saturating_sub(self.operations.len());
        let every = (every >> (DENSER * longer)).max(1);
        let mut seen = 0;
        for (at, moment) in recorded.iter().enumerate() {
            let states = States::new(&moment.outage);
            for number in 0..states.count() {
                if tally.is_over() {
                    return seen;
                }
                seen += 1;
                // A moment has one state without a power cut, and thousands with one.
                let every = if states.is_kill(number) { every.min(KILLED) } else { every };
                if mix(lot ^ seen) % every == 0 {
                    let case = || format!("{name}:{at}:{number}");
                    tally.run(case, || check(moment, &states, number));
                }
            }
        }
        seen
    }
}

/// Tries one state again, as a failure names it: `START:OPERATIONS[:MOMENT:STATE]`.
pub(crate) fn run_one(case: &str, tally: &Tally) {
    tally.run(
        || case.to_owned(),
        || {
            let words: Vec<_> = case.split(':').collect();
            let unknown = || format!("{case} is no START:OPERATIONS[:MOMENT:STATE]");
            let start =
                words.first().and_then(|name| Start::ALL.into_iter().find(|it| it.name() == *name));
            let (Some(start), Some(operations)) = (start, words.get(1)) else {
                return Err(unknown());
            };
            let moments = moments(start, operations)?;
            let (Some(at), Some(number)) = (words.get(2), words.get(3)) else { return Ok(()) };
            let (at, number): (usize, u64) =
                (at.parse().map_err(|_| unknown())?, number.parse().map_err(|_| unknown())?);
            let moment = moments.get(at).ok_or_else(unknown)?;
            check(moment, &States::new(&moment.outage), number)
        },
    );
}

/// Opens the log in one state, and judges it.
fn check(moment: &Moment, states: &States<'_>, number: u64) -> Result<(), String> {
    let disk = states.disk(number);
    if !moment.founded {
        return check_founding(&disk);
    }
    if let Some(mending) = &moment.mending {
        return mending.check(&disk, &moment.oracle);
    }
    let lot = mix(number ^ 0x7374_6174_6573);
    let verified = verify(&disk).and_then(|found| moment.oracle.judge(&found));
    verified.map_err(|error| format!("reading without opening: {error}"))?;
    if lot % RECOVERED_AGAIN == 0 {
        disk.record_outages();
    }
    let wal = open(&disk).map_err(|error| format!("it does not open: {error}"))?;
    let found = read_back(&wal).map_err(|error| format!("it does not read: {error}"))?;
    moment.oracle.judge(&found)?;
    for (at, outage) in disk.take_outages().iter().enumerate() {
        let states = States::new(outage);
        let number = mix(lot + at as u64) % states.count();
        check_end(&states.disk(number), &moment.oracle, false)
            .map_err(|error| format!("after a crash of its recovery, {at}:{number}: {error}"))?;
    }
    let mut oracle = moment.oracle.clone();
    oracle.settle(&found);
    if states.is_kill(number) || lot / RECOVERED_AGAIN % GOES_ON == 0 {
        go_on(&disk, &wal, &mut oracle, lot)?;
    }
    // What opening has shown is durable, and so is what was flushed since.
    check_end(&left(&disk), &oracle, true).map_err(|error| format!("opened again: {error}"))
}

/// What is certainly left if the power fails now.
fn left(disk: &SimDisk) -> SimDisk {
    disk.outage().leave(1, |_| false, |_| false)
}

fn check_end(disk: &SimDisk, oracle: &Oracle, is_whole: bool) -> Result<(), String> {
    let wal = open(disk).map_err(|error| format!("it does not open: {error}"))?;
    let found = read_back(&wal).map_err(|error| format!("it does not read: {error}"))?;
    if is_whole { oracle.judge_whole(&found) } else { oracle.judge(&found) }
}

/// The log that was found takes more, and flushes it.
fn go_on(disk: &SimDisk, wal: &Arc<Wal>, oracle: &mut Oracle, lot: u64) -> Result<(), String> {
    let failed = |error| format!("it does not go on: {error}");
    let durable = oracle.durable_end();
    if wal.appended() == Lsn::ZERO || lot >> 63 == 1 {
        let epoch = wal.last_epoch().number.max(wal.control().fence.number) + 1_000;
        // On a full disk it takes a segment that was ready, as whoever died has left it.
        disk.set_full(true);
        let begun = begin(wal, epoch, durable);
        disk.set_full(false);
        let begun = match begun {
            Err(WalError::NoSpace(_)) => begin(wal, epoch, durable),
            begun => begun,
        };
        oracle.appended(begun.map_err(failed)?);
    }
    for number in 0..=lot >> 60 & 3 {
        let payload = payload(u64::MAX - number, 700);
        oracle.appended(append(wal, payload, durable).map_err(failed)?);
    }
    wal.flush().map_err(failed)?;
    oracle.all_durable();
    Ok(())
}

/// A folder in which a founding was not told to be done can be founded again, or holds an empty
/// log.
fn check_founding(disk: &SimDisk) -> Result<(), String> {
    if open(disk).is_err() {
        disk.kill();
        found_on(disk, dir(), &founding())
            .map_err(|error| format!("it can not be founded again: {error}"))?;
    }
    disk.kill();
    check_end(disk, &Oracle::default(), true)
}
