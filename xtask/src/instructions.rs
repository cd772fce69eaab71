//! `cargo xtask instructions`: what an append, a read and the like take in instructions, counted by
//! callgrind and held against a baseline.
//!
//! Time depends on the machine and on who else is on it; a count does not. The program runs each
//! operation twice, with two numbers of records, and the difference counts: what it takes to start,
//! to found a log and to prepare a segment falls out.
//!
//! callgrind shows every program the same processor, which has `pclmulqdq` and `avx2` and neither
//! `vpclmulqdq` nor `avx512f`. So the checksums always take the same path here, which on many
//! machines is not the fastest they have; what is counted is everything around them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::process::{Folder, binary, cargo, check_interrupted, output, root, run as run_command};
use crate::tools;

/// Optimised as what is shipped.
const PROFILE: &str = "release";
const PROGRAM: &str = "towline-instructions";
const BASELINE: &str = "benches/instructions.toml";
/// By how many percent an operation may grow before that is called a regression.
const TOLERANCE: f64 = 3.0;
/// The two numbers of records.
const COUNTS: [u64; 2] = [500, 1_500];

/// Where an operation finds its log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    /// It makes one.
    New,
    /// One of as many records as are asked for.
    AsLong,
    /// One of the larger number, of which it reads as many as are asked for.
    Long,
}

const OPERATIONS: [(&str, Log); 6] = [
    ("append-64", Log::New),
    ("append-256", Log::New),
    ("append-4k", Log::New),
    ("publish", Log::New),
    ("cursor", Log::Long),
    ("scan", Log::AsLong),
];

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let update = arguments.flag("--update");
    let planted = arguments.flag("--planted");
    arguments.finish()?;
    if let Some(why) = lacks() {
        println!("SKIPPED: instructions: {why}");
        return Ok(());
    }
    match (update, planted) {
        (true, true) => bail!("a planted regression is no baseline"),
        (true, false) => self::update(),
        (false, true) => check_planted(),
        (false, false) => check(),
    }
}

/// Why it can not be checked here, if it can not.
pub(crate) fn lacks() -> Option<String> {
    (!tools::has("valgrind")).then(|| "valgrind is not installed: apt-get install valgrind".into())
}

/// Fails if an operation takes more than the baseline allows.
pub(crate) fn check() -> Result<()> {
    let counted = count(&build()?)?;
    let failed = compare(&counted)?;
    println!("instructions: checked={} failed={failed}", counted.len());
    if failed > 0 {
        bail!(
            "{failed} operations take over {TOLERANCE} % more instructions than {BASELINE} says; \
             if that is meant: cargo xtask instructions --update"
        );
    }
    Ok(())
}

/// Fails unless the regression that is built in on purpose is found in every operation.
pub(crate) fn check_planted() -> Result<()> {
    let folder = crate::process::target().join("planted");
    let what = build_words();
    let flag = "--cfg towline_planted";
    run_command(cargo(&what).env("RUSTFLAGS", flag).env("CARGO_TARGET_DIR", &folder))?;
    let counted = count(&folder.join(PROFILE).join(PROGRAM))?;
    let failed = compare(&counted)?;
    let planted = OPERATIONS.len();
    println!("planted instructions: planted={planted} caught={failed}");
    if failed < planted {
        bail!("a planted regression was not found");
    }
    Ok(())
}

fn update() -> Result<()> {
    let counted = count(&build()?)?;
    let mut text = format!(
        "# Instructions per operation, by callgrind. `cargo xtask instructions` fails if one\n\
         # grows by more than {TOLERANCE} %; `cargo xtask instructions --update` writes this.\n\
         # Counted with {}.\n\n",
        compiler()?
    );
    for (operation, count) in &counted {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{operation} = {count:.0}");
    }
    std::fs::write(root().join(BASELINE), &text).context(BASELINE)?;
    print!("{text}");
    Ok(())
}

fn build_words() -> [&'static str; 8] {
    ["build", "--quiet", "--package", "towline-benches", "--bin", PROGRAM, "--profile", PROFILE]
}

fn build() -> Result<PathBuf> {
    run_command(&mut cargo(&build_words()))?;
    Ok(binary(PROFILE, PROGRAM))
}

fn compiler() -> Result<String> {
    Ok(output(Command::new("rustc").arg("--version"))?.trim().to_owned())
}

/// Instructions per operation.
fn count(program: &Path) -> Result<BTreeMap<&'static str, f64>> {
    let folder = Folder::new("instructions")?;
    let [few, many] = COUNTS;
    for count in COUNTS {
        // Each run has logs of its own: both are run at once, and a log is locked while it is open.
        for (name, records) in [("log", count), ("long", many)] {
            let log = folder.path().join(format!("{name}-{count}"));
            output(Command::new(program).arg("write").arg(log).arg(records.to_string()))?;
        }
    }
    let mut counted = BTreeMap::new();
    for (operation, log) in OPERATIONS {
        check_interrupted()?;
        // Side by side: a count does not mind.
        let [few_took, many_took] = std::thread::scope(|scope| {
            COUNTS
                .map(|count| {
                    let folder = folder.path();
                    scope.spawn(move || callgrind(program, folder, operation, log, count))
                })
                .map(|counting| counting.join().expect("counting does not panic"))
        });
        let each = many_took?.saturating_sub(few_took?) as f64 / (many - few) as f64;
        counted.insert(operation, each);
    }
    Ok(counted)
}

/// Instructions of a whole run.
fn callgrind(program: &Path, folder: &Path, operation: &str, log: Log, count: u64) -> Result<u64> {
    let log = folder.join(match log {
        Log::New => format!("new-{operation}-{count}"),
        Log::AsLong => format!("log-{count}"),
        Log::Long => format!("long-{count}"),
    });
    let out = folder.join(format!("callgrind-{operation}-{count}"));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display()));
    valgrind.arg(program).arg(operation).arg(log).arg(count.to_string());
    output(&mut valgrind)?;
    let text = std::fs::read_to_string(&out).with_context(|| out.display().to_string())?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.with_context(|| format!("{}: no totals", out.display()))?;
    total.trim().parse().with_context(|| format!("{}: totals {total}", out.display()))
}

/// Prints every operation beside its baseline; how many took too much.
fn compare(counted: &BTreeMap<&str, f64>) -> Result<usize> {
    let text = std::fs::read_to_string(root().join(BASELINE)).with_context(|| {
        format!("{BASELINE}: no baseline; write it: cargo xtask instructions --update")
    })?;
    let baseline = parse(&text)?;
    let mut failed = 0;
    for (operation, count) in counted {
        let allowed = baseline.get(*operation).with_context(|| {
            format!("{BASELINE} has no {operation}: cargo xtask instructions --update")
        })?;
        let change = (count / allowed - 1.0) * 100.0;
        let verdict = match change {
            change if change > TOLERANCE => "FAILED",
            change if change < -TOLERANCE => "fewer: cargo xtask instructions --update",
            _ => "ok",
        };
        failed += usize::from(change > TOLERANCE);
        println!("{operation:<12} {count:>8.0} of {allowed:>8.0} {change:>+7.1} %  {verdict}");
    }
    if failed > 0 && !text.contains(&compiler()?) {
        println!("the baseline was counted with another compiler than {}", compiler()?);
    }
    Ok(failed)
}

fn parse(text: &str) -> Result<BTreeMap<String, f64>> {
    let mut baseline = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, count) =
            line.split_once(" = ").with_context(|| format!("{BASELINE}: {line}"))?;
        let count: f64 = count.parse().with_context(|| format!("{BASELINE}: {line}"))?;
        if count <= 0.0 {
            bail!("{BASELINE}: {line}: that is no count");
        }
        baseline.insert(name.to_owned(), count);
    }
    Ok(baseline)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_baseline_is_names_and_counts() {
        let baseline = parse("# a comment\n\nappend-64 = 512\nscan = 7.5\n").unwrap();
        assert_eq!(baseline["append-64"], 512.0);
        assert_eq!(baseline["scan"], 7.5);
        for bad in ["append", "append = many", "append = 0"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
