//! What was measured, and the table it makes.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, bail};

/// Requests per second of every round, by (pipeline, command) and server.
#[derive(Default)]
pub(super) struct Report {
    rates: BTreeMap<(usize, String), BTreeMap<&'static str, Vec<f64>>>,
}

impl Report {
    /// Adds what `redis-benchmark --csv` printed.
    pub(super) fn add(&mut self, server: &'static str, pipeline: &str, csv: &str) -> Result<()> {
        let mut rows = 0;
        for line in csv.lines() {
            let fields: Vec<&str> = line.split(',').map(|field| field.trim_matches('"')).collect();
            let [name, rate, ..] = fields[..] else {
                continue;
            };
            if name == "test" {
                continue;
            }
            let rate: f64 = rate.parse().with_context(|| format!("no rate in {line}"))?;
            let workload = (pipeline.parse()?, name.to_owned());
            self.rates.entry(workload).or_default().entry(server).or_default().push(rate);
            rows += 1;
        }
        if rows == 0 {
            bail!("redis-benchmark printed no rates");
        }
        Ok(())
    }

    /// Medians, their spread, and how Towline compares.
    pub(super) fn table(&self) -> String {
        let mut table = format!(
            "{:<10} {:>12} {:>19} {:>12} {:>19} {:>7}\n",
            "workload", "towline/s", "[min … max]", "redis/s", "[min … max]", "ratio"
        );
        for ((pipeline, name), servers) in &self.rates {
            let workload =
                if *pipeline == 1 { name.clone() } else { format!("{name} -P {pipeline}") };
            let [ours, theirs] = ["towline", "redis"].map(|server| Spread::of(servers.get(server)));
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "{workload:<10} {:>12.0} {:>19} {:>12.0} {:>19} {:>7.2}",
                ours.median,
                ours.range(),
                theirs.median,
                theirs.range(),
                ours.median / theirs.median
            );
        }
        table
    }
}

struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(rates: Option<&Vec<f64>>) -> Self {
        let mut rates = rates.cloned().unwrap_or_default();
        rates.sort_by(f64::total_cmp);
        let at = |index: usize| rates.get(index).copied().unwrap_or(f64::NAN);
        Self { min: at(0), median: at(rates.len() / 2), max: at(rates.len().saturating_sub(1)) }
    }

    fn range(&self) -> String {
        format!("[{:.0} … {:.0}]", self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn the_table_compares_medians() {
        let mut report = Report::default();
        let csv = |rate: u32| format!("\"test\",\"rps\"\n\"SET\",\"{rate}.00\",\"0.5\"\n");
        for (ours, theirs) in [(100, 40), (300, 60), (200, 50)] {
            report.add("towline", "16", &csv(ours)).unwrap();
            report.add("redis", "16", &csv(theirs)).unwrap();
        }
        let table = report.table();
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row.join(" "), "SET -P 16 200 [100 … 300] 50 [40 … 60] 4.00");
        assert!(report.add("redis", "1", "could not connect").is_err());
    }
}
