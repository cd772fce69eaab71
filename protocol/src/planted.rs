//! Bugs built into the rules on purpose, to prove that the tests can find them.
//!
//! Only a build with `--cfg towline_planted` holds any of them, and there only the one that
//! `plant` names. In every other build [`planted`] is the constant `false`.

/// A bug in the rules of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(
    missing_docs,
    reason = "each name says what goes wrong; the place it is asked at shows it"
)]
pub enum Bug {
    AckBeforeFlush,
    FencedBeforeDurable,
    BarrierNotRequired,
    OpenBeforeApplied,
    LongestByEndAlone,
    NothingFetched,
    TooFewFenced,
    ForkByLengthAlone,
    CommitHeardUncapped,
    RoundBeganTooEarly,
    WipedDiskAcks,
    WipedDiskFenced,
    VotersOfTheFounding,
    ChangeCommittedByNewAlone,
    ChangeFencesOldAlone,
    GrantByNewAlone,
    PromiseForgotten,
    PromiseIgnored,
    LeaseFromReceipt,
    VerdictTooEarly,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::AckBeforeFlush,
        Self::FencedBeforeDurable,
        Self::BarrierNotRequired,
        Self::OpenBeforeApplied,
        Self::LongestByEndAlone,
        Self::NothingFetched,
        Self::TooFewFenced,
        Self::ForkByLengthAlone,
        Self::CommitHeardUncapped,
        Self::RoundBeganTooEarly,
        Self::WipedDiskAcks,
        Self::WipedDiskFenced,
        Self::VotersOfTheFounding,
        Self::ChangeCommittedByNewAlone,
        Self::ChangeFencesOldAlone,
        Self::GrantByNewAlone,
        Self::PromiseForgotten,
        Self::PromiseIgnored,
        Self::LeaseFromReceipt,
        Self::VerdictTooEarly,
    ];
}

#[cfg(towline_planted)]
mod chosen {
    use std::cell::Cell;

    thread_local! {
        pub(super) static BUG: Cell<Option<super::Bug>> = const { Cell::new(None) };
    }
}

/// Builds `bug` into everything this thread runs from now on; `None` takes it out again.
#[cfg(towline_planted)]
pub fn plant(bug: Option<Bug>) {
    chosen::BUG.set(bug);
}

/// Whether this build has `bug`, now.
#[cfg(towline_planted)]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    chosen::BUG.get() == Some(bug)
}

/// Whether this build has `bug`: it has none.
#[cfg(not(towline_planted))]
#[must_use]
pub const fn planted(_bug: Bug) -> bool {
    false
}
