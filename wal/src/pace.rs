//! How fast segments are filled, which says how the next ones are made ready.

use std::time::{Duration, Instant};

use towline_protocol::lsn::SegmentSize;

use crate::disk::Zeros;

/// A log that fills a segment in less is written in bulk. Well below the time after which a kernel
/// writes changed pages that nobody syncs (30 s), so that it does not write those that were only
/// made writable.
const IN_BULK: Duration = Duration::from_secs(10);
/// A log in bulk that syncs so much at a time, in bytes, waits for the disk and not for a sync.
const BULK_SYNC_LEN: u64 = 1 << 20;

/// How fast the last segment was filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Pace {
    /// Slowly: each page of the next one faults when it is first stored to.
    #[default]
    AtRest,
    /// In bulk, a little with every sync: the pages are made writable beforehand.
    InCommits,
    /// In bulk, much with every sync: and its zeros need not be on the disk.
    InBulk,
}

impl Pace {
    /// On the disk at every pace, until it is known why power cuts lost what was flushed into
    /// segments whose zeros were in the page cache only.
    pub(crate) const fn zeros(self) -> Zeros {
        match self {
            Self::AtRest | Self::InCommits | Self::InBulk => Zeros::OnDisk,
        }
    }
}

/// When a segment began to be filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling {
    at: Instant,
    /// How many syncs there had been.
    syncs: u64,
}

impl Filling {
    pub(crate) const fn new(at: Instant, syncs: u64) -> Self {
        Self { at, syncs }
    }

    /// How fast a segment was filled that is full when `next` begins.
    pub(crate) fn pace(self, size: SegmentSize, next: Self) -> Pace {
        let syncs = (next.syncs - self.syncs).max(1);
        if next.at - self.at >= IN_BULK {
            Pace::AtRest
        } else if size.bytes() / syncs < BULK_SYNC_LEN.min(size.bytes()) {
            Pace::InCommits
        } else {
            Pace::InBulk
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_of_time_and_of_syncs() {
        let size = SegmentSize::new(64 << 20).unwrap();
        let start = Instant::now();
        let pace = |took: Duration, syncs: u64| {
            Filling::new(start, 7).pace(size, Filling::new(start + took, 7 + syncs))
        };
        let second = Duration::from_secs(1);
        assert_eq!(pace(second, 0), Pace::InBulk);
        assert_eq!(pace(second, 64), Pace::InBulk);
        assert_eq!(pace(second, 65), Pace::InCommits);
        assert_eq!(pace(IN_BULK, 0), Pace::AtRest);
        assert_eq!(pace(IN_BULK, 10_000), Pace::AtRest);
    }

    #[test]
    fn a_small_segment_that_is_synced_once_is_in_bulk() {
        let start = Filling::new(Instant::now(), 0);
        let pace = |syncs| start.pace(SegmentSize::MIN, Filling { syncs, ..start });
        assert_eq!((pace(1), pace(2)), (Pace::InBulk, Pace::InCommits));
    }
}
