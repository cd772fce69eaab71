//! Runs schedules by the thousand: `towline-sim --seeds A..B`.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use towline_sim::{Plant, command, on_violation, run};

const USAGE: &str = "usage: towline-sim [--seeds A..B] [--threads N] [--trace]
       towline-sim --hashes [--seeds A..B]    the trace hash of every seed
       towline-sim --check-twice [--seeds A..B]    the same hashes in another process
       towline-sim --plants    names the planted bugs
       towline-sim --plant NAME    runs seeds until the bug is found
       towline-sim --all-plants    the same for each";
/// How many seeds were begun, for a report from the midst of one.
static BEGUN: AtomicU64 = AtomicU64::new(0);
/// Within so many seeds every planted bug is found.
const PLANT_SEEDS: u64 = 20_000;

enum Task {
    Run,
    Hashes,
    CheckTwice,
    ListPlants,
    Plant(Plant),
    AllPlants,
}

struct Arguments {
    task: Task,
    seeds: Range<u64>,
    threads: u64,
    tells: bool,
}

fn arguments() -> Result<Arguments, String> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let mut parsed = Arguments { task: Task::Run, seeds: 0..1_000, threads, tells: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => parsed.seeds = seeds(&value()?)?,
            "--threads" => {
                parsed.threads = value()?.parse().map_err(|_| "--threads needs a number")?;
            }
            "--trace" => parsed.tells = true,
            "--hashes" => parsed.task = Task::Hashes,
            "--check-twice" => parsed.task = Task::CheckTwice,
            "--plants" => parsed.task = Task::ListPlants,
            "--plant" => parsed.task = Task::Plant(value()?.parse()?),
            "--all-plants" => parsed.task = Task::AllPlants,
            other => return Err(format!("{other} is unknown")),
        }
    }
    Ok(parsed)
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let numbers =
        text.split_once("..").and_then(|(low, high)| Some(low.parse().ok()?..high.parse().ok()?));
    numbers.ok_or_else(|| format!("{text:?} is no range: write A..B"))
}

/// A violation ends the process: release builds abort on a panic, so nothing could go on.
fn report(seed: u64, plant: Option<Plant>, what: &str) {
    let Some(plant) = plant else {
        println!("seed {seed}: {what}; rerun: {}", command(seed));
        println!("sim: runs={} failed=1", BEGUN.load(Ordering::Relaxed));
        std::process::exit(1);
    };
    println!("{plant}: found by seed {seed}: {what}");
    std::process::exit(0);
}

fn main() -> ExitCode {
    on_violation(report);
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let fine = match &arguments.task {
        Task::Run => run_all(&arguments),
        Task::Hashes => print_hashes(&arguments),
        Task::CheckTwice => check_twice(&arguments),
        Task::ListPlants => {
            Plant::all().iter().for_each(|plant| println!("{plant}"));
            true
        }
        Task::Plant(plant) => find(*plant),
        Task::AllPlants => find_all(),
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_all(arguments: &Arguments) -> bool {
    let (next, virtual_ms) = (AtomicU64::new(arguments.seeds.start), AtomicU64::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.seeds.end {
                        return;
                    }
                    BEGUN.fetch_add(1, Ordering::Relaxed);
                    if let Some(ran) = run(seed, None, arguments.tells) {
                        virtual_ms.fetch_add(ran.virtual_ms, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let runs = arguments.seeds.end.saturating_sub(arguments.seeds.start);
    let core_s = begun.elapsed().as_secs_f64() * arguments.threads as f64;
    println!(
        "sim: runs={runs} failed=0 ({:.0} seeds/s per core, {} virtual s)",
        runs as f64 / core_s,
        virtual_ms.into_inner() / 1_000
    );
    true
}

fn hashes(arguments: &Arguments) -> String {
    let line = |seed| {
        run(seed, None, false)
            .map_or_else(String::new, |ran| format!("{seed} {:016x} {}\n", ran.trace, ran.events))
    };
    arguments.seeds.clone().map(line).collect()
}

fn print_hashes(arguments: &Arguments) -> bool {
    print!("{}", hashes(arguments));
    true
}

/// Runs the seeds here and in another process, and compares.
fn check_twice(arguments: &Arguments) -> bool {
    let Range { start, end } = arguments.seeds;
    let other = std::env::current_exe().and_then(|this| {
        let seeds = format!("{start}..{end}");
        std::process::Command::new(this).args(["--hashes", "--seeds", &seeds]).output()
    });
    let other = match other {
        Ok(other) => String::from_utf8_lossy(&other.stdout).into_owned(),
        Err(error) => {
            eprintln!("could not run a second process: {error}");
            return false;
        }
    };
    let own = hashes(arguments);
    let differs = own.lines().zip(other.lines()).find(|(own, other)| own != other);
    if let Some((own, other)) = differs {
        println!("a seed took two ways: {own} here, {other} in another process");
    }
    let same = own == other && !own.is_empty();
    println!("sim: seeds {start}..{end} twice: {}", if same { "the same" } else { "NOT the same" });
    same
}

fn find(plant: Plant) -> bool {
    for seed in 0..PLANT_SEEDS {
        let _ran = run(seed, Some(plant), false);
    }
    println!("{plant}: NOT found within {PLANT_SEEDS} seeds");
    false
}

/// Each in a process of its own, which ends when the bug is found.
fn find_all() -> bool {
    let Ok(this) = std::env::current_exe() else { return false };
    let find = |plant: &Plant| {
        let mut finding = std::process::Command::new(&this);
        finding.args(["--plant", &plant.to_string()]).status().is_ok_and(|status| status.success())
    };
    let all = Plant::all();
    all.iter().filter(|plant| find(plant)).count() == all.len()
}
