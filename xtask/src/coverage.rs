//! `cargo xtask coverage`: how much of the code that judges a log's bytes is ever run by its tests,
//! in regions as the compiler counts them.
//!
//! What is instrumented is built in a folder of its own. The tools that read what it leaves are
//! LLVM's, of the compiler's own major version.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::process::{cargo, output, root, run as run_command, target};
use crate::tools;

/// The format, and what recovers, reads, checks, cuts and repairs by it.
const JUDGES: [&str; 17] = [
    "protocol/src/barrier.rs",
    "protocol/src/record.rs",
    "wal/src/block.rs",
    "wal/src/check.rs",
    "wal/src/control.rs",
    "wal/src/copies.rs",
    "wal/src/cut.rs",
    "wal/src/digests.rs",
    "wal/src/header.rs",
    "wal/src/newest.rs",
    "wal/src/reader.rs",
    "wal/src/recovery.rs",
    "wal/src/repair.rs",
    "wal/src/report.rs",
    "wal/src/scan.rs",
    "wal/src/scrub.rs",
    "wal/src/trim.rs",
];
/// How many of the regions are to be run, in percent.
const GOAL: f64 = 95.0;
/// `tokio_unstable` as in .cargo/config.toml, which this replaces.
const FLAGS: &str = "-C instrument-coverage --cfg tokio_unstable";
const PROFILE: &str = "ci";

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    arguments.finish()?;
    let llvm = llvm()?;
    let folder = target().join("coverage");
    let profiles = folder.join("profiles");
    // What an earlier run left is of another build.
    let _ = std::fs::remove_dir_all(&profiles);
    let instrumented = |command: &mut Command| {
        command.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &folder);
        command.env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw"));
    };
    let tests = ["test", "--no-run", "--lib", "--tests", "--package", "towline-wal"];
    let mut build = cargo(&[&tests[..], &["--package", "towline-protocol"]].concat());
    build.args(["--quiet", "--profile", PROFILE, "--message-format=json"]);
    instrumented(&mut build);
    let programs = executables(&output(&mut build)?);
    for test in &programs {
        let mut command = Command::new(test);
        instrumented(command.arg("--quiet").current_dir(root().join("wal")));
        run_command(&mut command)?;
    }
    report(&llvm, &folder, &programs)
}

/// Where the compiler's LLVM has its tools, installed now if need be.
fn llvm() -> Result<PathBuf> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let major = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = major.and_then(|version| version.split('.').next()).context("rustc has no LLVM")?;
    let folder = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
    let package = format!("llvm-{major}");
    if !folder.join("llvm-cov").exists() {
        tools::install(&[&package]);
    }
    if !folder.join("llvm-cov").exists() {
        bail!("there is no llvm-cov in {}: apt-get install {package}", folder.display());
    }
    Ok(folder)
}

/// The programs that cargo says it built.
fn executables(messages: &str) -> Vec<String> {
    let path = |line: &str| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        rest.split_once('"').map(|(path, _)| path.to_owned())
    };
    messages.lines().filter_map(path).collect()
}

/// Says what was reached, file by file.
fn report(llvm: &Path, folder: &Path, programs: &[String]) -> Result<()> {
    let merged = folder.join("merged.profdata");
    let mut merge = Command::new(llvm.join("llvm-profdata"));
    merge.args(["merge", "--sparse", "--output"]).arg(&merged).arg(folder.join("profiles"));
    run_command(&mut merge)?;
    let mut report = Command::new(llvm.join("llvm-cov"));
    report.current_dir(root()).arg("report").arg(format!("--instr-profile={}", merged.display()));
    for (at, program) in programs.iter().enumerate() {
        report.args(if at == 0 { &[][..] } else { &["--object"][..] }).arg(program);
    }
    let (mut regions, mut missed) = (0, 0);
    let table = output(report.args(JUDGES.map(|file| root().join(file))))?;
    for (file, all, not) in JUDGES.into_iter().filter_map(|file| row(&table, file)) {
        println!("{:5.1} % of {all:4} regions: {file}", percent(all, not));
        (regions, missed) = (regions + all, missed + not);
    }
    let reached = percent(regions, missed);
    println!("coverage: regions={reached:.1}% goal={GOAL:.0}%");
    if reached < GOAL {
        bail!(
            "{missed} of {regions} regions are never run; which: {} show --show-regions ...",
            llvm.join("llvm-cov").display()
        );
    }
    Ok(())
}

/// A file's regions, and how many were never run.
fn row<'a>(table: &str, file: &'a str) -> Option<(&'a str, u32, u32)> {
    let short = file.rsplit('/').next()?;
    let mut rows = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let is_it = file.ends_with(name) && name.rsplit('/').next() == Some(short);
        is_it.then_some(())?;
        Some((file, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    });
    rows.next()
}

fn percent(all: u32, missed: u32) -> f64 {
    100.0 * f64::from(all - missed) / f64::from(all.max(1))
}
