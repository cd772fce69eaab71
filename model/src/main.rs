//! Explores every setting and refutes every broken rule.
//!
//! `towline-model [--deep] [--trace] [WORD]`: `--deep` adds the settings that take minutes,
//! `--trace` prints counterexamples, WORD picks the runs whose line has it.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use towline_model::runs::{Outcome, Run, all};

fn main() -> ExitCode {
    let (mut deep, mut trace, mut word) = (false, false, None);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--deep" => deep = true,
            "--trace" => trace = true,
            _ => word = Some(argument),
        }
    }
    let mut runs = all(deep);
    runs.retain(|run| word.as_ref().is_none_or(|word| title(run).contains(word.as_str())));
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    let output = Mutex::new(());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run.explore();
                    failed.fetch_add(usize::from(!outcome.failures.is_empty()), Ordering::Relaxed);
                    let _one_at_a_time = output.lock();
                    report(run, &outcome, trace);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("model: runs={} failed={failed}", runs.len());
    if failed == 0 && !runs.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn title(run: &Run) -> String {
    match run.setting.broken {
        Some(broken) => format!("broken {broken:?}"),
        None => run.setting.name.to_owned(),
    }
}

fn report(run: &Run, outcome: &Outcome, trace: bool) {
    let seconds = outcome.elapsed.as_secs_f64();
    let what = match (&outcome.counterexample, run.refutes) {
        (Some(actions), Some(claim)) => format!("refuted in {} steps: {claim}", actions.len()),
        (None, None) if outcome.failures.is_empty() => format!("holds, depth {}", outcome.depth),
        _ => "FAILED".to_owned(),
    };
    println!("{}: {} states, {seconds:.1} s, {what}", title(run), outcome.states);
    if let Some(actions) = outcome.counterexample.as_ref().filter(|_| trace) {
        println!("    {actions:?}");
    }
    for failure in &outcome.failures {
        println!("    {failure}");
    }
}
