//! A whole cluster in one thread: the real rules over the real log, on simulated disks and a
//! simulated network, in virtual time, with everything drawn from one seed.
//!
//! - `world`: the event loop; `node`, `disk`, `engine`, `net`: what a cluster consists of;
//! - `act`, `session`, `serve`: the driver, which carries out what the rules decide;
//! - `client`, `fault`, `operate`: who uses it, what breaks it, and who makes it worse;
//! - `check`: what must hold, written without a look at the rules;
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
mod serve;
mod session;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

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
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the schedule of `seed`, with a bug built in if `plant` names one; `tells` prints what
/// happens.
///
/// # Errors
/// What was violated, in one line.
pub fn run(seed: u64, plant: Option<Plant>, tells: bool) -> Result<Ran, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let said = panic.to_string().replace('\n', " ");
            SAID.with(|cell| *cell.borrow_mut() = said);
        }));
    });
    catch_unwind(AssertUnwindSafe(|| World::new(seed, plant, tells).run()))
        .map_err(|_| SAID.with(RefCell::take))
}
