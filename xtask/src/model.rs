//! `cargo xtask model`: the model of the rules, explored to its end, and every broken rule refuted.

use std::process::Command;

use anyhow::Result;

use crate::arguments::Arguments;
use crate::process::{build, run as run_command};

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let profile = arguments.profile()?;
    let deep = arguments.flag("--deep");
    arguments.finish()?;
    check(deep, &profile)
}

/// Builds it in `profile` and runs it; `deep` takes minutes.
pub(crate) fn check(deep: bool, profile: &str) -> Result<()> {
    let mut command = Command::new(build("towline-model", "towline-model", profile)?);
    if deep {
        command.arg("--deep");
    }
    run_command(&mut command)
}
