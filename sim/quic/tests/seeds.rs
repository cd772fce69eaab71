//! Whole clusters: a few seeds, and that a seed is the same wherever it runs.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use towline_sim_quic::{Prints, credentials, run};

fn program(args: &[&str]) -> (bool, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_towline-sim-quic")).args(args).output().unwrap();
    (ran.status.success(), String::from_utf8(ran.stdout).unwrap())
}

#[test]
fn a_seed_runs_the_same_way_in_another_process() {
    let (succeeded, printed) = program(&["--seeds", "0..6", "--check-twice"]);
    assert!(succeeded && printed.contains("sim-quic: runs=6 failed=0"), "{printed}");
}

#[test]
fn keys_are_of_no_consequence() {
    // Keys are made anew; the run is the same.
    let once = run(7, &credentials(), Prints::Nothing);
    let again = run(7, &credentials(), Prints::Nothing);
    assert_eq!(once.violations, Vec::<String>::new());
    assert_eq!((once.trace, once.packets), (again.trace, again.packets));
    assert_ne!(once.trace, run(8, &credentials(), Prints::Nothing).trace);
}

#[test]
fn a_run_is_long_and_its_clients_are_served() {
    let outcome = run(3, &credentials(), Prints::Nothing);
    let (writes, reads) = outcome.acknowledged;
    assert!(outcome.virtual_time.as_secs() >= 6, "{outcome:?}");
    assert!(writes >= 20 && reads >= 20 && outcome.packets >= 1_000, "{outcome:?}");
}

#[test]
fn nonsense_on_the_command_line_is_told_apart_from_a_failed_seed() {
    let ran = Command::new(env!("CARGO_BIN_EXE_towline-sim-quic")).arg("--seeds").output().unwrap();
    assert_eq!(ran.status.code(), Some(2));
}
