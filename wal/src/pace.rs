//! How fast segments are filled, which says how the next ones are made ready.

use std::time::Duration;

/// A log that fills a segment in less is written in bulk. Well below the time after which a kernel
/// writes changed pages that nobody syncs (30 s), so that it does not write those that were only
/// made writable.
const IN_BULK: Duration = Duration::from_secs(10);

/// How fast the last segment was filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Pace {
    /// Slowly: each page of the next one faults when it is first stored to.
    #[default]
    AtRest,
    /// In bulk: the pages are made writable beforehand.
    InBulk,
}

impl Pace {
    /// The pace of a segment that was full after so long.
    pub(crate) fn of(filled_in: Duration) -> Self {
        if filled_in < IN_BULK { Self::InBulk } else { Self::AtRest }
    }
}
