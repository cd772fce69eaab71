//! The commit rule: what the voters' acks add up to.

use std::collections::BTreeMap;

use crate::frame::Ack;
use crate::id::NodeId;
use crate::lsn::Lsn;
use crate::voters::Voters;

/// What the primary knows of one replica in its own epoch. Every field only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
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
    me: NodeId,
    voters: Voters,
    progress: BTreeMap<NodeId, Progress>,
}

impl Tally {
    /// Counts for the primary `me`.
    #[must_use]
    pub const fn new(me: NodeId, voters: Voters) -> Self {
        Self { me, voters, progress: BTreeMap::new() }
    }

    /// The voters that are counted.
    #[must_use]
    pub const fn voters(&self) -> &Voters {
        &self.voters
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

    /// The position that W voters have flushed, own log included up to `own_flushed`.
    #[must_use]
    pub fn flushed_by_w(&self, own_flushed: Lsn) -> Lsn {
        self.reached_by_w(own_flushed, |progress| progress.flushed)
    }

    /// The newest heartbeat that W voters have echoed; this node has seen its own up to `own`.
    #[must_use]
    pub fn seen_by_w(&self, own: u64) -> u64 {
        self.reached_by_w(own, |progress| progress.seen)
    }

    /// The latest time by which W voters have been heard since; this node hears itself `now_ms`.
    #[must_use]
    pub fn heard_by_w_ms(&self, now_ms: u64) -> u64 {
        self.reached_by_w(now_ms, |progress| progress.heard_ms)
    }

    /// The W-th highest value among the voters: the most that a commit set has reached.
    fn reached_by_w<T: Ord + Copy + Default>(&self, own: T, of: impl Fn(&Progress) -> T) -> T {
        let value = |node| match self.progress.get(&node) {
            _ if node == self.me => own,
            Some(progress) => of(progress),
            None => T::default(),
        };
        let mut reached: Vec<T> =
            self.voters.members().iter().map(|voter| value(voter.node)).collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        reached[self.voters.w() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;
    use crate::voters::Voter;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn tally(names: &[&str], w: u8) -> Tally {
        let voter = |name: &&str| Voter {
            node: node(name),
            incarnation: Incarnation(1),
            zone: String::new(),
        };
        let voters = Voters::new(names.iter().map(voter).collect(), Some(w)).unwrap();
        Tally::new(node(names[0]), voters)
    }

    fn ack(flushed: u64, seen: u64) -> Ack {
        let at = Lsn::new(flushed);
        Ack { incarnation: Incarnation(1), received: at, flushed: at, applied: at, seen }
    }

    #[test]
    fn two_of_three_commit_with_or_without_the_primary() {
        let mut tally = tally(&["a", "b", "c"], 2);
        assert_eq!(tally.flushed_by_w(Lsn::new(90)), Lsn::ZERO);
        tally.merge(node("b"), &ack(50, 0), 0);
        assert_eq!(tally.flushed_by_w(Lsn::new(90)), Lsn::new(50));
        tally.merge(node("c"), &ack(70, 0), 0);
        assert_eq!(tally.flushed_by_w(Lsn::new(90)), Lsn::new(70));
        assert_eq!(tally.flushed_by_w(Lsn::ZERO), Lsn::new(50), "a slow own disk does not hold up");
    }

    #[test]
    fn a_replica_that_does_not_vote_never_counts() {
        let mut tally = tally(&["a", "b"], 2);
        tally.merge(node("x"), &ack(80, 3), 0);
        assert_eq!(tally.flushed_by_w(Lsn::new(90)), Lsn::ZERO);
        assert_eq!(tally.seen_by_w(9), 0);
    }

    #[test]
    fn a_late_ack_takes_nothing_back() {
        let mut tally = tally(&["a", "b"], 2);
        tally.merge(node("b"), &ack(80, 5), 0);
        tally.merge(node("b"), &ack(40, 2), 0);
        assert_eq!(tally.flushed_by_w(Lsn::new(90)), Lsn::new(80));
        assert_eq!(tally.seen_by_w(9), 5);
    }
}
