//! Runs seeds: `towline-sim-quic --seeds 0..50`.

#![forbid(unsafe_code)]

mod args;

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use args::Args;
use towline_sim_quic::{Outcome, Prints, credentials, name_seed, run};

const USAGE: &str = "usage: towline-sim-quic --seeds A..B [--jobs N] [--check-twice] \
                     [--trace] [--packets] [--hash]";

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if !cfg!(tokio_unstable) {
        eprintln!(
            "built without `--cfg tokio_unstable` (see .cargo/config.toml; RUSTFLAGS overrides \
             it): a seed would not run the same way again"
        );
        return ExitCode::from(2);
    }
    towline_sim_quic::report_panics();
    let tally = Tally::default();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| work(&args, &tally));
        }
    });
    tally.print(begun.elapsed())
}

/// What the runs came to.
#[derive(Default)]
struct Tally {
    taken: AtomicU64,
    totals: Mutex<Totals>,
}

#[derive(Default)]
struct Totals {
    runs: u64,
    failed: u64,
    virtual_time: Duration,
    acknowledged: (u64, u64),
}

/// Runs seeds until none is left.
fn work(args: &Args, tally: &Tally) {
    let credentials = credentials();
    loop {
        let seed = args.seeds.start + tally.taken.fetch_add(1, Ordering::Relaxed);
        if seed >= args.seeds.end {
            return;
        }
        name_seed(seed);
        let mut outcome = run(seed, &credentials, args.prints);
        if args.prints == Prints::Hash {
            println!("{:016x}", outcome.trace);
        }
        if args.check_twice
            && let Err(differs) = run_elsewhere(seed, &outcome)
        {
            outcome.violations.push(differs);
        }
        tally.add(seed, &outcome);
    }
}

impl Tally {
    fn add(&self, seed: u64, outcome: &Outcome) {
        let mut totals = self.totals.lock().expect("nobody panics with it");
        totals.runs += 1;
        totals.virtual_time += outcome.virtual_time;
        totals.acknowledged.0 += outcome.acknowledged.0;
        totals.acknowledged.1 += outcome.acknowledged.1;
        if let Some(first) = outcome.violations.first() {
            totals.failed += 1;
            println!("FAILED {}", towline_sim_quic::command(seed));
            println!("  {first}");
        }
    }

    fn print(&self, took: Duration) -> ExitCode {
        let totals = self.totals.lock().expect("nobody panics with it");
        let rate = totals.runs as f64 / took.as_secs_f64();
        let (writes, reads) = totals.acknowledged;
        println!(
            "sim-quic: runs={} failed={} ({rate:.1} seeds/s, {:.0} virtual s), {writes} writes, \
             {reads} reads",
            totals.runs,
            totals.failed,
            totals.virtual_time.as_secs_f64()
        );
        if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Runs a seed in another process, and compares.
fn run_elsewhere(seed: u64, here: &Outcome) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let seeds = format!("{seed}..{}", seed + 1);
    let ran = Command::new(program).args(["--hash", "--jobs", "1", "--seeds", &seeds]).output();
    let printed = ran.map_err(|error| error.to_string())?.stdout;
    let there = String::from_utf8_lossy(&printed).lines().next().unwrap_or_default().to_owned();
    let here = format!("{:016x}", here.trace);
    if here == there {
        return Ok(());
    }
    Err(format!("its trace is {here} here and {there} in another process"))
}
