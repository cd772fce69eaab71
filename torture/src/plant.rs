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

/// Whether this build can have any.
pub(crate) const IS_PLANTED: bool = cfg!(towline_planted);

pub(crate) fn names() -> impl Iterator<Item = String> {
    Bug::ALL.iter().map(|bug| format!("{bug:?}"))
}

/// The bug of that name.
pub(crate) fn named(name: &str) -> Result<Bug, String> {
    let bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
    bug.filter(|_| IS_PLANTED).ok_or_else(|| format!("{name} can not be planted in this build"))
}
