//! What a power cut may leave at one moment: which states there are, and which one a number means.

use towline_wal::simulated::{Outage, SimDisk};

use crate::random::Random;

/// Up to so many unsynced sectors every subset of them is tried.
const EXHAUSTED: usize = 12;
/// Above it, so many random subsets, besides the regular ones.
const SAMPLED: u64 = 256;
/// Up to so many unsynced changes of names every set of them that can be left is tried.
const EXHAUSTED_CHANGES: usize = 10;

/// The states of one moment, numbered.
pub(super) struct States<'a> {
    outage: &'a Outage,
    /// What may be left of the changes of names.
    changes: Vec<Vec<bool>>,
}

impl<'a> States<'a> {
    pub(super) fn new(outage: &'a Outage) -> Self {
        let count = outage.changes();
        let mut changes: Vec<Vec<bool>> = Vec::new();
        let mut add = |kept: Vec<bool>| {
            if !changes.contains(&kept) {
                changes.push(kept);
            }
        };
        if count <= EXHAUSTED_CHANGES {
            for set in 0..1_u32 << count {
                add(outage.kept_changes(|change| set >> change & 1 == 1));
            }
        } else {
            for kept in 0..=count {
                add(outage.kept_changes(|change| change < kept));
            }
        }
        Self { outage, changes }
    }

    fn sector_sets(&self) -> u64 {
        let count = self.outage.sectors();
        if count <= EXHAUSTED { 1 << count } else { 2 + 3 * count as u64 + SAMPLED }
    }

    pub(super) fn count(&self) -> u64 {
        // The last one: the process alone has died.
        self.sector_sets() * self.changes.len() as u64 + 1
    }

    /// Whether in state `number` the power did not fail.
    pub(super) fn is_kill(&self, number: u64) -> bool {
        number + 1 == self.count()
    }

    /// Which sectors are left in a state: all subsets if they are few; otherwise none, all, all
    /// but one, one alone, the first so many, and random ones.
    fn sectors(&self, set: u64) -> Vec<bool> {
        let count = self.outage.sectors();
        let of = |keeps: &dyn Fn(usize) -> bool| (0..count).map(keeps).collect();
        if count <= EXHAUSTED {
            return of(&|sector| set >> sector & 1 == 1);
        }
        let (turn, at) = match usize::try_from(set).unwrap_or(usize::MAX) {
            0 => return vec![false; count],
            1 => return vec![true; count],
            set => ((set - 2) / count, (set - 2) % count),
        };
        match turn {
            0 => of(&|sector| sector != at),
            1 => of(&|sector| sector == at),
            2 => of(&|sector| sector < at),
            _ => {
                let mut random = Random::new(set);
                // Of some nearly all arrive, of others nearly none.
                let among = 1 + random.below(8);
                let inverts = random.coin();
                (0..count).map(|_| (random.below(among + 1) == 0) != inverts).collect()
            }
        }
    }

    /// The disk in state `number`.
    pub(super) fn disk(&self, number: u64) -> SimDisk {
        if self.is_kill(number) {
            return self.outage.kill(number);
        }
        let sets = self.sector_sets();
        let sectors = self.sectors(number % sets);
        let changes = usize::try_from(number / sets).ok().and_then(|at| self.changes.get(at));
        let keeps = |change: usize| changes.is_some_and(|kept| kept[change]);
        self.outage.leave(number, |sector| sectors[sector], keeps)
    }
}
