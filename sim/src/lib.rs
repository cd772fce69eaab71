//! A whole cluster in one thread: the real rules over the real log, on simulated disks and a
//! simulated network, in virtual time, with everything drawn from one seed.
//!
//! - `world`: the event loop; `node`, `disk`, `engine`, `net`: what a cluster consists of;
//! - `act`, `session`, `serve`: the driver, which carries out what the rules decide;
//! - `client`, `fault`, `operate`: who uses it, what breaks it, and who makes it worse;
//! - `check`: what must hold, written without a look at the rules;
//! - [`script`]: the same cluster, but nothing happens to it except what a test says;
//! - [`Plant`]: bugs built in on purpose, to prove that the checks can fail.
//!
//! A schedule has two phases: some seconds of faults, in which nothing may be violated; then all
//! is repaired, and the cluster must commit and converge in time.

#![forbid(unsafe_code)]

mod act;
mod check;
mod client;
mod disk;
mod engine;
mod fault;
mod net;
mod node;
mod operate;
mod plant;
mod rng;
pub mod script;
mod serve;
mod session;
mod world;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use plant::Plant;
use world::World;

/// A schedule that kept every promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ran {
    /// A hash over everything that happened: equal for equal schedules.
    pub trace: u64,
    /// How long it took, in virtual milliseconds.
    pub virtual_ms: u64,
    /// How many events there were.
    pub events: u64,
}

thread_local! {
    static RUNNING: Cell<Option<(u64, Option<Plant>)>> = const { Cell::new(None) };
}

/// From now on, whenever a schedule violates something, `report` is told the seed, the planted
/// bug and what was violated, in one line. In a build that aborts on panics it must not return.
pub fn on_violation(report: fn(u64, Option<Plant>, &str)) {
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let said = payload.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = format!("{} ({place})", said.replace('\n', " "));
        match RUNNING.get() {
            Some((seed, plant)) => report(seed, plant, &what),
            None => eprintln!("{what}"),
        }
    }));
}

/// The command that runs `seed` again.
#[must_use]
pub fn command(seed: u64) -> String {
    format!("cargo run -p towline-sim --release -- --seeds {seed}..{}", seed + 1)
}

/// Runs the schedule of `seed`, with a bug built in if `plant` names one; `tells` prints what
/// happens. `None` if something was violated.
#[must_use]
pub fn run(seed: u64, plant: Option<Plant>, tells: bool) -> Option<Ran> {
    RUNNING.set(Some((seed, plant)));
    Plant::into_rules(plant);
    let ran = catch_unwind(AssertUnwindSafe(|| World::new(seed, plant, tells).run()));
    RUNNING.set(None);
    ran.ok()
}
