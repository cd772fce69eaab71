//! `cargo xtask fuzz`: every fuzz target, or one, for so many executions or so long.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::process::{Running, cargo, output, root, run as run_command};
use crate::tools;

/// How many executions of each target there are unless told otherwise.
const EXECS: usize = 100_000;
/// The sanitizer, unless told otherwise.
const SANITIZER: &str = "address";
/// What libFuzzer says at the end, before the number of executions.
const EXECUTED: &str = "stat::number_of_executed_units:";
/// How much targets read of their input, in bytes: a longer one is slower and does nothing more.
const LEN_MAX: [(&str, usize); 4] =
    [("cursor", 64 * 3), ("recovery", 16 * 6), ("repair", 1 + 12 * 6), ("segment_header", 66)];
/// Short backtraces of memory, and no second stack for what outlives a call: they cost a third of
/// the time. The first only explain a finding; no unsafe code here points into a stack.
const ASAN_OPTIONS: &str = "malloc_context_size=2:detect_stack_use_after_return=0";

/// When a target has run long enough.
#[derive(Clone, Copy)]
enum Budget {
    Execs(usize),
    Seconds(usize),
}

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let target = arguments.value("--target")?;
    let execs = arguments.number("--execs")?.unwrap_or(EXECS);
    let sanitizer = arguments.value("--sanitizer")?.unwrap_or_else(|| SANITIZER.to_owned());
    arguments.finish()?;
    if !prepare() {
        bail!("cargo-fuzz is not installed and can not be: cargo install cargo-fuzz");
    }
    let targets = targets()?;
    let chosen: Vec<&String> = targets
        .iter()
        .filter(|name| target.as_ref().is_none_or(|target| *name == target))
        .collect();
    if chosen.is_empty() {
        bail!("no such target; there are {}", targets.join(", "));
    }
    run_all(&chosen, Budget::Execs(execs), &sanitizer)
}

/// Runs every target, `seconds` in all; `false` if there is no fuzzer here.
pub(crate) fn check(seconds: usize) -> Result<bool> {
    if !prepare() {
        return Ok(false);
    }
    let targets = targets()?;
    let each = (seconds / targets.len().max(1)).max(1);
    run_all(&targets.iter().collect::<Vec<_>>(), Budget::Seconds(each), SANITIZER)?;
    Ok(true)
}

/// Whether there is a `cargo fuzz`, installed now if need be.
fn prepare() -> bool {
    tools::has("cargo-fuzz")
        || run_command(&mut cargo(&["install", "cargo-fuzz", "--locked"])).is_ok()
}

fn targets() -> Result<Vec<String>> {
    Ok(output(&mut cargo(&["fuzz", "list"]))?.lines().map(str::to_owned).collect())
}

fn run_all(targets: &[&String], budget: Budget, sanitizer: &str) -> Result<()> {
    let (mut runs, mut failed) = (0, Vec::new());
    for target in targets {
        let (ran, passed) = run_one(target, budget, sanitizer)?;
        runs += ran;
        if !passed {
            failed.push(target.as_str());
        }
    }
    println!("fuzz: runs={runs} failed={}", failed.len());
    if !failed.is_empty() {
        bail!("{} failed; the inputs lie in fuzz/artifacts", failed.join(", "));
    }
    Ok(())
}

/// How often the target ran, and whether it always passed.
fn run_one(target: &str, budget: Budget, sanitizer: &str) -> Result<(u64, bool)> {
    let limit = match budget {
        Budget::Execs(execs) => format!("-runs={execs}"),
        Budget::Seconds(seconds) => format!("-max_total_time={seconds}"),
    };
    // What is found is kept in the first folder; the second is where everybody begins.
    let (found, seeds) = (format!("fuzz/corpus/{target}"), format!("testdata/fuzz/{target}"));
    std::fs::create_dir_all(root().join(&found))?;
    let mut what = vec!["fuzz", "run", "--sanitizer", sanitizer, target, &found];
    if root().join(&seeds).is_dir() {
        what.push(&seeds);
    }
    what.extend(["--", &limit, "-print_final_stats=1"]);
    let longest = LEN_MAX.iter().find(|(name, _)| *name == target);
    let longest = longest.map(|(_, len)| format!("-max_len={len}"));
    what.extend(longest.as_deref());
    let mut command = cargo(&what);
    if std::env::var_os("ASAN_OPTIONS").is_none() {
        command.env("ASAN_OPTIONS", ASAN_OPTIONS);
    }
    // The sanitizer's flags are unstable; the code is not.
    let mut child = Running::spawn(command.env("RUSTC_BOOTSTRAP", "1").stderr(Stdio::piped()))?;
    let said = child.take_stderr().context("the fuzzer's stderr is piped")?;
    let mut runs = 0;
    for line in BufReader::new(said).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some(count) = line.strip_prefix(EXECUTED) {
            runs = count.trim().parse().context("libFuzzer's count")?;
        }
        eprintln!("{line}");
    }
    Ok((runs, child.wait(None)?.success()))
}
