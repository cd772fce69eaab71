//! `cargo xtask loom`: the log's reservations in every order of their steps, and the bugs planted
//! in them found.
//!
//! A build of its own, in a folder of its own, has the model checker's atomics in the place of the
//! standard library's.

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::process::{cargo, target};

/// The compiler flag that puts them there.
const FLAG: &str = "--cfg towline_loom";
/// What a model says that holds, before the number of orders it was run in.
const RUNS: &str = "runs=";

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let profile = arguments.profile()?;
    arguments.finish()?;
    check(&profile)
}

/// Builds the models in `profile` and runs them all.
pub(crate) fn check(profile: &str) -> Result<()> {
    let what = ["test", "--quiet", "--package", "towline-wal", "--lib", "--profile", profile];
    let tests = ["loom_tests", "--", "--nocapture", "--test-threads", "1"];
    let mut command = cargo(&[&what[..], &tests].concat());
    command.env("RUSTFLAGS", FLAG).env("CARGO_TARGET_DIR", target().join("loom"));
    let output = command.output().context("cargo test")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let models: Vec<_> = said.lines().filter_map(|line| line.split_once("loom: ")).collect();
    models.iter().for_each(|(_, model)| println!("loom: {model}"));
    let runs = models.iter().filter_map(|(_, model)| model.split_once(RUNS)?.1.parse::<u64>().ok());
    let (runs, failed) = (runs.sum::<u64>(), u8::from(!output.status.success()));
    if failed > 0 {
        eprintln!("{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    println!("loom: runs={runs} failed={failed}");
    if failed > 0 || runs == 0 {
        bail!("a model does not hold, or a planted bug is not found");
    }
    Ok(())
}
