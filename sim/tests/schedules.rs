//! Seeded schedules of a whole cluster, as part of every build.

#![allow(clippy::unwrap_used, missing_docs)]

use std::ops::Range;
use std::sync::Mutex;

use towline_sim::{Plant, Ran, command, on_violation, run};

/// What every build runs.
const SEEDS: u64 = 600;
/// Within so many seeds every planted bug is found.
const PLANT_SEEDS: u64 = 5_000;

/// The violations of all threads: seed, planted bug and what it was.
static SEEN: Mutex<Vec<(u64, Option<Plant>, String)>> = Mutex::new(Vec::new());

fn note(seed: u64, plant: Option<Plant>, what: &str) {
    SEEN.lock().unwrap().push((seed, plant, what.to_owned()));
}

fn run_all(seeds: Range<u64>) {
    on_violation(note);
    for seed in seeds {
        if run(seed, None, false).is_none() {
            let seen = SEEN.lock().unwrap();
            let said = seen.iter().find(|(of, plant, _)| *of == seed && plant.is_none()).cloned();
            drop(seen);
            let what = said.map_or_else(String::new, |(.., what)| what);
            panic!("seed {seed}: {what}; rerun: {}", command(seed));
        }
    }
}

#[test]
fn every_schedule_keeps_every_promise() {
    run_all(0..SEEDS / 2);
}

#[test]
fn every_schedule_keeps_every_promise_too() {
    run_all(SEEDS / 2..SEEDS);
}

#[test]
fn a_seed_is_one_schedule_here_and_in_another_process() {
    let binary = env!("CARGO_BIN_EXE_towline-sim");
    let hashes = std::process::Command::new(binary).args(["--hashes", "--seeds", "0..20"]).output();
    let other = String::from_utf8(hashes.unwrap().stdout).unwrap();
    let hash = |seed| -> Ran { run(seed, None, false).unwrap() };
    let line = |seed| {
        let ran = hash(seed);
        format!("{seed} {:016x} {}\n", ran.trace, ran.events)
    };
    assert_eq!((0..20).map(line).collect::<String>(), other);
    assert_ne!(hash(0).trace, hash(1).trace, "two seeds took one way");
}

#[test]
fn every_planted_bug_is_found() {
    on_violation(note);
    for plant in Plant::all() {
        let found = (0..PLANT_SEEDS).find(|seed| run(*seed, Some(plant), false).is_none());
        assert!(found.is_some(), "{plant} is not found");
    }
}
