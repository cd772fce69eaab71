//! The bug that is built into the log on purpose, if this is a build with any.

use towline_wal::planted::Bug;

#[cfg(towline_planted)]
pub(crate) use towline_wal::planted::{chosen as planted, plant};

/// The bug this thread runs with: none, in this build.
#[cfg(not(towline_planted))]
pub(crate) const fn planted() -> Option<Bug> {
    None
}

/// Nothing can be planted in this build.
#[cfg(not(towline_planted))]
pub(crate) const fn plant(_bug: Option<Bug>) {}
