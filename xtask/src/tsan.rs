//! `cargo xtask tsan`: the log's tests under ThreadSanitizer, which sees two threads that touch the
//! same memory with nothing that orders them.
//!
//! The standard library is built with it, from its source: otherwise what its locks order goes
//! unseen, and every second report is of something that is in order.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::process::{CI_PROFILE, cargo, output, run as run_command, target};
use crate::tools;

/// `tokio_unstable` as in .cargo/config.toml, which this replaces.
const FLAGS: &str = "-Z sanitizer=thread --cfg tokio_unstable";
/// Builds the log with a race in it, which must be seen.
const RACY: &str = "--cfg towline_racy";
/// The tests that have it soonest.
const RACING: &str = "flushes";
/// The first race ends the program that has it; its report names both sides.
const OPTIONS: &str = "halt_on_error=1:second_deadlock_stack=1";
/// What it says of one.
const RACE: &str = "WARNING: ThreadSanitizer: data race";
/// What is built for, which has to be named where the standard library is built, too.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    arguments.finish()?;
    if let Some(why) = lacks() {
        bail!("{why}");
    }
    check()
}

/// What is missing to run it here, after an attempt to install it.
pub(crate) fn lacks() -> Option<String> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"])).ok()?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock");
    if !source.exists() && tools::has("rustup") {
        println!("installing rust-src");
        let _ = run_command(Command::new("rustup").args(["component", "add", "rust-src"]));
    }
    (!source.exists()).then(|| {
        "the standard library's source is not installed: rustup component add rust-src".to_owned()
    })
}

/// Builds the log's tests and runs them all; then those of a log that has a race.
pub(crate) fn check() -> Result<()> {
    let done = tests(FLAGS, &[])?;
    let said = String::from_utf8_lossy(&done.stdout);
    let passed = said.lines().filter_map(passed).sum::<u64>();
    let mut failed = u8::from(!done.status.success());
    if failed > 0 {
        eprintln!("{said}{}", String::from_utf8_lossy(&done.stderr));
    }
    let control = tests(&format!("{FLAGS} {RACY}"), &[RACING])?;
    if String::from_utf8_lossy(&control.stderr).contains(RACE) {
        println!("tsan: the race that is built in: seen");
    } else {
        println!("tsan: the race that is built in: NOT seen");
        failed += 1;
    }
    println!("tsan: runs={passed} failed={failed}");
    if failed > 0 || passed == 0 {
        bail!("a race, a test that fails, or a race that is not seen");
    }
    Ok(())
}

fn tests(flags: &str, chosen: &[&str]) -> Result<Output> {
    let what = ["test", "--quiet", "--package", "towline-wal", "--lib", "--tests"];
    let how = ["--profile", CI_PROFILE, "-Z", "build-std", "--target", TRIPLE];
    let mut command = cargo(&[&what[..], &how, chosen].concat());
    command.env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", target().join("tsan"));
    // The sanitizer's flags are unstable; the code is not.
    command.env("RUSTC_BOOTSTRAP", "1").env("TSAN_OPTIONS", OPTIONS);
    command.output().context("cargo test")
}

/// How many tests one program says have passed.
fn passed(line: &str) -> Option<u64> {
    let (_, counts) = line.split_once("test result: ok. ")?;
    counts.split_once(" passed")?.0.parse().ok()
}
