//! The log of Towline beside other logs, and beside what the machine can do.
//!
//! `cargo xtask bench-wal` builds and runs this. Every measurement is made in a process of its own,
//! which this program starts by its own name and the word `measure`.
#![deny(unsafe_code)]

mod cell;
mod limits;
mod machine;
mod meter;
mod peer;
mod peers;
mod plot;
mod report;
mod rounds;
mod rows;
mod samples;
mod size;
mod table;
mod versions;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use cell::Place;
use report::Report;
use rounds::Rounds;
use size::Size;

const USAGE: &str = "usage: towline-bench-peers run DIR [--quick] [--rounds N] \
    [--only WORKLOAD,...] [--docs DIR]";
/// Fewer rounds have no median worth the name.
const ROUNDS_MIN: usize = 2;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["measure", workload, who, size, dir] => measure(workload, who, size, Path::new(dir)),
        ["run", dir, options @ ..] => run(Path::new(dir), options),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(workload: &str, who: &str, size: &str, dir: &Path) -> Result<()> {
    // Whoever waits for the figures may be ended first.
    set_pdeathsig(Signal::SIGKILL)?;
    let sizes = [Size::Full, Size::Quick];
    let size = sizes.into_iter().find(|it| it.name() == size).context("full or quick")?;
    cell::print(&workloads::measure(workload, who, dir, size)?);
    Ok(())
}

/// What was asked for.
#[derive(Default)]
struct Options {
    quick: bool,
    rounds: Option<usize>,
    only: Vec<String>,
    docs: Option<PathBuf>,
}

impl Options {
    fn parse(mut words: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        while let [name, rest @ ..] = words {
            words = rest;
            if *name == "--quick" {
                options.quick = true;
                continue;
            }
            let [value, rest @ ..] = words else { bail!("{name} needs a value\n{USAGE}") };
            words = rest;
            match *name {
                "--rounds" => options.rounds = Some(value.parse().context("--rounds")?),
                "--only" => options.only = value.split(',').map(str::to_owned).collect(),
                "--docs" => options.docs = Some(value.into()),
                _ => bail!("{name}: unknown here\n{USAGE}"),
            }
        }
        Ok(options)
    }
}

fn run(dir: &Path, options: &[&str]) -> Result<()> {
    let options = Options::parse(options)?;
    let size = if options.quick { Size::Quick } else { Size::Full };
    let rounds = options.rounds.unwrap_or(size.rounds());
    ensure!(rounds >= ROUNDS_MIN, "--rounds {rounds}: at least {ROUNDS_MIN}");
    // What is measured in part, or little, says nothing that should be kept.
    let is_whole = size == Size::Full && options.only.is_empty();
    let docs = options.docs.filter(|_| is_whole);
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let machine = machine::describe(dir)?;
    machine::check_room(dir, size)?;
    println!("{machine}");
    println!("{}", versions::describe()?);
    let place = Place { dir: dir.to_owned(), size };
    let mut measured = Rounds::new(place, &options.only)?;
    measured.run(rounds);
    let report = Report::new(&measured, rounds, machine);
    print!("{}", report.text());
    if let Some(docs) = docs {
        report.write(&docs)?;
    }
    let lacking = measured.lacking.join(", ");
    ensure!(lacking.is_empty(), "too few good rounds, so nothing is said of {lacking}");
    Ok(())
}
