//! `cargo xtask model`: the model of the rules, explored to its end, and every broken rule refuted.

use anyhow::Result;

use crate::arguments::Arguments;
use crate::process::{binary, cargo, run as run_command};

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let profile = arguments.profile()?;
    let deep = arguments.flag("--deep");
    arguments.finish()?;
    check(deep, &profile)
}

/// Builds it in `profile` and runs it; `deep` takes minutes.
pub(crate) fn check(deep: bool, profile: &str) -> Result<()> {
    let what = ["build", "--quiet", "--package", "towline-model", "--profile", profile];
    run_command(&mut cargo(&what))?;
    let mut command = std::process::Command::new(binary(profile, "towline-model"));
    if deep {
        command.arg("--deep");
    }
    run_command(&mut command)
}
