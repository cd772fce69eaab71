//! The terms a log is written under: whose acks commit it, and what an ack promises.
//!
//! Terms are log state. A log is founded with its first, and every BARRIER carries those that hold
//! from there on; nothing in a configuration can change them.

use crate::epoch::{Epoch, History};
use crate::id::NodeId;
use crate::lsn::Lsn;
use crate::voters::{Voters, VotersError};
use crate::wire::{Reader, WireError, Writer};

/// The longest lease, in milliseconds: for so long a failover may have to wait, and it must be well
/// below what a candidate may take.
pub const LEASE_MAX_MS: u32 = 4_000;

/// What a BARRIER lays down for the records behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Who counts.
    pub sets: VoterSets,
    /// How long an ack promises that its voter answers no FENCED, in milliseconds; 0 while reads
    /// go by rounds.
    pub lease_ms: u32,
}

impl Terms {
    /// The terms of a log that holds no BARRIER yet.
    #[must_use]
    pub fn founding(voters: Voters) -> Self {
        Self { sets: VoterSets::of(voters), lease_ms: 0 }
    }

    /// Writes them.
    pub fn encode(&self, writer: &mut Writer) {
        self.sets.encode(writer);
        writer.u32(self.lease_ms);
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let sets = VoterSets::decode(reader)?;
        let lease_ms = reader.u32("terms.lease_ms")?;
        if lease_ms > LEASE_MAX_MS {
            let reason = format!("{lease_ms} is over {LEASE_MAX_MS}");
            return Err(WireError::invalid("terms.lease_ms", reason));
        }
        Ok(Self { sets, lease_ms })
    }
}

/// The voter sets in force, oldest first.
///
/// A set is introduced by a BARRIER. Until that BARRIER is known to be committed, the sets before
/// it are in force as well: a BARRIER commits with W voters of *each*, and a candidate fences R of
/// each. So every two quorums that could decide differently share a voter (joint consensus; Raft
/// dissertation, §4.3). Once it is committed, only the newest is left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VoterSets {
    sets: Vec<Voters>,
}

impl VoterSets {
    /// The most sets that may be in force at once: changes that follow on each other before the
    /// first is committed.
    pub const MAX_LEN: usize = 4;

    /// One set alone.
    #[must_use]
    pub fn of(voters: Voters) -> Self {
        Self { sets: vec![voters] }
    }

    /// The newest set: the one that commits everything behind its BARRIER.
    ///
    /// # Panics
    /// Never: there is always one.
    #[must_use]
    pub fn newest(&self) -> &Voters {
        self.sets.last().expect("there is always a set")
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[Voters] {
        &self.sets
    }

    /// Those that are still in force for who knows that the log is committed up to `committed`:
    /// the last set whose BARRIER lies below, and all behind it.
    #[must_use]
    pub fn in_force(&self, committed: Lsn, history: &History) -> Self {
        let settled = |set: &Voters| {
            let first = history.start_of(set.named_by).map(|start| start.first);
            set.named_by == Epoch::NONE || first.is_some_and(|first| first < committed)
        };
        let from = self.sets.iter().rposition(settled).unwrap_or(0);
        Self { sets: self.sets[from..].to_vec() }
    }

    /// These sets and a newer one, introduced by the BARRIER of `epoch`.
    ///
    /// # Errors
    /// [`VotersError`] if too many would be in force, or if more than one voter of a set in force
    /// would come with a new disk.
    pub fn with(&self, voters: Voters, epoch: Epoch) -> Result<Self, VotersError> {
        if self.sets.len() >= Self::MAX_LEN {
            return Err(VotersError::Changes);
        }
        let next = voters.introduced(epoch, self.newest());
        if self.sets.iter().any(|set| set.replaced_in(&next).count() > 1) {
            return Err(VotersError::Replaced);
        }
        let mut sets = self.sets.clone();
        sets.push(next);
        Ok(Self { sets })
    }

    /// Every node that votes in any of them, once.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        let all = self.sets.iter().flat_map(Voters::members).map(|voter| voter.node);
        let mut nodes: Vec<NodeId> = all.collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Writes the sets.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(self.sets.len() as u8);
        for set in &self.sets {
            set.encode(writer);
        }
    }

    /// Reads the sets.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let len = usize::from(reader.u8("sets.len")?);
        if len == 0 || len > Self::MAX_LEN {
            let reason = format!("{len} sets; there are 1 to {}", Self::MAX_LEN);
            return Err(WireError::invalid("sets.len", reason));
        }
        let mut sets: Vec<Voters> = Vec::new();
        for _ in 0..len {
            let set = Voters::decode(reader)?;
            if sets.last().is_some_and(|last| last.generation >= set.generation) {
                return Err(WireError::invalid("sets", "a set does not follow on the one before"));
            }
            sets.push(set);
        }
        Ok(Self { sets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::EpochStart;
    use crate::id::Incarnation;
    use crate::record::Digest;
    use crate::voters::Voter;

    fn epoch(number: u64) -> Epoch {
        Epoch { number, incarnation: Incarnation(number) }
    }

    fn voters(names: &str, incarnation: u64) -> Voters {
        let voter = |name: &str| Voter {
            node: name.parse().unwrap(),
            incarnation: Incarnation(incarnation),
            zone: String::new(),
        };
        Voters::new(names.split(' ').map(voter).collect(), None).unwrap()
    }

    #[test]
    fn a_set_is_alone_once_its_barrier_is_committed() {
        let sets = VoterSets::of(voters("a b c", 1)).with(voters("a b d", 1), epoch(2)).unwrap();
        let start = |number, first, previous, previous_end| EpochStart {
            epoch: epoch(number),
            first: Lsn::new(first),
            previous,
            previous_end: Lsn::new(previous_end),
            digest: Digest::EMPTY,
            accepted_loss: false,
        };
        let starts = [start(1, 100, Epoch::NONE, 0), start(2, 1_000, epoch(1), 700)];
        let history = History::new(starts).unwrap();
        assert_eq!(sets.in_force(Lsn::new(700), &history).as_slice().len(), 2);
        assert_eq!(sets.in_force(Lsn::new(1_000), &history).as_slice().len(), 2, "up to it only");
        let alone = sets.in_force(Lsn::new(1_100), &history);
        assert_eq!(alone.as_slice(), [sets.newest().clone()]);
    }

    #[test]
    fn changes_are_bounded_and_replace_one_disk_at_a_time() {
        let mut sets = VoterSets::of(voters("a b c", 1));
        assert_eq!(sets.with(voters("a b c", 2), epoch(2)), Err(VotersError::Replaced));
        for number in 2..=VoterSets::MAX_LEN as u64 {
            sets = sets.with(voters("a b d", 1), epoch(number)).unwrap();
        }
        assert_eq!(sets.with(voters("a b c", 1), epoch(9)), Err(VotersError::Changes));
    }

    #[test]
    fn terms_read_back_and_impossible_ones_do_not() {
        let sets = VoterSets::of(voters("a b c", 1)).with(voters("a b d", 1), epoch(2)).unwrap();
        let terms = Terms { sets, lease_ms: 500 };
        let bytes = |terms: &Terms| {
            let mut writer = Writer::new();
            terms.encode(&mut writer);
            writer.into_bytes()
        };
        let good = bytes(&terms);
        assert_eq!(Terms::decode(&mut Reader::new(&good)), Ok(terms.clone()));
        for len in 0..good.len() {
            assert!(Terms::decode(&mut Reader::new(&good[..len])).is_err());
        }
        let long = Terms { lease_ms: LEASE_MAX_MS + 1, ..terms };
        assert!(Terms::decode(&mut Reader::new(&bytes(&long))).is_err());
    }
}
