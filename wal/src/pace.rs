//! How fast segments are filled, which says how the next ones are made ready.

use std::time::Duration;

use crate::disk::FOLIO_MAX;

/// A log that fills a segment in less is written in bulk. Well below the time after which a kernel
/// writes changed pages that nobody syncs (30 s), so that it does not write those that were only
/// made writable.
const IN_BULK: Duration = Duration::from_secs(10);

/// A log in bulk whose syncs take so much each, in bytes, is a stream. They write all of each folio
/// that they touch, so it has to be far more than one.
const STREAM_SYNC: u64 = 4 * FOLIO_MAX as u64;
/// A stream has come to rest after so many syncs more than it would need.
const RESTING_SYNCS: u64 = 16;

/// How fast the last segment was filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Pace {
    /// Slowly: each page of the next one faults when it is first stored to.
    #[default]
    AtRest,
    /// In bulk: the pages are made writable beforehand.
    InBulk,
    /// In bulk, and with so few syncs that pages can lie together in memory, which costs less.
    Stream,
}

impl Pace {
    /// The pace of a segment that was full after so long, if so many syncs took so many bytes
    /// meanwhile.
    pub(crate) fn of(filled_in: Duration, bytes: u64, syncs: u64) -> Self {
        if filled_in >= IN_BULK {
            Self::AtRest
        } else if bytes / STREAM_SYNC < syncs {
            Self::InBulk
        } else {
            Self::Stream
        }
    }

    /// Whether so many syncs, which took so many bytes, are no stream's any more.
    pub(crate) const fn is_over(bytes: u64, syncs: u64) -> bool {
        syncs > bytes / STREAM_SYNC + RESTING_SYNCS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BYTES: u64 = 64 << 20;

    #[test]
    fn a_stream_is_fast_and_syncs_much_at_a_time() {
        assert_eq!(Pace::of(9 * SECOND, BYTES, 64), Pace::Stream);
        assert_eq!(Pace::of(9 * SECOND, BYTES, 65), Pace::InBulk);
        assert_eq!(Pace::of(10 * SECOND, BYTES, 1), Pace::AtRest);
    }

    #[test]
    fn a_stream_is_over_after_some_small_syncs_and_not_before() {
        assert!(!Pace::is_over(BYTES, 64) && !Pace::is_over(0, 16));
        assert!(Pace::is_over(0, 17) && Pace::is_over(BYTES, 81));
    }
}
