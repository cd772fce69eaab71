//! Epochs: who may write, and where each one's part of the log begins and ends.

use std::fmt;

use crate::id::Incarnation;
use crate::lsn::Lsn;
use crate::record::Digest;

/// One attempt to become primary. Ordered by number, then by incarnation, so that two candidates
/// who pick the same number still never share an epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch {
    /// Counts attempts; every start of a primary takes a higher one.
    pub number: u64,
    /// The incarnation of the node that made the attempt.
    pub incarnation: Incarnation,
}

impl Epoch {
    /// Before the first primary: no record has this epoch.
    pub const NONE: Self = Self { number: 0, incarnation: Incarnation(0) };

    /// The epoch a candidate of `incarnation` takes when `self` is the highest it knows.
    ///
    /// # Panics
    /// Past 2^64 attempts. No frame brings in a number near that:
    /// [`EPOCH_NUMBER_MAX`](crate::frame::EPOCH_NUMBER_MAX).
    #[must_use]
    pub const fn next(self, incarnation: Incarnation) -> Self {
        Self { number: self.number.checked_add(1).expect("fewer than 2^64 attempts"), incarnation }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.incarnation)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

/// Where an epoch's part of the log begins, and what it follows on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch that begins.
    pub epoch: Epoch,
    /// Where its BARRIER lies: the first record of a segment.
    pub first: Lsn,
    /// The epoch before it; [`Epoch::NONE`] for a log's first.
    pub previous: Epoch,
    /// The exact end of that epoch in this history.
    pub previous_end: Lsn,
    /// The digest of the whole log up to `previous_end`.
    pub digest: Digest,
    /// Whether an operator accepted that what other nodes had committed behind `previous_end` is
    /// lost.
    pub accepted_loss: bool,
}

/// A log's epochs in order. `start[i + 1].previous` is always `start[i].epoch`.
///
/// An entry counts once a record of its epoch is stored; a log that ends at `end` has no entry
/// with `first >= end`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    starts: Vec<EpochStart>,
}

/// The last point two logs have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommonPoint {
    /// The last epoch that both histories hold; [`Epoch::NONE`] if there is none.
    pub epoch: Epoch,
    /// The lower of the two ends of that epoch. Up to here the logs are equal.
    pub end: Lsn,
}

/// A history that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// An entry does not follow on the one before it.
    #[error("epoch {epoch} at {first} does not follow on epoch {last}")]
    OutOfOrder {
        /// The entry's epoch.
        epoch: Epoch,
        /// Where it claims to begin.
        first: Lsn,
        /// The newest epoch of the history.
        last: Epoch,
    },
    /// More entries than [`History::MAX_LEN`].
    #[error("a history of more than {max} epochs", max = History::MAX_LEN)]
    TooLong,
}

impl History {
    /// The most epochs a history may hold; past it a log must be founded anew.
    pub const MAX_LEN: usize = 16_384;

    /// A history of these entries.
    ///
    /// # Errors
    /// [`HistoryError`] if one does not follow on the other or they are too many.
    pub fn new(starts: impl IntoIterator<Item = EpochStart>) -> Result<Self, HistoryError> {
        let mut history = Self::default();
        for start in starts {
            history.push(start)?;
        }
        Ok(history)
    }

    /// Appends an epoch.
    ///
    /// # Errors
    /// [`HistoryError`] if it does not follow on the newest one.
    pub fn push(&mut self, start: EpochStart) -> Result<(), HistoryError> {
        if self.starts.len() >= Self::MAX_LEN {
            return Err(HistoryError::TooLong);
        }
        let last = self.last_epoch();
        let last_first = self.starts.last().map_or(Lsn::ZERO, |newest| newest.first);
        let follows = start.previous == last
            && start.epoch > last
            && start.first > start.previous_end
            && (self.starts.is_empty() || start.previous_end > last_first);
        if !follows {
            return Err(HistoryError::OutOfOrder { epoch: start.epoch, first: start.first, last });
        }
        self.starts.push(start);
        Ok(())
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// The newest epoch, or [`Epoch::NONE`].
    #[must_use]
    pub fn last_epoch(&self) -> Epoch {
        self.starts.last().map_or(Epoch::NONE, |start| start.epoch)
    }

    /// The entry of `epoch`.
    #[must_use]
    pub fn start_of(&self, epoch: Epoch) -> Option<&EpochStart> {
        let at = self.starts.binary_search_by_key(&epoch, |start| start.epoch).ok()?;
        self.starts.get(at)
    }

    /// The epoch whose part of the log holds the record at `lsn`, of a log that ends behind it.
    #[must_use]
    pub fn epoch_at(&self, lsn: Lsn) -> Epoch {
        self.starts
            .iter()
            .rev()
            .find(|start| start.first <= lsn)
            .map_or(Epoch::NONE, |start| start.epoch)
    }

    /// The end of `epoch` in a log that ends at `end`; `None` if the history does not hold it.
    #[must_use]
    pub fn end_of(&self, epoch: Epoch, end: Lsn) -> Option<Lsn> {
        let at = self.starts.binary_search_by_key(&epoch, |start| start.epoch).ok()?;
        Some(self.starts.get(at + 1).map_or(end, |next| next.previous_end))
    }

    /// Drops the entries that a log which ends at `end` does not reach.
    pub fn cut(&mut self, end: Lsn) {
        self.starts.retain(|start| start.first < end);
    }

    /// The last common entry of two histories, and the lower of its two ends (KIP-101's and
    /// Neon's rule: compare epochs, never lengths alone). The caller still compares digests.
    #[must_use]
    pub fn common_point(&self, end: Lsn, other: &Self, other_end: Lsn) -> CommonPoint {
        for start in self.starts.iter().rev() {
            let theirs = other.start_of(start.epoch);
            // An epoch is written by one primary, so it begins at one place; a peer that says
            // otherwise shares nothing of it.
            if theirs != Some(start) {
                continue;
            }
            let ends = (self.end_of(start.epoch, end), other.end_of(start.epoch, other_end));
            if let (Some(mine), Some(their)) = ends {
                return CommonPoint { epoch: start.epoch, end: mine.min(their) };
            }
        }
        CommonPoint { epoch: Epoch::NONE, end: Lsn::ZERO }
    }
}

/// The newest epochs, and how many there are: a line of a log file, not a record of everything.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        let first = self.starts.len().saturating_sub(SHOWN);
        write!(f, "[")?;
        for (at, start) in self.starts.iter().enumerate().skip(first) {
            let comma = if at > first { ", " } else { "" };
            write!(f, "{comma}{} at {} behind {}", start.epoch, start.first, start.previous_end)?;
        }
        write!(f, "; {} in all]", self.starts.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u64) -> Epoch {
        Epoch { number, incarnation: Incarnation(number) }
    }

    fn start(number: u64, first: u64, previous: u64, previous_end: u64) -> EpochStart {
        let previous = if previous == 0 { Epoch::NONE } else { epoch(previous) };
        let (first, previous_end) = (Lsn::new(first), Lsn::new(previous_end));
        let digest = Digest::EMPTY;
        let accepted_loss = false;
        EpochStart { epoch: epoch(number), first, previous, previous_end, digest, accepted_loss }
    }

    fn history(starts: &[EpochStart]) -> History {
        History::new(starts.iter().copied()).unwrap()
    }

    #[test]
    fn equal_numbers_of_two_candidates_are_two_epochs() {
        let (a, b) = (Epoch::NONE.next(Incarnation(1)), Epoch::NONE.next(Incarnation(2)));
        assert_ne!(a, b);
        assert!(a < b && b < a.next(Incarnation(1)));
    }

    #[test]
    fn the_fork_is_the_lower_end_of_the_last_common_epoch() {
        // The old primary wrote epoch 1 up to 900; the new one took over at 700.
        let old = history(&[start(1, 100, 0, 0)]);
        let new = history(&[start(1, 100, 0, 0), start(2, 1_000, 1, 700)]);
        let common = CommonPoint { epoch: epoch(1), end: Lsn::new(700) };
        assert_eq!(new.common_point(Lsn::new(1_200), &old, Lsn::new(900)), common);
        assert_eq!(old.common_point(Lsn::new(900), &new, Lsn::new(1_200)), common);
    }

    #[test]
    fn a_longer_log_of_another_epoch_shares_only_what_came_before() {
        let one = history(&[start(1, 100, 0, 0), start(3, 2_000, 1, 500)]);
        let two = history(&[start(1, 100, 0, 0), start(2, 1_000, 1, 700)]);
        let common = one.common_point(Lsn::new(9_000), &two, Lsn::new(1_500));
        assert_eq!(common, CommonPoint { epoch: epoch(1), end: Lsn::new(500) });
    }

    #[test]
    fn strangers_share_nothing() {
        let one = history(&[start(1, 100, 0, 0)]);
        let two = history(&[start(2, 100, 0, 0)]);
        assert_eq!(one.common_point(Lsn::new(200), &two, Lsn::new(200)).epoch, Epoch::NONE);
    }

    #[test]
    fn entries_must_follow_on_each_other() {
        let mut log = history(&[start(1, 100, 0, 0)]);
        assert!(log.push(start(1, 1_000, 1, 700)).is_err(), "not newer");
        assert!(log.push(start(3, 1_000, 2, 700)).is_err(), "another past");
        assert!(log.push(start(2, 600, 1, 700)).is_err(), "begins before the end");
        assert!(log.push(start(2, 1_000, 1, 50)).is_err(), "ends before its start");
        log.push(start(2, 1_000, 1, 700)).unwrap();
        log.cut(Lsn::new(1_000));
        assert_eq!(log.last_epoch(), epoch(1));
    }
}
