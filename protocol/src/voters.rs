//! Who counts: the voter set, and how many of it commit and fence.

use crate::epoch::Epoch;
use crate::id::{Incarnation, NodeId};
use crate::wire::{Reader, WireError, Writer};

/// The longest name of a zone, in bytes.
pub const ZONE_LEN_MAX: usize = 64;

/// A node whose flushed log counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Voter {
    /// The node.
    pub node: NodeId,
    /// The one incarnation of it that counts. Another one, on an empty or distrusted disk, counts
    /// in neither W nor R until the BARRIER of a newer set names it.
    pub incarnation: Incarnation,
    /// Where it stands (a rack, a data centre); empty if nobody said. The commit rule of today
    /// counts nodes; the rule of two sites will count zones, from the same acks.
    pub zone: String,
}

/// The voters and how many of them commit. Founded once, carried by every BARRIER: it is log
/// state, never configuration, so no node can count with another set than its log says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Voters {
    /// The epoch whose BARRIER introduced the set; [`Epoch::NONE`] for the founding one.
    pub named_by: Epoch,
    /// Counts changes of the set.
    pub generation: u64,
    /// The voters, ordered by name.
    members: Vec<Voter>,
    /// W: how many voters must have flushed a record before it is committed.
    w: u8,
}

/// A voter set that would not keep its promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VotersError {
    /// No voters, or more than [`Voters::MAX_LEN`].
    #[error("{0} voters; a cluster has 1 to {max}", max = Voters::MAX_LEN)]
    Count(usize),
    /// One name twice.
    #[error("{0} is named twice")]
    Twice(NodeId),
    /// A W that no set of voters could reach, or none.
    #[error("W is {w} of {n} voters; it must be 1 to {n}")]
    W {
        /// The W that was asked for.
        w: u8,
        /// How many voters there are.
        n: usize,
    },
    /// A zone's name over [`ZONE_LEN_MAX`].
    #[error("a zone's name is over {ZONE_LEN_MAX} bytes")]
    Zone,
    /// Too many changes that are not committed yet.
    #[error("too many changes of the voters are not committed yet: wait, then try again")]
    Changes,
    /// More than one voter with a new disk.
    #[error("more than one voter comes with a new disk: grant them one after the other")]
    Replaced,
}

impl Voters {
    /// The most voters a cluster may have.
    pub const MAX_LEN: usize = 15;

    /// A set of `members` of which `w` commit; the majority if `w` is `None`.
    ///
    /// # Errors
    /// [`VotersError`].
    pub fn new(mut members: Vec<Voter>, w: Option<u8>) -> Result<Self, VotersError> {
        let n = members.len();
        if n == 0 || n > Self::MAX_LEN {
            return Err(VotersError::Count(n));
        }
        members.sort_by_key(|voter| voter.node);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].node == pair[1].node) {
            return Err(VotersError::Twice(pair[0].node));
        }
        if members.iter().any(|voter| voter.zone.len() > ZONE_LEN_MAX) {
            return Err(VotersError::Zone);
        }
        let w = w.unwrap_or(n as u8 / 2 + 1);
        if w == 0 || usize::from(w) > n {
            return Err(VotersError::W { w, n });
        }
        Ok(Self { named_by: Epoch::NONE, generation: 0, members, w })
    }

    /// The voters, ordered by name.
    #[must_use]
    pub fn members(&self) -> &[Voter] {
        &self.members
    }

    /// The voter of this name.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Voter> {
        self.members.iter().find(|voter| voter.node == node)
    }

    /// Whether this incarnation of `node` counts.
    #[must_use]
    pub fn counts(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.get(node).is_some_and(|voter| voter.incarnation == incarnation)
    }

    /// N: how many voters there are.
    #[must_use]
    pub fn n(&self) -> usize {
        self.members.len()
    }

    /// W: how many voters' disks hold a record before it is committed.
    #[must_use]
    pub fn w(&self) -> usize {
        usize::from(self.w)
    }

    /// R = N − W + 1: how many voters a candidate must fence, so that every commit set and every
    /// fence set share a node.
    #[must_use]
    pub fn r(&self) -> usize {
        self.n() - self.w() + 1
    }

    /// The voters of this set whose disks are replaced by others in `newer`.
    pub fn replaced_in<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = &'a Voter> {
        let replaced = |voter: &&Voter| {
            newer.get(voter.node).is_some_and(|now| now.incarnation != voter.incarnation)
        };
        self.members.iter().filter(replaced)
    }

    /// The voters of this set that have a say in whether `newer` takes its place: all but those
    /// whose disks it replaces. What such a disk holds is not there any more.
    pub fn consenting<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = &'a Voter> {
        self.members.iter().filter(|voter| !newer.voids(voter.node, voter.incarnation))
    }

    /// How many of [`Voters::consenting`] must have flushed the BARRIER that introduces `newer`: W;
    /// or min(W, N - 1) where it replaces the disk of one, which can not ack any more. (Among the
    /// others R + W > N still, but where W = N: see [`Voters::voids`].)
    #[must_use]
    pub fn w_before(&self, newer: &Self) -> usize {
        match self.replaced_in(newer).count() {
            0 => self.w(),
            _ => self.w().min(self.n() - 1),
        }
    }

    /// Whether this set was made to replace the disk that `node` had in life `incarnation`.
    #[must_use]
    pub fn voids(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.get(node).is_some_and(|voter| voter.incarnation != incarnation)
    }

    /// The set as `epoch`'s BARRIER introduces it, behind `before`.
    #[must_use]
    pub fn introduced(self, epoch: Epoch, before: &Self) -> Self {
        Self { named_by: epoch, generation: before.generation + 1, ..self }
    }

    /// This set with another disk for `node`; `None` if it does not vote.
    #[must_use]
    pub fn granting(&self, node: NodeId, incarnation: Incarnation) -> Option<Self> {
        let mut granted = self.clone();
        granted.members.iter_mut().find(|voter| voter.node == node)?.incarnation = incarnation;
        Some(granted)
    }

    /// Writes the set.
    pub fn encode(&self, writer: &mut Writer) {
        writer.epoch(self.named_by).u64(self.generation).u8(self.w).u8(self.members.len() as u8);
        for voter in &self.members {
            writer.node(voter.node).u64(voter.incarnation.0).text(&voter.zone, ZONE_LEN_MAX);
        }
    }

    /// Reads a set.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let named_by = reader.epoch("voters.named_by")?;
        let generation = reader.u64("voters.generation")?;
        let w = reader.u8("voters.w")?;
        let mut members = Vec::new();
        for _ in 0..reader.u8("voters.n")? {
            let node = reader.node("voters.node")?;
            let incarnation = Incarnation(reader.u64("voters.incarnation")?);
            let zone = reader.text("voters.zone", ZONE_LEN_MAX)?;
            members.push(Voter { node, incarnation, zone });
        }
        let voters =
            Self::new(members, Some(w)).map_err(|error| WireError::invalid("voters", error))?;
        Ok(Self { named_by, generation, ..voters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(names: &[&str], w: Option<u8>) -> Result<Voters, VotersError> {
        let voter = |name: &&str| Voter {
            node: name.parse().unwrap(),
            incarnation: Incarnation(1),
            zone: "z".to_owned(),
        };
        Voters::new(names.iter().map(voter).collect(), w)
    }

    #[test]
    fn every_commit_set_meets_every_fence_set() {
        for n in 1..=5 {
            let names = &["a", "b", "c", "d", "e"][..n];
            for w in 1..=n as u8 {
                let set = voters(names, Some(w)).unwrap();
                assert!(set.w() + set.r() > set.n());
            }
        }
        assert_eq!(voters(&["a", "b", "c"], None).unwrap().w(), 2);
    }

    #[test]
    fn impossible_sets_are_refused() {
        assert!(voters(&[], None).is_err());
        assert!(voters(&["a", "a"], None).is_err());
        assert!(voters(&["a", "b"], Some(3)).is_err());
        assert!(voters(&["a", "b"], Some(0)).is_err());
    }

    #[test]
    fn a_set_reads_back() {
        let set = voters(&["c", "a", "b"], Some(2)).unwrap();
        let mut writer = Writer::new();
        set.encode(&mut writer);
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!(Voters::decode(&mut reader).unwrap(), set);
        reader.finish().unwrap();
    }
}
