//! A log of at most eight records in one machine word.
//!
//! A state of the model holds a dozen logs and the checker holds millions of states, so a log is a
//! `u64`, the first record in its lowest byte. An empty place is zero, which no record is.

use std::fmt;

/// Marks a BARRIER; the other four bits of its value name its voter sets.
const BARRIER: u8 = 0x10;

/// One record: the epoch whose primary created it, and what it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry(u8);

impl Entry {
    /// A client's write, by its number.
    #[must_use]
    pub const fn write(epoch: u8, number: u8) -> Self {
        Self(epoch << 5 | number)
    }

    /// The first record of an epoch. It carries the voter sets in force, `oldest` to `newest` of
    /// the setting's list. The previous epoch and its end are what stands before it.
    #[must_use]
    pub const fn barrier(epoch: u8, oldest: u8, newest: u8) -> Self {
        Self(epoch << 5 | BARRIER | oldest << 2 | newest)
    }

    /// The epoch it was created in.
    #[must_use]
    pub const fn epoch(self) -> u8 {
        self.0 >> 5
    }

    /// The write's number, unless this is a BARRIER.
    #[must_use]
    pub const fn number(self) -> Option<u8> {
        if self.0 & BARRIER == 0 { Some(self.0 & 0xf) } else { None }
    }

    /// The oldest and the newest voter set in force, if this is a BARRIER.
    #[must_use]
    pub const fn sets(self) -> Option<(u8, u8)> {
        if self.0 & BARRIER == 0 { None } else { Some((self.0 >> 2 & 3, self.0 & 3)) }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.number(), self.sets()) {
            (Some(number), _) => write!(f, "{}:w{number}", self.epoch()),
            (_, Some((oldest, newest))) => write!(f, "{}:B{oldest}-{newest}", self.epoch()),
            _ => Ok(()),
        }
    }
}

/// A log, or a prefix of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Log(u64);

impl Log {
    /// How many records it holds.
    #[must_use]
    pub const fn end(self) -> u8 {
        ((64 - self.0.leading_zeros()).div_ceil(8)) as u8
    }

    /// The record at `index`.
    ///
    /// # Panics
    /// If there is none: the model would be wrong.
    #[must_use]
    pub const fn at(self, index: u8) -> Entry {
        assert!(index < self.end());
        Entry((self.0 >> (8 * index)) as u8)
    }

    /// The first `end` records.
    #[must_use]
    pub const fn prefix(self, end: u8) -> Self {
        if end >= 8 { self } else { Self(self.0 & ((1 << (8 * end)) - 1)) }
    }

    /// The log with one more record.
    ///
    /// # Panics
    /// If it is full: the setting's bounds would be wrong.
    #[must_use]
    pub const fn and(self, entry: Entry) -> Self {
        assert!(self.end() < 8, "a log of the model holds eight records");
        Self(self.0 | (entry.0 as u64) << (8 * self.end()))
    }

    /// Its records, oldest first.
    pub fn entries(self) -> impl Iterator<Item = Entry> {
        (0..self.end()).map(move |index| self.at(index))
    }

    /// The epoch of the last record; zero without one.
    #[must_use]
    pub const fn last_epoch(self) -> u8 {
        if self.end() == 0 { 0 } else { self.at(self.end() - 1).epoch() }
    }

    /// Whether `other` goes on where this one ends.
    #[must_use]
    pub const fn is_prefix_of(self, other: Self) -> bool {
        other.prefix(self.end()).0 == self.0
    }

    /// Where the epoch histories of two logs part: the common point a replica is cut to.
    ///
    /// Only epochs are compared, as in the handshake; that the contents agree as well is what
    /// "one primary per epoch" buys and what the properties check.
    #[must_use]
    pub fn fork(self, other: Self) -> u8 {
        let same = self.entries().zip(other.entries()).take_while(|(a, b)| a.epoch() == b.epoch());
        same.count() as u8
    }

    /// The BARRIER of the last epoch, with its position.
    #[must_use]
    pub fn last_barrier(self) -> Option<(u8, Entry)> {
        let mut all = (0..self.end()).rev().map(|index| (index, self.at(index)));
        all.find(|(_, entry)| entry.sets().is_some())
    }

    /// Where the BARRIER stands that introduced a voter set.
    #[must_use]
    pub fn introduced(self, set: u8) -> Option<u8> {
        let newest = |index: &u8| self.at(*index).sets().is_some_and(|(_, newest)| newest == set);
        (0..self.end()).find(newest)
    }

    /// Whether it holds the write with this number.
    #[must_use]
    pub fn holds(self, number: u8) -> bool {
        self.entries().any(|entry| entry.number() == Some(number))
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BARRIER of epoch 1, a write, then what is given.
    fn log(rest: &[Entry]) -> Log {
        let start = Log::default().and(Entry::barrier(1, 0, 0)).and(Entry::write(1, 1));
        rest.iter().fold(start, |log, entry| log.and(*entry))
    }

    #[test]
    fn a_fork_is_where_epochs_part_or_the_lower_end() {
        let second = log(&[Entry::barrier(2, 0, 0), Entry::write(2, 2)]);
        let third = log(&[Entry::barrier(3, 0, 1)]);
        assert_eq!((second.fork(third), third.fork(second)), (2, 2));
        assert_eq!((second.fork(log(&[])), log(&[]).fork(second)), (2, 2));
        assert_eq!(second.fork(second.prefix(3)), 3);
    }

    #[test]
    fn a_full_log_keeps_every_record() {
        let last = Entry::write(7, 3);
        let full = log(&[Entry::barrier(4, 1, 2), last, last, last, last, last]);
        assert_eq!((full.end(), full.at(7), full.last_epoch()), (8, last, 7));
        assert_eq!(full.last_barrier(), Some((2, Entry::barrier(4, 1, 2))));
        assert_eq!(full.prefix(2), log(&[]));
        assert_eq!(full.introduced(2), Some(2));
        assert!(full.holds(3) && !full.holds(2));
    }
}
