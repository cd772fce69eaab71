//! What is printed, and what is written into the docs.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::peer::OURS;
use crate::plot;
use crate::rounds::Rounds;
use crate::rows;
use crate::samples::{Samples, median, quantile};
use crate::table::{Line, line, show, show_held};
use crate::versions;

/// How it is measured, in words.
const METHOD: &str = include_str!("method.md");
/// The command that writes the docs.
const COMMAND: &str = "cargo xtask bench-wal";

/// The figures of a run, arranged.
pub(crate) struct Report<'a> {
    lines: Vec<Line>,
    samples: &'a Samples,
    rounds: usize,
    thrown: &'a [String],
    lacking: &'a [String],
    machine: String,
}

impl<'a> Report<'a> {
    pub(crate) fn new(measured: &'a Rounds, rounds: usize, machine: String) -> Self {
        let samples = &measured.samples;
        let fill = |row| line(row, samples, measured.last_round(rounds));
        let lines = rows::ALL.iter().filter_map(fill).collect();
        let (thrown, lacking) = (&measured.thrown, &measured.lacking);
        Self { lines, samples, rounds, thrown, lacking, machine }
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let (low, high) = (quantile(&line.ours, 0.25), quantile(&line.ours, 0.75));
            let [low, middle, high] =
                [low, median(&line.ours), high].map(|it| show(it, line.row.unit));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:<40} {middle} [{low} … {high}]", line.row.what);
            for words in goals(line) {
                let _ = writeln!(text, "{:<40} {words}", "");
            }
        }
        for why in self.thrown {
            let _ = writeln!(text, "thrown away: {}", why.lines().next().unwrap_or_default());
        }
        let _ = writeln!(text, "{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        let with_goal = self.lines.iter().filter(|line| line.has_goal());
        let (goals, met) =
            with_goal.fold((0, 0), |(goals, met), it| (goals + 1, met + usize::from(it.is_met())));
        format!(
            "bench-wal: rounds={} thrown={} rows={goals} met={met} missed={}",
            self.rounds,
            self.thrown.len(),
            goals - met
        )
    }

    /// Writes `wal.md` and its plots into a folder.
    pub(crate) fn write(&self, docs: &Path) -> Result<()> {
        std::fs::create_dir_all(docs).with_context(|| docs.display().to_string())?;
        plot::appends(self.samples, &docs.join("wal-append.svg"))?;
        plot::durable(self.samples, &docs.join("wal-durable.svg"))?;
        let path = docs.join("wal.md");
        std::fs::write(&path, self.markdown()?).with_context(|| path.display().to_string())?;
        println!("written: {}", path.display());
        Ok(())
    }

    fn markdown(&self) -> Result<String> {
        let mut text = String::from("# The log beside others\n\n");
        let _ = writeln!(text, "Written by `{COMMAND}`; do not edit.\n");
        for described in [self.machine.as_str(), &versions::describe()?] {
            for described in described.lines() {
                let _ = writeln!(text, "- {described}");
            }
        }
        let _ = writeln!(
            text,
            "- rounds: {}, of which some were thrown away: {}\n",
            self.rounds,
            self.thrown.len()
        );
        if !self.lacking.is_empty() {
            let lacking = self.lacking.join(", ");
            let _ = writeln!(text, "**Nothing is said of {lacking}**: too few good rounds.\n");
        }
        let _ = writeln!(text, "| What | Median [quartiles] | Held against | |");
        let _ = writeln!(text, "|------|--------------------|--------------|-|");
        for line in &self.lines {
            let (low, high) = (quantile(&line.ours, 0.25), quantile(&line.ours, 0.75));
            let [low, middle, high] =
                [low, median(&line.ours), high].map(|it| show(it, line.row.unit));
            let verdict = match (line.has_goal(), line.is_met()) {
                (false, _) => "",
                (true, true) => "met",
                (true, false) => "**missed**",
            };
            let held = goals(line).join("<br>");
            let what = line.row.what;
            let _ = writeln!(text, "| {what} | {middle} [{low} … {high}] | {held} | {verdict} |");
        }
        let _ = writeln!(text, "\n{}\n", self.summary());
        let _ = writeln!(text, "![records appended per second](wal-append.svg)\n");
        let _ = writeln!(text, "![commits per second](wal-durable.svg)\n");
        text.push_str(METHOD);
        text.push_str("\n## Everybody\n\n");
        text.push_str(&self.everybody());
        if !self.thrown.is_empty() {
            text.push_str("\n## Thrown away\n\n");
            for why in self.thrown {
                let _ = writeln!(text, "- {}", why.lines().next().unwrap_or_default());
            }
        }
        Ok(text)
    }

    /// The medians of all, row by row.
    fn everybody(&self) -> String {
        let mut text = String::from("Medians, best first.\n\n| What | |\n|------|-|\n");
        for row in &rows::ALL {
            let Some((workload, _)) = row.peers else { continue };
            let known = self.samples.known(workload, row.metric);
            let of = |who: &&str| median(&self.samples.all(workload, who, row.metric));
            let mut all: Vec<(f64, &str)> = known.iter().map(|who| (of(who), *who)).collect();
            all.retain(|(figure, who)| figure.is_finite() && !crate::limits::NAMES.contains(who));
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            if row.better == rows::Better::Higher {
                all.reverse();
            }
            let show = |(figure, who): &(f64, &str)| {
                let mark = if *who == OURS { "**" } else { "" };
                format!("{mark}{who}{mark} {}", show(*figure, row.unit))
            };
            let all: Vec<_> = all.iter().map(show).collect();
            let _ = writeln!(text, "| {} | {} |", row.what, all.join(", "));
        }
        text
    }
}

/// The goals of a row in words, each with its verdict.
fn goals(line: &Line) -> Vec<String> {
    let held = [&line.limit, &line.peer].into_iter().flatten();
    let mut goals: Vec<_> = held.map(|held| show_held(held, &line.row)).collect();
    if let Some(most) = line.row.most {
        let is_met = line.row.meets(median(&line.ours), most);
        let verdict = if is_met { "met" } else { "missed" };
        goals.push(format!("goal ≤ {}: {verdict}", show(most, line.row.unit)));
    }
    goals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Place;
    use crate::size::Size;

    #[test]
    fn a_goal_that_is_missed_is_bold_in_the_docs_and_counted() {
        let place = Place { dir: "unused".into(), size: Size::Full };
        let mut measured = Rounds::new(place, &[]).unwrap();
        for (who, rate) in [(OURS, 4e6), ("skeleton", 2e7), ("wal-db", 1e6), ("pwrite", 3e6)] {
            for round in 0..3 {
                measured.samples.add(round, "append-64", who, "records/s", rate);
            }
        }
        measured.lacking.push("durable-64 (1 of 2)".to_owned());
        let report = Report::new(&measured, 3, "machine: one".to_owned());
        let text = report.markdown().unwrap();
        let row = text.lines().find(|line| line.contains("1 writer, 64 B")).unwrap();
        assert_eq!(
            row,
            "| append unsynced, 1 writer, 64 B | 4.00 M/s [4.00 M/s … 4.00 M/s] | \
             0.20 [0.20 … 0.20] of skeleton (20.00 M/s), goal ≥ 0.6: missed<br>\
             4.00 [4.00 … 4.00] of wal-db (1.00 M/s), goal ≥ 3: met | **missed** |"
        );
        assert!(text.contains("**towline** 4.00 M/s, pwrite 3.00 M/s, wal-db 1.00 M/s"));
        assert!(text.contains("**Nothing is said of durable-64 (1 of 2)**"));
        assert!(report.summary().ends_with("rows=1 met=0 missed=1"));
    }
}
