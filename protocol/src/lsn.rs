//! Positions in the log.

use std::fmt;

/// A byte address in a log's one endless space.
///
/// The same record has the same `Lsn` on every node. An `Lsn` used as an *end* is exclusive: it is
/// the address of the first byte that does not belong to what it ends. Addresses inside segment
/// headers and behind an early-closed segment are skipped, so the difference of two Lsns is an
/// upper bound of the stored bytes between them, never their count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// The start of the address space; no record lies here, it is the first segment's header.
    pub const ZERO: Self = Self(0);

    /// The position `bytes` into the address space.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The position as a plain byte address.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position `bytes` further on, or `None` past the end of the address space.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The position `bytes` further on, for positions this node made itself.
    ///
    /// # Panics
    /// Past 2^64 bytes, which no log reaches. Positions that come from a disk or a peer go
    /// through [`Lsn::checked_add`].
    #[must_use]
    pub const fn advance(self, bytes: u64) -> Self {
        self.checked_add(bytes).expect("a log stays below 2^64 bytes")
    }

    /// How many addresses lie between `earlier` and this position; zero if it is not earlier.
    #[must_use]
    pub const fn distance_from(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({})", self.0)
    }
}

/// How the address space is cut into segments: every segment spans the same power of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSize(u64);

impl SegmentSize {
    /// The smallest segment, for tests: a header page and a few records.
    pub const MIN: Self = Self(64 << 10);
    /// The size a log is founded with unless told otherwise.
    pub const DEFAULT: Self = Self(64 << 20);
    /// The largest segment.
    pub const MAX: Self = Self(1 << 30);
    /// Every segment begins with one header page; its first record follows.
    pub const HEADER_LEN: u64 = 4096;

    /// A segment size of `bytes`, if that is a power of two between [`Self::MIN`] and
    /// [`Self::MAX`].
    #[must_use]
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= Self::MIN.0 && bytes <= Self::MAX.0 {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The size in bytes, header page included.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The longest payload one record of this log may carry: a quarter of a segment, so that
    /// closing a segment early wastes little.
    #[must_use]
    pub const fn max_payload(self) -> u64 {
        self.0 / 4
    }

    /// The base of the segment that holds `lsn`.
    #[must_use]
    pub const fn base_of(self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 & !(self.0 - 1))
    }

    /// How far into its segment `lsn` lies.
    #[must_use]
    pub const fn offset_of(self, lsn: Lsn) -> u64 {
        lsn.0 & (self.0 - 1)
    }

    /// The base of the segment after the one that holds `lsn`.
    ///
    /// # Panics
    /// Past the end of the address space.
    #[must_use]
    pub const fn next_base(self, lsn: Lsn) -> Lsn {
        self.base_of(lsn).advance(self.0)
    }

    /// Where the first record of the segment at `base` lies.
    #[must_use]
    pub const fn first_record(base: Lsn) -> Lsn {
        base.advance(Self::HEADER_LEN)
    }

    /// Where a new epoch's BARRIER goes after a log that ends at `end`: the first record of the
    /// next segment, or of this one while it holds no record yet.
    #[must_use]
    pub const fn barrier_after(self, end: Lsn) -> Lsn {
        if self.offset_of(end) <= Self::HEADER_LEN {
            Self::first_record(self.base_of(end))
        } else {
            Self::first_record(self.next_base(end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_arithmetic_agrees_with_itself() {
        let size = SegmentSize::MIN;
        let lsn = Lsn::new(3 * size.bytes() + 4_128);
        assert_eq!(size.base_of(lsn), Lsn::new(3 * size.bytes()));
        assert_eq!(size.offset_of(lsn), 4_128);
        assert_eq!(size.base_of(lsn).advance(size.offset_of(lsn)), lsn);
        assert_eq!(size.barrier_after(lsn), Lsn::new(4 * size.bytes() + 4_096));
    }

    #[test]
    fn an_empty_segment_takes_the_barrier_itself() {
        let size = SegmentSize::MIN;
        assert_eq!(size.barrier_after(Lsn::ZERO), Lsn::new(4_096));
        assert_eq!(size.barrier_after(Lsn::new(4_096)), Lsn::new(4_096));
    }

    #[test]
    fn only_powers_of_two_in_range_are_segment_sizes() {
        assert!(SegmentSize::new(100_000).is_none());
        assert!(SegmentSize::new(1 << 10).is_none());
        assert!(SegmentSize::new(2 << 30).is_none());
        assert_eq!(SegmentSize::new(64 << 20), Some(SegmentSize::DEFAULT));
    }
}
