//! `cargo xtask crash-states` and its kin: what towline-torture does to the log, built and run.

use std::process::Command;

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::process::{binary, cargo, run as run_command};
use crate::tools;

/// Runs one harness with the words that were typed.
pub(crate) fn run(verb: &str, mut arguments: Arguments) -> Result<()> {
    let profile = arguments.profile()?;
    if let Some(why) = lacks(verb) {
        bail!("{why}");
    }
    check(verb, &arguments.into_rest(), &profile)
}

/// What this machine does not have and a harness needs.
pub(crate) fn lacks(verb: &str) -> Option<&'static str> {
    if verb == "syscall-crash" && !tools::has("strace") {
        tools::prepare();
    }
    match verb {
        "syscall-crash" if !tools::has("strace") => Some("strace is not installed"),
        "syscall-crash" if !tools::may_trace() => Some("this machine does not let strace attach"),
        _ => None,
    }
}

/// Builds the harnesses in `profile` and runs one.
pub(crate) fn check(verb: &str, words: &[String], profile: &str) -> Result<()> {
    let what = ["build", "--quiet", "--package", "towline-torture", "--profile", profile];
    run_command(&mut cargo(&what))?;
    run_command(Command::new(binary(profile, "towline-torture")).arg(verb).args(words))
}
