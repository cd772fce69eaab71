//! Tortures the log and judges it from outside: `towline-torture VERB`, or `cargo xtask VERB`.

#![forbid(unsafe_code)]

mod arguments;
mod bit_flips;
mod crash_states;
mod events;
mod kept;
mod life;
mod log;
mod oracle;
mod plant;
mod power_cut;
mod random;
mod syscall_crash;
mod tally;
mod writers;

use std::path::Path;
use std::process::ExitCode;

use arguments::Arguments;
use bit_flips::Extent;
use crash_states::Budget;
use events::Reporter;
use tally::{Tally, on_panic};

const USAGE: &str = "usage: towline-torture crash-states [--states N | --full] [--only CASE]
       \
    towline-torture bit-flips [--random N] [--full | --glance] [--only CASE]\n       \
    towline-torture syscall-crash [--points N] [--only CASE]\n       \
    towline-torture power-cut [--cuts N] [--only CASE]\n       \
    towline-torture life FOLDER SEED | writers FOLDER LIFE    what these run and kill\n       \
    towline-torture plants | plant NAME    the bugs this build may have, and one of them, caught";

fn main() -> ExitCode {
    let mut arguments = Arguments::new(std::env::args().skip(1));
    let verb = arguments.verb();
    let done = match verb.as_str() {
        "crash-states" => crash_states(arguments),
        "bit-flips" => bit_flips(arguments),
        "syscall-crash" => syscall_crash(arguments),
        "power-cut" => power_cut(arguments),
        "life" => life(arguments),
        "writers" => writers(arguments),
        "judge" => judge(arguments),
        "plants" => plants(arguments),
        "plant" => catch(arguments),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn crash_states(mut arguments: Arguments) -> Result<bool, String> {
    let states = arguments.number("--states")?;
    let full = arguments.flag("--full");
    let only = arguments.value("--only")?;
    arguments.finish()?;
    on_panic(1);
    let tally = Tally::new("crash-states", false);
    let budget = match states {
        Some(states) => Budget::States(states),
        None if full => Budget::Full,
        None => Budget::Short,
    };
    match only {
        Some(case) => crash_states::run_one(&case, &tally),
        None => crash_states::run(&budget, &tally),
    }
    Ok(tally.end())
}

fn bit_flips(mut arguments: Arguments) -> Result<bool, String> {
    let random = arguments.number("--random")?;
    let extent = match (arguments.flag("--full"), arguments.flag("--glance")) {
        (true, _) => Extent::Full,
        (_, true) => Extent::Glance,
        _ => Extent::Short,
    };
    let only = arguments.value("--only")?;
    arguments.finish()?;
    on_panic(1);
    let tally = Tally::new("bit-flips", false);
    match only {
        Some(case) => bit_flips::run_one(&case, &tally)?,
        None => bit_flips::run(extent, random, &tally),
    }
    Ok(tally.end())
}

fn syscall_crash(mut arguments: Arguments) -> Result<bool, String> {
    let points = arguments.number("--points")?.unwrap_or(syscall_crash::POINTS);
    let only = arguments.value("--only")?;
    arguments.finish()?;
    on_panic(1);
    let tally = Tally::new("syscall-crash", false);
    match only {
        Some(case) => syscall_crash::run_one(&case, &tally)?,
        None => syscall_crash::run(points, &tally)?,
    }
    Ok(tally.end())
}

fn life(mut arguments: Arguments) -> Result<bool, String> {
    let (folder, seed) = (arguments.verb(), arguments.verb());
    arguments.finish()?;
    let seed = seed.parse().map_err(|_| format!("{seed:?} is no seed"))?;
    let reporter = Reporter::new().map_err(|error| format!("standard output: {error}"))?;
    Ok(life::live(Path::new(&folder), seed, &reporter))
}

fn power_cut(mut arguments: Arguments) -> Result<bool, String> {
    let cuts = arguments.number("--cuts")?.unwrap_or(power_cut::CUTS);
    let only = arguments.value("--only")?;
    arguments.finish()?;
    on_panic(1);
    let tally = Tally::new("power-cut", false);
    match only {
        Some(case) => power_cut::run_one(&case, &tally)?,
        None => power_cut::run(cuts, &tally),
    }
    Ok(tally.end())
}

fn writers(mut arguments: Arguments) -> Result<bool, String> {
    let (folder, life) = (arguments.verb(), arguments.verb());
    let syncs = !arguments.flag("--unsynced");
    arguments.finish()?;
    let life = life.parse().map_err(|_| format!("{life:?} is no life"))?;
    let reporter = Reporter::new().map_err(|error| format!("standard output: {error}"))?;
    let wrote = writers::write(Path::new(&folder), life, syncs, &reporter);
    wrote.map(|()| true).map_err(|error| error.to_string())
}

/// Judges a log by what is told on standard input.
fn judge(mut arguments: Arguments) -> Result<bool, String> {
    let folder = arguments.verb();
    arguments.finish()?;
    let told = std::io::read_to_string(std::io::stdin()).map_err(|error| error.to_string())?;
    Ok(syscall_crash::judge_told(Path::new(&folder), &told))
}

/// Names the bugs that can be planted.
fn plants(arguments: Arguments) -> Result<bool, String> {
    arguments.finish()?;
    plant::names().for_each(|name| println!("{name}"));
    Ok(plant::IS_PLANTED)
}

/// Plants a bug and tortures the log until it shows.
fn catch(mut arguments: Arguments) -> Result<bool, String> {
    let name = arguments.verb();
    arguments.finish()?;
    plant::plant(Some(plant::named(&name)?));
    // A panic shows it as well as a failure.
    on_panic(0);
    let (damages, crashes) = (Tally::new("bit-flips", true), Tally::new("crash-states", true));
    // What takes longest comes last; it begins with the shortest workloads.
    bit_flips::run(Extent::Glance, None, &damages);
    if !damages.has_failed() {
        crash_states::run(&Budget::Short, &crashes);
    }
    let is_caught = damages.has_failed() || crashes.has_failed();
    println!("{name}: {}", if is_caught { "caught" } else { "NOT caught" });
    Ok(is_caught)
}
