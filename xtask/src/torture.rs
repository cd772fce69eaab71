//! `cargo xtask crash-states` and its kin: what towline-torture does to the log, built and run.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::process::{build, run as run_command};
use crate::tools;

/// Runs one harness with the words that were typed.
pub(crate) fn run(verb: &str, mut arguments: Arguments) -> Result<()> {
    let profile = arguments.profile()?;
    if let Some(why) = lacks(verb) {
        bail!("{why}");
    }
    check(verb, &arguments.into_rest(), &profile)
}

/// Builds the harnesses in `profile` and runs one.
pub(crate) fn check(verb: &str, words: &[String], profile: &str) -> Result<()> {
    let torture = build("towline-torture", "towline-torture", profile)?;
    run_command(Command::new(torture).arg(verb).args(words))
}

/// What a harness needs and this machine does not have, even after trying to install it.
pub(crate) fn lacks(verb: &str) -> Option<String> {
    let needed: &[&str] = match verb {
        "syscall-crash" => &["strace"],
        "power-cut" => &["strace", "mkfs.ext4", "mkfs.xfs", "xfs_io", "losetup"],
        _ => return None,
    };
    if needed.iter().any(|program| !tools::has(program)) {
        tools::prepare();
    }
    if let Some(missing) = needed.iter().find(|program| !tools::has(program)) {
        return Some(format!("{missing} is not installed"));
    }
    if !tools::may_trace() {
        return Some("this machine does not let strace attach".to_owned());
    }
    if verb == "power-cut" && !(is_root() && Path::new("/dev/loop-control").exists()) {
        return Some("only root, on a kernel with loop devices, mounts a file".to_owned());
    }
    None
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    user.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}
