//! `cargo xtask planted protocol`: every bug that is built in on purpose is caught by the
//! simulator.
//!
//! The bugs of the rules are in the code of the product, behind `--cfg towline_planted`; a build of
//! its own, in a folder of its own, has them, and each run switches one of them on.

use std::process::Command;

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::process::{cargo, check_interrupted, output, run as run_command, target};

/// The compiler flag that lets the planted bugs in.
const FLAG: &str = "--cfg towline_planted";

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let what = arguments.verb();
    let profile = arguments.profile()?;
    arguments.finish()?;
    match what.as_deref() {
        Some("protocol") => check(&profile),
        _ => bail!("say what: cargo xtask planted protocol"),
    }
}

/// Plants every bug of the rules and of their driver, one after another.
pub(crate) fn check(profile: &str) -> Result<()> {
    let folder = target().join("planted");
    let what = ["build", "--quiet", "--package", "towline-sim", "--profile", profile];
    run_command(cargo(&what).env("RUSTFLAGS", FLAG).env("CARGO_TARGET_DIR", &folder))?;
    let built = if profile == "dev" { "debug" } else { profile };
    let simulator = folder.join(built).join("towline-sim");
    let names = output(Command::new(&simulator).arg("--plants"))?;
    let mut caught = 0;
    for name in names.lines() {
        check_interrupted()?;
        let found = Command::new(&simulator).args(["--plant", name]).output()?;
        print!("{}", String::from_utf8_lossy(&found.stdout));
        caught += usize::from(found.status.success());
    }
    let planted = names.lines().count();
    println!("planted protocol: planted={planted} caught={caught}");
    if caught < planted || planted == 0 {
        bail!("{} of {planted} planted bugs were not caught", planted - caught);
    }
    Ok(())
}
