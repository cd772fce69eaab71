//! One measurement, in a process of its own: what a log leaves behind in memory, a thread that goes
//! on, a panic or a hang is nobody else's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::samples::Metrics;
use crate::size::Size;
use crate::workloads::Workload;

/// A measurement that takes longer has hung.
const TIMEOUT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(2);
/// What a line with a figure begins with; what else is printed is some log's own.
const MARK: &str = "= ";

/// Where measurements are made.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) size: Size,
}

/// Prints figures for [`Place::measure`] to read.
pub(crate) fn print(metrics: &Metrics) {
    for (name, value) in metrics {
        println!("{MARK}{value} {name}");
    }
}

impl Place {
    /// Measures one log, or one limit, at one workload. Its folder is gone afterwards, unless it is
    /// to be `kept`.
    pub(crate) fn measure(
        &self,
        workload: &Workload,
        who: &str,
        kept: bool,
    ) -> Result<Vec<(String, f64)>> {
        let name = workload.name;
        let dir = self.dir.join(if kept { name } else { "log" });
        let measured = self.run(name, who, &dir);
        if !kept && dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        if workload.is_long() {
            // The next one is not to wait for a disk that is busy with what this one left.
            nix::unistd::syncfs(File::open(&self.dir)?)?;
        }
        measured.with_context(|| format!("{who} at {name}"))
    }

    fn run(&self, workload: &str, who: &str, dir: &Path) -> Result<Vec<(String, f64)>> {
        let said = self.dir.join("said");
        let file = File::create(&said).with_context(|| said.display().to_string())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["measure", workload, who, self.size.name()]).arg(dir);
        command.env("WALRUS_DATA_DIR", dir.join("queue")).env("WALRUS_QUIET", "1");
        command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        let mut child = command.spawn().context("starting a process to measure in")?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if start.elapsed() > TIMEOUT {
                child.kill()?;
                child.wait()?;
                bail!("it still ran after {TIMEOUT:?}");
            }
            std::thread::sleep(POLL);
        };
        let said = String::from_utf8_lossy(&std::fs::read(&said)?).into_owned();
        if !status.success() {
            bail!("it ended with {status}: {}", said.trim());
        }
        parse(&said)
    }
}

fn parse(said: &str) -> Result<Vec<(String, f64)>> {
    let mut metrics = Vec::new();
    for line in said.lines().filter_map(|line| line.strip_prefix(MARK)) {
        let (value, name) = line.split_once(' ').with_context(|| format!("no figure: {line}"))?;
        let value: f64 = value.parse().with_context(|| format!("no figure: {line}"))?;
        if !value.is_finite() {
            bail!("{name} is {value}");
        }
        metrics.push((name.to_owned(), value));
    }
    if metrics.is_empty() {
        bail!("it measured nothing: {}", said.trim());
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_marked_lines_are_figures_and_a_figure_is_a_number() {
        let said = "[reclaim] something\n= 12.5 commits/s\n= 3 cpu us/commit\n";
        let expected = [("commits/s".to_owned(), 12.5), ("cpu us/commit".to_owned(), 3.0)];
        assert_eq!(parse(said).unwrap(), expected);
        for bad in ["", "= commits/s\n", "= NaN commits/s\n", "= inf commits/s\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
