//! What a developer of Towline types.
//!
//! ```text
//! cargo xtask ci                     everything CI runs  [--only STEP]
//! cargo xtask tidy                   the rules of the house, checked
//! cargo xtask demo-loop --runs N     towline demo, N times  [--keep-going] [--profile NAME]
//! cargo xtask bench-redis [--quick]  Towline and redis-server, side by side
//! cargo xtask bench-wal [--quick]    the log, its peers and its limits  [--rounds N] [--dir D]
//! cargo xtask instructions           instructions per append, read and so on  [--update]
//! cargo xtask strace-test            no OK before two disks   [--profile NAME]
//! cargo xtask fuzz                   every fuzz target   [--target T] [--execs N]
//!                                      [--sanitizer address|none]
//! cargo xtask model                  the rules, explored to the end  [--deep] [--profile NAME]
//! cargo xtask scenarios              what other systems test, on this one  [--profile NAME]
//! cargo xtask loom                   the log's reservations in every order   [--profile NAME]
//! cargo xtask planted PART           every bug built in on purpose is caught  [--profile NAME]
//! cargo xtask crash-states           the log after every crash   [--states N | --full]
//! cargo xtask bit-flips              the log under damage   [--random N] [--full]
//! cargo xtask syscall-crash          the log with a fault at every system call   [--points N]
//! cargo xtask power-cut              the log on file systems that lose power   [--cuts N]
//! cargo xtask tsan                   the log's tests under ThreadSanitizer
//! cargo xtask coverage               how much of what judges a log is ever run
//! cargo xtask client-test            redis-cli, redis-benchmark and redis-py   [--profile NAME]
//! ```
#![forbid(unsafe_code)]

mod arguments;
mod bench_redis;
mod bench_wal;
mod ci;
mod client_test;
mod cluster;
mod coverage;
mod demo_loop;
mod fuzz;
mod instructions;
mod loom;
mod model;
mod planted;
mod process;
mod resp;
mod scenarios;
mod strace_test;
mod tidy;
mod tools;
mod torture;
mod tsan;

use std::process::ExitCode;

use arguments::Arguments;

const USAGE: &str = "usage: cargo xtask ci [--only STEP] | tidy | \
    demo-loop [--runs N] [--keep-going] | bench-redis [--quick] | \
    bench-wal [--quick] [--rounds N] [--dir D] [--only WORKLOAD,...] | instructions [--update] | \
    strace-test | client-test | \
    fuzz [--target T] [--execs N] [--sanitizer S] | loom | model [--deep] | scenarios | \
    planted protocol | planted wal | \
    crash-states [--states N | --full] [--only CASE] | \
    bit-flips [--random N] [--full] [--only CASE] | \
    syscall-crash [--points N] [--only CASE] | \
    power-cut [--cuts N] [--only CASE] | tsan | coverage";

fn main() -> ExitCode {
    let mut arguments = Arguments::new(std::env::args().skip(1));
    let verb = arguments.verb();
    let done = match verb.as_deref() {
        Some("ci") => ci::run(arguments),
        Some("tidy") => tidy::run(arguments),
        Some("demo-loop") => demo_loop::run(arguments),
        Some("bench-redis") => bench_redis::run(arguments),
        Some("bench-wal") => bench_wal::run(arguments),
        Some("instructions") => instructions::run(arguments),
        Some("strace-test") => strace_test::run(arguments),
        Some("fuzz") => fuzz::run(arguments),
        Some("coverage") => coverage::run(arguments),
        Some("loom") => loom::run(arguments),
        Some("tsan") => tsan::run(arguments),
        Some("model") => model::run(arguments),
        Some("scenarios") => scenarios::run(arguments),
        Some("planted") => planted::run(arguments),
        Some("client-test") => client_test::run(arguments),
        Some(verb @ ("crash-states" | "bit-flips" | "syscall-crash" | "power-cut")) => {
            torture::run(verb, arguments)
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", verb.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
