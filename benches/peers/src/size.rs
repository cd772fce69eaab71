//! How much is measured: all of it, or enough to see that it works.

use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    Full,
    Quick,
}

impl Size {
    const fn pick<T: Copy>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }

    /// How long one measurement of a rate lasts, at the most.
    pub(crate) const fn window(self) -> Duration {
        Duration::from_millis(300)
    }

    /// How often a fresh log is filled for one figure.
    pub(crate) const fn fills(self) -> usize {
        2
    }

    /// What a sustained run appends, in bytes.
    pub(crate) const fn sustained(self) -> u64 {
        self.pick(8 << 30, 1 << 30)
    }

    /// How long a peer's sustained run lasts, at the most.
    pub(crate) const fn sustained_time(self) -> Duration {
        Duration::from_secs(self.pick(3, 2))
    }

    /// How long a log that is trimmed while it grows is kept, in bytes.
    pub(crate) const fn kept(self) -> u64 {
        self.pick(2 << 30, 256 << 20)
    }

    /// The long log and the short one whose opening is compared, in bytes.
    pub(crate) const fn opened(self) -> [u64; 2] {
        self.pick([16 << 30, 1 << 30], [2 << 30, 256 << 20])
    }

    /// How often a log goes on in another file in one measurement.
    pub(crate) const fn rollovers(self) -> u64 {
        self.pick(100, 340)
    }

    /// How many rounds there are.
    pub(crate) const fn rounds(self) -> usize {
        self.pick(11, 3)
    }

    /// A workload that takes long is measured in one round of so many.
    pub(crate) const fn long_every(self) -> usize {
        self.pick(4, 1)
    }

    /// How a process that measures for another is told.
    pub(crate) const fn name(self) -> &'static str {
        self.pick("full", "quick")
    }
}
