//! The commit rule: what the voters' acks add up to.

use std::collections::BTreeMap;

use crate::frame::Ack;
use crate::id::{Incarnation, NodeId};
use crate::lsn::Lsn;
use crate::planted::{Bug, planted};
use crate::terms::VoterSets;
use crate::voters::{Voter, Voters};

/// What the primary knows of one replica in its own epoch. Of one life of its disk, every field
/// only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// The life of its disk that said so.
    pub incarnation: Incarnation,
    /// Everything below has reached it.
    pub received: Lsn,
    /// Everything below is on its disk.
    pub flushed: Lsn,
    /// Everything below is in its engine.
    pub applied: Lsn,
    /// The newest heartbeat it has echoed.
    pub seen: u64,
    /// When it was last heard, in milliseconds.
    pub heard_ms: u64,
}

impl Progress {
    /// Takes in an ack. Acks may be lost, repeated and overtaken: the maximum of each is the truth.
    fn merge(&mut self, ack: &Ack, now_ms: u64) {
        if self.incarnation != ack.incarnation {
            *self = Self { incarnation: ack.incarnation, ..Self::default() };
        }
        self.received = self.received.max(ack.received);
        self.flushed = self.flushed.max(ack.flushed);
        self.applied = self.applied.max(ack.applied);
        self.seen = self.seen.max(ack.seen);
        self.heard_ms = self.heard_ms.max(now_ms);
    }
}

/// Counts the acks of one epoch.
#[derive(Clone, Debug)]
pub struct Tally {
    me: (NodeId, Incarnation),
    sets: VoterSets,
    /// The end of the epoch's BARRIER.
    barrier_end: Lsn,
    /// Whether the BARRIER is committed: the older sets have had their say, for good.
    settled: bool,
    progress: BTreeMap<NodeId, Progress>,
}

impl Tally {
    /// Counts for the primary `me`, in this life of its disk. Its BARRIER ends at `barrier_end` and
    /// must be committed by each of `sets`.
    #[must_use]
    pub const fn new(me: (NodeId, Incarnation), sets: VoterSets, barrier_end: Lsn) -> Self {
        Self { me, sets, barrier_end, settled: false, progress: BTreeMap::new() }
    }

    /// The voters that count behind the BARRIER.
    #[must_use]
    pub fn voters(&self) -> &Voters {
        self.sets.newest()
    }

    /// The end of the epoch's BARRIER.
    #[must_use]
    pub const fn barrier_end(&self) -> Lsn {
        self.barrier_end
    }

    /// Every replica that was heard in this epoch, voters or not.
    #[must_use]
    pub const fn progress(&self) -> &BTreeMap<NodeId, Progress> {
        &self.progress
    }

    /// Takes in an ack of this epoch.
    pub fn merge(&mut self, from: NodeId, ack: &Ack, now_ms: u64) {
        self.progress.entry(from).or_default().merge(ack, now_ms);
    }

    /// The position that is committed, the own log included up to `own_flushed`; `None` before the
    /// BARRIER is.
    ///
    /// The BARRIER takes W voters of every set in force; what lies behind it, W of the newest.
    #[must_use]
    pub fn committed(&mut self, own_flushed: Lsn) -> Option<Lsn> {
        let newest = self.voters();
        let reached =
            self.reached(newest.members(), newest.w(), own_flushed, |known| known.flushed);
        self.settled = self.settled || self.holds_barrier(reached, own_flushed);
        self.settled.then_some(reached)
    }

    /// Whether every set in force holds the BARRIER, of which the newest has reached `reached`.
    fn holds_barrier(&self, reached: Lsn, own_flushed: Lsn) -> bool {
        let newest = self.voters();
        if planted(Bug::BarrierNotRequired) {
            return true;
        }
        let older = self.sets.as_slice().iter().rev().skip(1);
        let older = older.filter(|_| !planted(Bug::ChangeCommittedByNewAlone));
        let holds_barrier = |set: &Voters| {
            let w = set.w_before(newest);
            let replaces = set.replaced_in(newest).next().is_some();
            let consenting = set.consenting(newest);
            (replaces && planted(Bug::GrantByNewAlone))
                || self.reached(consenting, w, own_flushed, |known| known.flushed)
                    >= self.barrier_end
        };
        reached >= self.barrier_end && older.into_iter().all(holds_barrier)
    }

    /// The newest heartbeat that W voters have echoed; this node has seen its own up to `own`.
    ///
    /// An echo counts from a voter that holds the BARRIER: only that one is known to count in this
    /// epoch's voter set whatever a candidate may know.
    #[must_use]
    pub fn seen_by_w(&self, own: u64) -> u64 {
        let seen =
            |known: &Progress| if known.flushed >= self.barrier_end { known.seen } else { 0 };
        self.reached(self.voters().members(), self.voters().w(), own, seen)
    }

    /// The latest time by which W voters have been heard since; this node hears itself `now_ms`.
    #[must_use]
    pub fn heard_by_w_ms(&self, now_ms: u64) -> u64 {
        self.reached(self.voters().members(), self.voters().w(), now_ms, |known| known.heard_ms)
    }

    /// The `w`-th highest value among `voters`: the most that so many have reached.
    fn reached<'a, T: Ord + Copy + Default>(
        &self,
        voters: impl IntoIterator<Item = &'a Voter>,
        w: usize,
        own: T,
        of: impl Fn(&Progress) -> T,
    ) -> T {
        let value = |voter: &Voter| match self.progress.get(&voter.node) {
            _ if (voter.node, voter.incarnation) == self.me => own,
            Some(known) if counts(known, voter) => of(known),
            _ => T::default(),
        };
        let mut reached: Vec<T> = voters.into_iter().map(value).collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        reached[w - 1]
    }
}

/// Whether what is known comes from the life of the disk that counts.
fn counts(known: &Progress, voter: &Voter) -> bool {
    known.incarnation == voter.incarnation || planted(Bug::WipedDiskAcks)
}

#[cfg(test)]
mod tests;
