//! The rounds: in each, every workload; at each workload, everybody in turn, between two
//! measurements of what the machine can do.
//!
//! A round of a workload counts only if nobody failed in it and the machine held still.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::cell::Place;
use crate::samples::Samples;
use crate::workloads::{self, ALL, Workload};

/// By how much what the machine can do may move inside a round, and lie below the best of all.
const FLOOR_MOVES_MAX: f64 = 1.5;
/// The same for what writes gigabytes, which keeps the machine busy by itself.
const LONG_FLOOR_MOVES_MAX: f64 = 2.5;

/// What all rounds found.
pub(crate) struct Rounds {
    place: Place,
    /// The workloads that were asked for.
    workloads: Vec<&'static Workload>,
    pub(crate) samples: Samples,
    /// How far the floor moved inside a round, and the better of what it was.
    moved: BTreeMap<(&'static str, usize), (f64, f64)>,
    /// Rounds in which somebody failed, by workload.
    failed: BTreeSet<(&'static str, usize)>,
    /// Why a round was thrown away, for somebody to read.
    pub(crate) thrown: Vec<String>,
    /// The workloads that had too few good rounds, of which nothing is said.
    pub(crate) lacking: Vec<String>,
}

impl Rounds {
    pub(crate) fn new(place: Place, only: &[String]) -> Result<Self> {
        let names: Vec<_> = ALL.iter().map(|it| it.name).collect();
        if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
            bail!("no workload is called {unknown}; there are {}", names.join(", "));
        }
        let wanted = |it: &&Workload| only.is_empty() || only.iter().any(|name| name == it.name);
        let workloads = ALL.iter().filter(wanted).collect();
        Ok(Self {
            place,
            workloads,
            samples: Samples::default(),
            moved: BTreeMap::new(),
            failed: BTreeSet::new(),
            thrown: Vec::new(),
            lacking: Vec::new(),
        })
    }

    /// Goes through so many rounds, and through some more where too few were good. What has too few
    /// even then is forgotten.
    pub(crate) fn run(&mut self, rounds: usize) {
        for round in 0..rounds {
            for workload in self.workloads.clone() {
                if round % self.every(workload) == 0 {
                    self.round(round, workload);
                }
            }
        }
        let last = self.last_round(rounds);
        for round in rounds..last {
            for workload in self.workloads.clone() {
                if self.good(workload, round).len() < self.needed(workload, rounds) {
                    self.round(round, workload);
                }
            }
        }
        // All are judged before any is forgotten: they are judged by each other.
        let workloads = self.workloads.clone();
        let good: Vec<_> = workloads.iter().map(|workload| self.good(workload, last)).collect();
        let thrown = workloads.iter().zip(&good).flat_map(|(workload, good)| {
            let bad = (0..last).filter(|round| !good.contains(round));
            bad.filter_map(|round| self.why_thrown(workload, round))
        });
        let thrown: Vec<String> = thrown.collect();
        self.thrown.extend(thrown);
        for (workload, good) in workloads.into_iter().zip(good) {
            let needed = self.needed(workload, rounds);
            let is_enough = good.len() >= needed;
            if !is_enough {
                self.lacking.push(format!("{} ({} of {needed})", workload.name, good.len()));
            }
            for round in (0..last).filter(|round| !(is_enough && good.contains(round))) {
                self.samples.forget(round, workload.name);
            }
        }
    }

    /// In which rounds a workload is measured: what takes long, in a full run, in some only.
    fn every(&self, workload: &Workload) -> usize {
        if workload.is_long() { self.place.size.long_every() } else { 1 }
    }

    /// How many rounds of a workload must be good.
    fn needed(&self, workload: &Workload, rounds: usize) -> usize {
        (2 * rounds.div_ceil(self.every(workload))).div_ceil(3)
    }

    /// One past the last round there may be: half as many again as were asked for.
    pub(crate) fn last_round(&self, rounds: usize) -> usize {
        rounds + rounds.div_ceil(2)
    }

    /// One round of one workload. The order rotates, so that nobody always comes after the same.
    fn round(&mut self, round: usize, workload: &'static Workload) {
        let start = Instant::now();
        let mut order: Vec<_> = workloads::contestants(workload).collect();
        let len = order.len();
        order.rotate_left(round % len);
        order.extend(workload.limits);
        let (floor, metric) = workload.floor;
        let before = self.cell(round, workload, floor);
        for who in order {
            self.cell(round, workload, who);
        }
        let before = before.then(|| self.samples.get(round, workload.name, floor, metric));
        self.cell(round, workload, floor);
        let after = self.samples.get(round, workload.name, floor, metric);
        if let (Some(Some(before)), Some(after)) = (before, after) {
            let better = before.max(after);
            self.moved.insert((workload.name, round), (better / before.min(after), better));
            self.samples.add(round, workload.name, floor, metric, better);
        }
        let (round, seconds) = (round + 1, start.elapsed().as_secs_f64());
        eprintln!("round {round}: {}, {seconds:.1} s", workload.name);
    }

    /// One measurement; `false`, and a round that does not count, if it failed.
    fn cell(&mut self, round: usize, workload: &'static Workload, who: &str) -> bool {
        let is_limit = crate::limits::NAMES.contains(&who);
        let kept = workload.keeps_its_folder() && !is_limit;
        match self.place.measure(workload, who, kept) {
            Ok(metrics) => {
                for (metric, value) in metrics {
                    self.samples.add(round, workload.name, who, &metric, value);
                }
                true
            }
            Err(error) => {
                eprintln!("round {}: {error:#}", round + 1);
                self.thrown.push(format!("{}, round {}: {error:#}", workload.name, round + 1));
                self.failed.insert((workload.name, round));
                false
            }
        }
    }

    /// The rounds of a workload that count, among those before `end`.
    fn good(&self, workload: &Workload, end: usize) -> Vec<usize> {
        let best = self.best_floor(workload);
        let counts = |round: &usize| {
            let moves_max = moves_max(workload);
            self.floor(workload, *round).is_some_and(|at| at * moves_max >= best)
                && self.held_still(workload, *round)
                && !self.failed.contains(&(workload.name, *round))
        };
        (0..end).filter(counts).collect()
    }

    fn floor(&self, workload: &Workload, round: usize) -> Option<f64> {
        let (floor, metric) = workload.floor;
        self.samples.get(round, workload.name, floor, metric)
    }

    fn held_still(&self, workload: &Workload, round: usize) -> bool {
        let moved = self.moved.get(&(workload.name, round));
        moved.is_some_and(|(moved, _)| *moved <= moves_max(workload))
    }

    /// The best that the machine could do at what is the floor of a workload, in any round of any
    /// workload that has the same: others on the machine only ever make it worse.
    fn best_floor(&self, workload: &Workload) -> f64 {
        let is_same = |other: &&&Workload| {
            other.floor == workload.floor && other.payload_len() == workload.payload_len()
        };
        let same: Vec<_> = self.workloads.iter().filter(is_same).map(|other| other.name).collect();
        let floors = self.moved.iter().filter(|((name, _), _)| same.contains(name));
        floors.map(|(_, (_, better))| *better).fold(0.0, f64::max)
    }

    /// Why a round does not count, unless that was said when somebody failed in it.
    fn why_thrown(&self, workload: &Workload, round: usize) -> Option<String> {
        let (floor, metric) = workload.floor;
        let at = self.floor(workload, round)?;
        let key = (workload.name, round);
        if self.failed.contains(&key) {
            return None;
        }
        let moved = self.moved.get(&key).map_or(f64::NAN, |(moved, _)| *moved);
        let best = self.best_floor(workload);
        Some(format!(
            "{}, round {}: the machine was busy: {floor} was {at:.0} {metric}, moved by {moved:.2} \
             in the round, and was {best:.0} at best",
            workload.name,
            round + 1
        ))
    }
}

fn moves_max(workload: &Workload) -> f64 {
    if workload.is_long() { LONG_FLOOR_MOVES_MAX } else { FLOOR_MOVES_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::Size;

    /// Rounds of the first workload, each with its floor and by how much that moved.
    fn rounds(floors: &[(f64, f64)]) -> Rounds {
        let place = Place { dir: "unused".into(), size: Size::Full };
        let mut rounds = Rounds::new(place, &[]).unwrap();
        let (workload, (floor, metric)) = (ALL[0].name, ALL[0].floor);
        for (round, (at, moved)) in floors.iter().enumerate() {
            rounds.samples.add(round, workload, floor, metric, *at);
            rounds.moved.insert((workload, round), (*moved, *at));
        }
        rounds
    }

    #[test]
    fn what_another_workload_found_the_machine_can_do_counts() {
        let mut rounds = rounds(&[]);
        let of = |name: &str| ALL.iter().find(|it| it.name == name).unwrap();
        for (name, floor) in [("durable-1", 500.0), ("durable-16", 9_000.0)] {
            rounds.samples.add(0, name, "fdatasync", "syncs/s", floor);
            rounds.moved.insert((of(name).name, 0), (1.0, floor));
        }
        assert_eq!(rounds.good(of("durable-1"), 1), [0_usize; 0]);
        assert_eq!(rounds.good(of("durable-16"), 1), [0]);
    }

    #[test]
    fn a_round_counts_if_the_machine_held_still_and_nobody_failed() {
        let mut rounds = rounds(&[(100.0, 1.1), (100.0, 1.6), (40.0, 1.0), (120.0, 1.0)]);
        assert_eq!(rounds.good(&ALL[0], 4), [0, 3]);
        rounds.failed.insert((ALL[0].name, 3));
        assert_eq!(rounds.good(&ALL[0], 4), [0]);
        assert!(rounds.why_thrown(&ALL[0], 1).unwrap().contains("moved by 1.60"));
        assert_eq!(rounds.why_thrown(&ALL[0], 3), None, "that was said when it failed");
    }

    #[test]
    fn a_round_without_a_floor_does_not_count() {
        let mut rounds = rounds(&[(100.0, 1.0), (100.0, 1.0)]);
        rounds.moved.remove(&(ALL[0].name, 1));
        assert_eq!(rounds.good(&ALL[0], 2), [0]);
    }

    #[test]
    fn two_thirds_must_be_good() {
        let rounds = rounds(&[]);
        let long = ALL.iter().find(|it| it.is_long()).unwrap();
        assert_eq!((rounds.needed(&ALL[0], 11), rounds.needed(long, 11)), (8, 2));
    }
}
