//! The rounds: in each, every workload; at each workload, everybody in turn, between two
//! measurements of what the machine can do.
//!
//! A round of a workload counts only if nobody failed in it and the machine held still.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::cell::Place;
use crate::samples::{Samples, median};
use crate::workloads::{self, ALL, Workload};

/// By how much what the machine can do may move, inside a round and from the median of all rounds.
pub(crate) const FLOOR_MOVES_MAX: f64 = 1.5;

/// What all rounds found.
pub(crate) struct Rounds {
    place: Place,
    /// The workloads that were asked for.
    workloads: Vec<&'static Workload>,
    pub(crate) samples: Samples,
    /// How far the floor moved inside a round.
    moved: BTreeMap<(&'static str, usize), f64>,
    /// Rounds in which somebody failed, by workload.
    failed: BTreeSet<(&'static str, usize)>,
    /// Why a round was thrown away, for somebody to read.
    pub(crate) thrown: Vec<String>,
}

impl Rounds {
    pub(crate) fn new(place: Place, only: &[String]) -> Result<Self> {
        let wanted = |it: &&Workload| only.is_empty() || only.iter().any(|name| name == it.name);
        let workloads: Vec<_> = ALL.iter().filter(wanted).collect();
        if workloads.is_empty() {
            let names: Vec<_> = ALL.iter().map(|it| it.name).collect();
            bail!("no such workload; there are {}", names.join(", "));
        }
        Ok(Self {
            place,
            workloads,
            samples: Samples::default(),
            moved: BTreeMap::new(),
            failed: BTreeSet::new(),
            thrown: Vec::new(),
        })
    }

    /// Goes through so many rounds, and through some more where too few were good.
    pub(crate) fn run(&mut self, rounds: usize) -> Result<()> {
        for round in 0..rounds {
            for workload in self.workloads.clone() {
                self.round(round, workload);
            }
            eprintln!("round {} of {rounds} done", round + 1);
        }
        let needed = (2 * rounds).div_ceil(3);
        let last = self.last_round(rounds);
        for round in rounds..last {
            for workload in self.workloads.clone() {
                if self.good(workload, round).len() < needed {
                    self.round(round, workload);
                }
            }
        }
        let mut lacking = Vec::new();
        for workload in self.workloads.clone() {
            let good = self.good(workload, last);
            if good.len() < needed {
                lacking.push(format!("{}: {} of {needed}", workload.name, good.len()));
            }
            for round in (0..last).filter(|round| !good.contains(round)) {
                self.throw_away(workload, round);
            }
        }
        if !lacking.is_empty() {
            let why = self.thrown.join("\n  ");
            bail!("too few good rounds, so nothing is said: {}\n  {why}", lacking.join(", "));
        }
        Ok(())
    }

    /// One past the last round there may be: half as many again as were asked for.
    pub(crate) fn last_round(&self, rounds: usize) -> usize {
        rounds + rounds.div_ceil(2)
    }

    /// One round of one workload. The order rotates, so that nobody always comes after the same.
    fn round(&mut self, round: usize, workload: &'static Workload) {
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
            let moved = before.max(after) / before.min(after);
            self.moved.insert((workload.name, round), moved);
            let mean = f64::midpoint(before, after);
            self.samples.add(round, workload.name, floor, metric, mean);
        }
    }

    /// One measurement; `false`, and a round that does not count, if it failed.
    fn cell(&mut self, round: usize, workload: &'static Workload, who: &str) -> bool {
        let is_limit = crate::limits::NAMES.contains(&who);
        let kept = workload.keeps_its_folder() && !is_limit;
        match self.place.measure(workload.name, who, kept) {
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
        let (floor, metric) = workload.floor;
        let floor_at = |round: usize| self.samples.get(round, workload.name, floor, metric);
        let still = |round: &usize| {
            let key = (workload.name, *round);
            let moved = self.moved.get(&key).is_some_and(|moved| *moved <= FLOOR_MOVES_MAX);
            moved && !self.failed.contains(&key)
        };
        let rounds: Vec<usize> = (0..end).filter(still).collect();
        let middle = median(&rounds.iter().filter_map(|&it| floor_at(it)).collect::<Vec<_>>());
        let near = |round: &usize| {
            let at = floor_at(*round);
            at.is_some_and(|at| at.max(middle) / at.min(middle) <= FLOOR_MOVES_MAX)
        };
        rounds.into_iter().filter(near).collect()
    }

    fn throw_away(&mut self, workload: &'static Workload, round: usize) {
        let (floor, metric) = workload.floor;
        let Some(at) = self.samples.get(round, workload.name, floor, metric) else { return };
        let key = (workload.name, round);
        if !self.failed.contains(&key) {
            let moved = self.moved.get(&key).copied().unwrap_or(f64::NAN);
            self.thrown.push(format!(
                "{}, round {}: the machine did not hold still: {floor} was {at:.0} {metric} and \
                 moved by {moved:.2} in the round",
                workload.name,
                round + 1
            ));
        }
        self.samples.forget(round, workload.name);
    }
}
