//! `cargo xtask ci`: everything CI runs, in the order in which it fails fastest.
//!
//! All steps that compile share one profile, `ci` (see the root Cargo.toml): clippy and doc share
//! their checked dependencies, tests and demo their built ones.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::process::{CI_PROFILE, build, cargo, check_interrupted, run as run_command};
use crate::{
    client_test, demo_loop, fuzz, instructions, loom, model, planted, scenarios, strace_test, tidy,
    tools, torture,
};

/// The profile everything is built in.
const PROFILE: &str = CI_PROFILE;
/// How long the fuzzer runs, all targets together, in seconds.
const FUZZ_SECONDS: usize = 35;
/// What the whole is meant to stay below, on two cores and from an empty target folder.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What became of a step that did not fail.
enum Done {
    Passed,
    /// It could not be run here, and why.
    Skipped(String),
}

/// A name, by which it is rerun alone, and what it does.
type Step = (&'static str, fn() -> Result<Done>);

const STEPS: [Step; 22] = [
    ("tools", || {
        tools::prepare();
        Ok(Done::Passed)
    }),
    ("fmt", || {
        cargo_step(&["fmt", "--all", "--check"])?;
        cargo_step(&["fmt", "--manifest-path", "benches/peers/Cargo.toml", "--check"])
    }),
    ("tidy", || tidy::run(Arguments::new([])).map(|()| Done::Passed)),
    ("clippy", || {
        let what = ["clippy", "--workspace", "--all-targets", "--profile", PROFILE];
        cargo_step(&[&what[..], &["--quiet", "--", "-D", "warnings"]].concat())
    }),
    ("doc", doc),
    ("build", || build("towline-server", "towline", PROFILE).map(|_| Done::Passed)),
    ("test", || cargo_step(&["test", "--workspace", "--profile", PROFILE, "--quiet"])),
    ("scenarios", || scenarios::check(PROFILE).map(|()| Done::Passed)),
    ("sim", || simulate("towline-sim", "0..2000")),
    ("sim-quic", || simulate("towline-sim-quic", "0..50")),
    ("crash-states", || torture_step("crash-states")),
    ("bit-flips", || torture_step("bit-flips")),
    ("syscall-crash", || torture_step("syscall-crash")),
    ("power-cut", || torture_step("power-cut")),
    ("loom", || loom::check(PROFILE).map(|()| Done::Passed)),
    ("planted", || planted::check(PROFILE).map(|()| Done::Passed)),
    ("model", || model::check(false, PROFILE).map(|()| Done::Passed)),
    ("instructions", instructions_step),
    ("demo", || demo_loop::repeat(1, false, PROFILE).map(|()| Done::Passed)),
    ("strace", strace),
    ("clients", clients),
    ("fuzz", fuzz_step),
];

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let only = arguments.value("--only")?;
    arguments.finish()?;
    let steps: Vec<&Step> =
        STEPS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)).collect();
    if steps.is_empty() {
        let names: Vec<_> = STEPS.iter().map(|(name, _)| *name).collect();
        bail!("no such step; there are {}", names.join(", "));
    }
    let started = Instant::now();
    let mut skipped = Vec::new();
    for (name, step) in steps {
        check_interrupted()?;
        println!("── {name}");
        let began = Instant::now();
        let done = step();
        let seconds = began.elapsed().as_secs_f64();
        match done.with_context(|| {
            format!(
                "step {name} failed after {seconds:.1} s; rerun it: cargo xtask ci --only {name}"
            )
        })? {
            Done::Passed => println!("── {name}: ok, {seconds:.1} s"),
            Done::Skipped(why) => {
                println!("SKIPPED: {name}: {why}");
                skipped.push(format!("SKIPPED: {name}: {why}"));
            }
        }
    }
    let elapsed = started.elapsed();
    for line in &skipped {
        println!("{line}");
    }
    if elapsed > LIMIT {
        println!(
            "slow: {:.0} s, meant to stay below {:.0} s",
            elapsed.as_secs_f64(),
            LIMIT.as_secs_f64()
        );
    }
    println!("ci: ok, {} skipped, {:.0} s", skipped.len(), elapsed.as_secs_f64());
    Ok(())
}

fn cargo_step(arguments: &[&str]) -> Result<Done> {
    run_command(&mut cargo(arguments))?;
    Ok(Done::Passed)
}

fn doc() -> Result<Done> {
    let what = ["doc", "--workspace", "--no-deps", "--profile", PROFILE, "--quiet"];
    run_command(cargo(&what).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Done::Passed)
}

/// Seeds that every build runs; campaigns run others.
fn simulate(package: &str, seeds: &str) -> Result<Done> {
    let simulator = build(package, package, PROFILE)?;
    run_command(Command::new(simulator).args(["--seeds", seeds]))?;
    Ok(Done::Passed)
}

fn torture_step(verb: &str) -> Result<Done> {
    match torture::lacks(verb) {
        Some(why) => Ok(Done::Skipped(why)),
        None => torture::check(verb, &[], PROFILE).map(|()| Done::Passed),
    }
}

fn instructions_step() -> Result<Done> {
    match instructions::lacks() {
        Some(why) => Ok(Done::Skipped(why)),
        None => instructions::check().map(|()| Done::Passed),
    }
}

fn strace() -> Result<Done> {
    if !tools::has("strace") {
        return Ok(Done::Skipped("strace is not installed".to_owned()));
    }
    if !tools::may_trace() {
        return Ok(Done::Skipped("this machine does not let strace attach".to_owned()));
    }
    strace_test::check(PROFILE).map(|()| Done::Passed)
}

fn clients() -> Result<Done> {
    let missing = client_test::check(PROFILE)?;
    if missing.is_empty() {
        return Ok(Done::Passed);
    }
    Ok(Done::Skipped(format!("in part: {}", missing.join(", "))))
}

fn fuzz_step() -> Result<Done> {
    if !fuzz::check(FUZZ_SECONDS)? {
        return Ok(Done::Skipped("cargo-fuzz cannot be installed".to_owned()));
    }
    Ok(Done::Passed)
}
