//! `cargo xtask demo-loop`: the demo again and again, each time a killed primary.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::process::{Folder, Running, build_towline, check_interrupted};

/// A run that takes longer hangs.
const RUN_LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let runs = arguments.number("--runs")?.unwrap_or(2);
    let keep_going = arguments.flag("--keep-going");
    let profile = arguments.profile()?;
    arguments.finish()?;
    repeat(runs, keep_going, &profile)
}

/// Runs the demo `runs` times with a binary built once.
pub(crate) fn repeat(runs: usize, keep_going: bool, profile: &str) -> Result<()> {
    let towline = build_towline(profile)?;
    let mut folder = Folder::new("demo-loop")?;
    let (mut done, mut failed) = (0, 0);
    while done < runs && (failed == 0 || keep_going) {
        check_interrupted()?;
        done += 1;
        let started = Instant::now();
        let (log, kept) = (
            folder.path().join(format!("run-{done}.log")),
            folder.path().join(format!("run-{done}")),
        );
        let output = File::create(&log)?;
        let mut command = Command::new(&towline);
        command.args(["demo", "--keep-failed", "--dir"]).arg(&kept).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let ended = Running::spawn(&mut command)?.wait(Some(RUN_LIMIT));
        let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
        let last = text.lines().last().unwrap_or("it said nothing").to_owned();
        let problem = match ended {
            Ok(status) if !status.success() => Some(format!("ended with {status}")),
            Ok(_) => verdict(&last).err(),
            Err(error) => Some(format!("{error:#}")),
        };
        println!("run {done}: {last} ({:.1} s)", started.elapsed().as_secs_f64());
        if let Some(problem) = problem {
            failed += 1;
            folder.keep();
            println!("run {done}: FAILED: {problem}; see {} and {}", log.display(), kept.display());
        }
    }
    println!("demo-loop: runs={done} failed={failed}");
    if failed > 0 {
        bail!("{failed} of {done} runs failed; their folders are in {}", folder.path().display());
    }
    Ok(())
}

/// Whether the demo's last line says that all went well, and something was there to go wrong.
fn verdict(line: &str) -> Result<(), String> {
    let Some(fields) = line.strip_prefix("demo: ") else {
        return Err(format!("the last line is no verdict: {line}"));
    };
    let field = |name: &str| {
        let mut pairs = fields.split(' ').filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| value);
        value.ok_or_else(|| format!("the verdict has no {name}"))
    };
    for name in ["lost", "diverged"] {
        if field(name)? != "0" {
            return Err(format!("{name}={}", field(name)?));
        }
    }
    for name in ["acked", "cut", "gap_ms", "writes_per_s"] {
        if field(name)?.parse().is_ok_and(|value: f64| value > 0.0) {
            continue;
        }
        return Err(format!("{name}={}", field(name)?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn only_a_run_that_cut_something_and_lost_nothing_passes() {
        let line = "demo: acked=99980 lost=0 diverged=0 cut=4096 gap_ms=310 writes_per_s=9000";
        assert_eq!(verdict(line), Ok(()));
        for (from, to) in [
            ("lost=0", "lost=1"),
            ("diverged=0", "diverged=2"),
            ("cut=4096", "cut=0"),
            ("acked=99980", "acked=0"),
            ("gap_ms=310", "gap=310"),
            ("demo: ", "panicked: "),
        ] {
            assert!(verdict(&line.replace(from, to)).is_err(), "{to}");
        }
    }
}
