//! `cargo xtask scenarios`: the scenarios of docs/design/scenarios.md, and whether that page and
//! the tests still name each other.

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::process::{cargo, check_interrupted, chosen, root, show};

/// The page with the table of what is covered.
const TABLE: &str = "docs/design/scenarios.md";
/// With fewer than these something is amiss with the run itself.
const FEWEST: usize = 25;

/// What a run of the tests said of each.
#[derive(Debug, Default)]
struct Told {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
}

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let profile = arguments.profile()?;
    arguments.finish()?;
    check(&profile)
}

/// Runs every scenario, built in `profile`, and compares them with the table.
pub(crate) fn check(profile: &str) -> Result<()> {
    let mut command = cargo(&["test", "--test", "scenarios"]);
    command.args(chosen("towline-sim", profile)).args(["--", "--format=pretty"]);
    command.stderr(Stdio::inherit());
    let done = command.output().with_context(|| format!("cannot start {}", show(&command)))?;
    check_interrupted()?;
    let text = String::from_utf8_lossy(&done.stdout);
    let told = told(&text);
    if !done.status.success() {
        print!("{text}");
    }
    let page = root().join(TABLE);
    let table = std::fs::read_to_string(&page)
        .with_context(|| format!("cannot read {}", page.display()))?;
    let stale = stale(&named(&table), &told);
    for line in &stale {
        println!("{line}");
    }
    let runs = told.passed.len() + told.failed.len();
    println!("scenarios: runs={runs} failed={}", told.failed.len());
    if !done.status.success() || !told.failed.is_empty() {
        bail!("{} of {runs} scenarios failed ({})", told.failed.len(), done.status);
    }
    if runs < FEWEST {
        bail!("only {runs} scenarios ran, of at least {FEWEST}");
    }
    if !stale.is_empty() {
        bail!("{TABLE} and the tests differ in {} names", stale.len());
    }
    Ok(())
}

/// What became of each test, by the lines of a test run. One that is ignored did not run.
fn told(text: &str) -> Told {
    let mut told = Told::default();
    for line in text.lines() {
        let Some((name, end)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        else {
            continue;
        };
        match end.trim() {
            "ok" => told.passed.insert(name.to_owned()),
            "FAILED" => told.failed.insert(name.to_owned()),
            _ => false,
        };
    }
    told
}

/// The tests that the rows of the table name: every `file::test` in its last column.
fn named(table: &str) -> BTreeSet<String> {
    let rows = table.lines().filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'));
    let cells = rows.filter_map(|row| row.rsplit('|').next());
    let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    spans.filter(|span| span.contains("::")).map(str::to_owned).collect()
}

/// What the table names and nobody ran, and what ran and is not named.
fn stale(named: &BTreeSet<String>, told: &Told) -> Vec<String> {
    let ran: BTreeSet<String> = told.passed.union(&told.failed).cloned().collect();
    let gone = named.difference(&ran).map(|name| format!("{TABLE}: {name}: no such test ran"));
    let missing = ran.difference(named).map(|name| format!("{TABLE}: {name} is not in the table"));
    gone.chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "\nrunning 3 tests\ntest a::one ... ok\ntest a::two ... FAILED\n\
        test b::three ... ignored, later\n\nfailures:\n    a::two\n";

    #[test]
    fn a_run_tells_what_became_of_each_test() {
        let told = told(RUN);
        assert_eq!(told.passed, BTreeSet::from(["a::one".to_owned()]));
        assert_eq!(told.failed, BTreeSet::from(["a::two".to_owned()]));
    }

    #[test]
    fn the_table_names_tests_in_its_last_column_only() {
        let table = "`c::prose`\n\n| theirs | why | test |\n|--|--|--|\n\
            | `d::theirs` | yes | `a::one`, `a::two` |\n| x | no: `not one` | – |\n";
        assert_eq!(named(table), BTreeSet::from(["a::one".to_owned(), "a::two".to_owned()]));
    }

    #[test]
    fn names_that_differ_either_way_are_told() {
        let told = told(RUN);
        let same = BTreeSet::from(["a::one".to_owned(), "a::two".to_owned()]);
        assert_eq!(stale(&same, &told), Vec::<String>::new());
        let other = BTreeSet::from(["a::one".to_owned(), "b::three".to_owned()]);
        let stale = stale(&other, &told);
        assert_eq!(stale.len(), 2);
        assert!(stale[0].contains("b::three: no such test ran"), "an ignored test is none");
        assert!(stale[1].contains("a::two is not in the table"));
    }
}
