//! The rules of a cluster under crashes, cuts, losses and delays: seeded schedules that drive the
//! real machine. `TOWLINE_SEEDS=A..B` runs other seeds than those of every build.

mod toy;

use std::cell::RefCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use toy::Plant;
use toy::world::World;

/// What every build runs.
const SEEDS: Range<u64> = 0..1_000;
/// Within so many seeds every planted bug is found.
const PLANT_SEEDS: u64 = 1_000;

thread_local! {
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The trace's hash, or what was violated.
fn run(seed: u64, plant: Option<Plant>) -> Result<u64, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            usual(panic);
            let said = panic.to_string().replace('\n', " ");
            SAID.with(|cell| *cell.borrow_mut() = said);
        }));
    });
    catch_unwind(AssertUnwindSafe(|| World::new(seed, plant).run()))
        .map_err(|_| SAID.with(RefCell::take))
}

fn run_all(seeds: Range<u64>) {
    for seed in seeds {
        if let Err(what) = run(seed, None) {
            panic!(
                "seed {seed}: {what}; rerun: TOWLINE_SEEDS={seed}..{} cargo test -p \
                 towline-protocol --test schedules every_schedule",
                seed + 1
            );
        }
    }
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("TOWLINE_SEEDS") else { return SEEDS };
    let (low, high) = text.split_once("..").expect("TOWLINE_SEEDS is A..B");
    low.parse().expect("A is a number")..high.parse().expect("B is a number")
}

/// In halves, so that two cores share the work.
fn half(which: u64) -> Range<u64> {
    let Range { start, end } = seeds();
    let middle = start + (end - start) / 2;
    if which == 0 { start..middle } else { middle..end }
}

#[test]
fn every_schedule_keeps_every_promise() {
    run_all(half(0));
}

#[test]
fn every_schedule_keeps_every_promise_too() {
    run_all(half(1));
}

#[test]
fn a_seed_is_one_schedule() {
    for seed in 0..20 {
        let (once, again) = (run(seed, None), run(seed, None));
        assert_eq!(once, again, "seed {seed} took two ways");
        assert_ne!(once, run(seed + 1, None), "seeds {seed} and the next took one way");
    }
}

fn finds(plant: Plant) {
    let found = (0..PLANT_SEEDS).find_map(|seed| Some((seed, run(seed, Some(plant)).err()?)));
    let (seed, what) = found.unwrap_or_else(|| panic!("{plant:?} is not found"));
    println!("{plant:?}: seed {seed}: {what}");
}

macro_rules! finds {
    ($($name:ident: $plant:ident,)*) => {
        $(#[test]
        fn $name() {
            finds(Plant::$plant);
        })*
    };
}

finds! {
    an_ack_before_the_flush_is_found: AckBeforeFlush,
    a_fence_that_is_not_written_is_found: FenceNotWritten,
    an_ack_after_the_fence_is_found: AckAfterFence,
    a_reply_on_the_own_flush_is_found: ReplyOnOwnFlush,
    a_read_without_its_round_is_found: ReadWithoutRound,
    a_cut_too_deep_is_found: CutTooDeep,
    a_cut_that_is_not_made_is_found: CutNotMade,
    a_fetch_that_is_not_made_is_found: FetchNotMade,
    a_stale_read_is_found: StaleRead,
}
