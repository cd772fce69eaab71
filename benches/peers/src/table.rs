//! The table: medians, ratios round by round, and whether the goals are met.

use crate::peer::{BASELINES, OURS};
use crate::rows::{At, Better, Row, Unit};
use crate::samples::{Samples, median, quantile};

/// What we are held against in one respect.
pub(crate) struct Held {
    /// Against whom, and the median of the figure.
    pub(crate) against: String,
    pub(crate) value: f64,
    /// Ours over it, in every round.
    pub(crate) ratios: Vec<f64>,
    pub(crate) goal: f64,
    pub(crate) is_met: bool,
}

/// One row, filled in.
pub(crate) struct Line {
    pub(crate) row: Row,
    pub(crate) ours: Vec<f64>,
    pub(crate) limit: Option<Held>,
    pub(crate) peer: Option<Held>,
}

impl Line {
    /// Whether every goal of the row is met.
    pub(crate) fn is_met(&self) -> bool {
        let held = [&self.limit, &self.peer];
        let most = self.row.most.is_none_or(|most| self.row.meets(median(&self.ours), most));
        most && held.into_iter().flatten().all(|held| held.is_met)
    }

    /// Whether there is any goal.
    pub(crate) fn has_goal(&self) -> bool {
        self.limit.is_some() || self.peer.is_some() || self.row.most.is_some()
    }
}

/// Fills in a row; `None` if its workload was not measured.
pub(crate) fn line(row: &Row, samples: &Samples, rounds: usize) -> Option<Line> {
    let at = |round| At { samples, round };
    let ours: Vec<f64> = (0..rounds).filter_map(|round| row.ours(&at(round))).collect();
    if ours.is_empty() {
        return None;
    }
    let limit = row.limit.and_then(|limit| {
        let of = |round| (limit.of)(&at(round), row);
        held(row, &at, rounds, limit.name.to_owned(), limit.goal, &of)
    });
    let peer = row.peers.and_then(|(workload, goal)| {
        let best = best_peer(row, samples, workload)?;
        let of = |round| samples.get(round, workload, best, row.metric);
        held(row, &at, rounds, best.to_owned(), goal, &of)
    });
    Some(Line { row: *row, ours, limit, peer })
}

fn held<'a>(
    row: &Row,
    at: &dyn Fn(usize) -> At<'a>,
    rounds: usize,
    against: String,
    goal: f64,
    of: &dyn Fn(usize) -> Option<f64>,
) -> Option<Held> {
    let (mut values, mut ratios) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if let (Some(ours), Some(value)) = (row.ours(&at(round)), of(round)) {
            values.push(value);
            ratios.push(ours / value);
        }
    }
    let is_met = row.meets(median(&ratios), goal);
    (!ratios.is_empty()).then(|| Held { against, value: median(&values), ratios, goal, is_met })
}

/// The peer with the best median; a baseline is none.
fn best_peer<'a>(row: &Row, samples: &'a Samples, workload: &str) -> Option<&'a str> {
    let is_peer = |who: &&str| {
        *who != OURS && !BASELINES.contains(who) && !crate::limits::NAMES.contains(who)
    };
    let peers = samples.known(workload, row.metric).into_iter().filter(is_peer);
    let figures = peers.map(|who| (median(&samples.all(workload, who, row.metric)), who));
    let figures = figures.filter(|(figure, _)| figure.is_finite());
    let best = match row.better {
        Better::Higher => figures.max_by(|a, b| a.0.total_cmp(&b.0)),
        Better::Lower => figures.min_by(|a, b| a.0.total_cmp(&b.0)),
    };
    best.map(|(_, who)| who)
}

/// A figure in words.
pub(crate) fn show(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
        Unit::PerSecond if value >= 1e3 => format!("{:.1} k/s", value / 1e3),
        Unit::PerSecond => format!("{value:.0}/s"),
        Unit::BytesPerSecond => format!("{:.2} GB/s", value / 1e9),
        Unit::Bytes => format!("{:.2} KiB", value / 1024.0),
        Unit::Micros => format!("{value:.2} µs"),
        Unit::Millis => format!("{value:.1} ms"),
        Unit::Mib => format!("{value:.1} MiB"),
        Unit::Count => format!("{value:.0}"),
        Unit::Percent => format!("{:.2} %", value * 100.0),
    }
}

/// Median, quartiles, goal and verdict.
pub(crate) fn show_held(held: &Held, row: &Row) -> String {
    let [low, high] = [0.25, 0.75].map(|share| quantile(&held.ratios, share));
    let sign = if row.better == Better::Higher { '≥' } else { '≤' };
    let verdict = if held.is_met { "met" } else { "missed" };
    let (median, goal) = (median(&held.ratios), held.goal);
    format!(
        "{:.2} [{low:.2} … {high:.2}] of {} ({}), goal {sign} {goal}: {verdict}",
        median,
        held.against,
        show(held.value, row.unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ALL;

    fn samples(ours: f64) -> Samples {
        let mut samples = Samples::default();
        for round in 0..3 {
            let mut add = |who: &str, rate: f64| {
                samples.add(round, "append-64", who, "records/s", rate + round as f64);
            };
            add(OURS, ours);
            add("skeleton", 1_000.0);
            add("mutex-file", 200.0);
            add("wal-db", 100.0);
            add("fjall", 50.0);
        }
        samples
    }

    #[test]
    fn a_row_is_held_against_its_limit_and_the_best_peer() {
        let line = line(&ALL[0], &samples(700.0), 3).unwrap();
        assert_eq!(line.peer.as_ref().unwrap().against, "wal-db");
        assert!(line.is_met());
        let words = show_held(&line.peer.unwrap(), &line.row);
        assert_eq!(words, "6.94 [6.91 … 6.97] of wal-db (101/s), goal ≥ 3: met");
    }

    #[test]
    fn a_goal_that_is_missed_is_called_missed() {
        let line = line(&ALL[0], &samples(250.0), 3).unwrap();
        assert!(!line.is_met());
        assert!(!line.limit.as_ref().unwrap().is_met && !line.peer.as_ref().unwrap().is_met);
        assert!(show_held(&line.limit.unwrap(), &line.row).ends_with("goal ≥ 0.6: missed"));
    }

    #[test]
    fn what_was_not_measured_has_no_line() {
        assert!(line(&ALL[1], &samples(700.0), 3).is_none());
    }
}
