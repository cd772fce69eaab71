//! `cargo xtask crash-states` and its kin: what towline-torture does to the log, built and run.

use std::process::Command;

use anyhow::Result;

use crate::arguments::Arguments;
use crate::process::{binary, cargo, run as run_command};

/// Runs one harness with the words that were typed.
pub(crate) fn run(verb: &str, mut arguments: Arguments) -> Result<()> {
    let profile = arguments.profile()?;
    check(verb, &arguments.into_rest(), &profile)
}

/// Builds the harnesses in `profile` and runs one.
pub(crate) fn check(verb: &str, words: &[String], profile: &str) -> Result<()> {
    let what = ["build", "--quiet", "--package", "towline-torture", "--profile", profile];
    run_command(&mut cargo(&what))?;
    run_command(Command::new(binary(profile, "towline-torture")).arg(verb).args(words))
}
