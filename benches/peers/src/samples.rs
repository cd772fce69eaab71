//! What was measured.

use std::collections::BTreeMap;

/// The figures of one measurement, by name.
pub(crate) type Metrics = BTreeMap<&'static str, f64>;

/// The middle one; not a number if there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which that share of the values lies, between two of them if it has to be.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = last as f64 * share;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// One figure: the workload, who was measured, and what of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key(String, String, String);

/// The figures of a run, round by round.
#[derive(Default, Debug)]
pub(crate) struct Samples {
    values: BTreeMap<Key, BTreeMap<usize, f64>>,
}

impl Samples {
    pub(crate) fn add(&mut self, round: usize, workload: &str, who: &str, metric: &str, it: f64) {
        let key = Key(workload.to_owned(), who.to_owned(), metric.to_owned());
        self.values.entry(key).or_default().insert(round, it);
    }

    /// Forgets a round of a workload.
    pub(crate) fn forget(&mut self, round: usize, workload: &str) {
        for (key, rounds) in &mut self.values {
            if key.0 == workload {
                rounds.remove(&round);
            }
        }
    }

    pub(crate) fn get(&self, round: usize, workload: &str, who: &str, metric: &str) -> Option<f64> {
        let key = Key(workload.to_owned(), who.to_owned(), metric.to_owned());
        self.values.get(&key)?.get(&round).copied()
    }

    /// A figure in every round that has it.
    pub(crate) fn all(&self, workload: &str, who: &str, metric: &str) -> Vec<f64> {
        let key = Key(workload.to_owned(), who.to_owned(), metric.to_owned());
        self.values.get(&key).map(|rounds| rounds.values().copied().collect()).unwrap_or_default()
    }

    /// Who was measured at a workload, and of whom the figure is known.
    pub(crate) fn known(&self, workload: &str, metric: &str) -> Vec<&str> {
        let of = |key: &&Key| key.0 == workload && key.2 == metric;
        self.values.keys().filter(of).map(|key| key.1.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_where_they_should() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!(median(&values), 3.0);
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&values, 0.25), 2.0);
        assert_eq!(quantile(&values, 1.0), 5.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!(quantile(&[1.0, 2.0], 0.25), 1.25);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_round_that_is_forgotten_is_gone_for_its_workload_alone() {
        let mut samples = Samples::default();
        for round in 0..3 {
            samples.add(round, "append", "towline", "records/s", round as f64);
            samples.add(round, "durable", "towline", "commits/s", round as f64);
        }
        samples.forget(1, "append");
        assert_eq!(samples.all("append", "towline", "records/s"), [0.0, 2.0]);
        assert_eq!(samples.get(1, "append", "towline", "records/s"), None);
        assert_eq!(samples.all("durable", "towline", "commits/s").len(), 3);
        assert_eq!(samples.known("append", "records/s"), ["towline"]);
    }
}
