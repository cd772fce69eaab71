//! Bugs built into the log on purpose, to prove that the tests can find them.
//!
//! Only a build with `--cfg towline_planted` holds any of them, and there only the one that
//! `plant` names. In every other build `planted` is the constant `false`.

/// A bug in the log of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(
    missing_docs,
    reason = "each name says what goes wrong; the place it is asked at shows it"
)]
pub enum Bug {
    SyncLeftOut,
    PromiseTooHigh,
    SeedWithoutNonce,
    SegmentChecksumIgnored,
    DurableNotLowered,
    CutOldestFirst,
    CutMarkLeft,
    CutFileNotSynced,
    SegmentNameNotSynced,
    EnteredUnnoted,
    ControlNameNotSynced,
    OneControlCopy,
    ControlNotSynced,
    ControlNotMadeDurable,
    PayloadNotChecked,
    BarrierFollowsAnything,
    PromisesBehindIgnored,
    PoisonedGoesOn,
    NamesFoundNotSynced,
    TornTailLeftInPlace,
    EpochWithoutBarrier,
    ReadyHeaderNotRewritten,
    TailNotRewritten,
    DamageTakenForSeal,
    TrimRemovesFirst,
    TrimIgnoresSlots,
    SlotNotWritten,
    SlotDropNotWritten,
    RepairNotSynced,
    RepairNameNotSynced,
    RepairKeepsNothing,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::SyncLeftOut,
        Self::PromiseTooHigh,
        Self::SeedWithoutNonce,
        Self::SegmentChecksumIgnored,
        Self::DurableNotLowered,
        Self::CutOldestFirst,
        Self::CutMarkLeft,
        Self::CutFileNotSynced,
        Self::SegmentNameNotSynced,
        Self::EnteredUnnoted,
        Self::ControlNameNotSynced,
        Self::OneControlCopy,
        Self::ControlNotSynced,
        Self::ControlNotMadeDurable,
        Self::PayloadNotChecked,
        Self::BarrierFollowsAnything,
        Self::PromisesBehindIgnored,
        Self::PoisonedGoesOn,
        Self::NamesFoundNotSynced,
        Self::TornTailLeftInPlace,
        Self::EpochWithoutBarrier,
        Self::ReadyHeaderNotRewritten,
        Self::TailNotRewritten,
        Self::DamageTakenForSeal,
        Self::TrimRemovesFirst,
        Self::TrimIgnoresSlots,
        Self::SlotNotWritten,
        Self::SlotDropNotWritten,
        Self::RepairNotSynced,
        Self::RepairNameNotSynced,
        Self::RepairKeepsNothing,
    ];
}

#[cfg(towline_planted)]
mod choice {
    use std::cell::Cell;

    thread_local! {
        pub(super) static BUG: Cell<Option<super::Bug>> = const { Cell::new(None) };
    }
}

/// Builds `bug` into everything this thread runs from now on; `None` takes it out again.
#[cfg(towline_planted)]
pub fn plant(bug: Option<Bug>) {
    choice::BUG.set(bug);
}

/// The bug that everything this thread runs has.
#[cfg(towline_planted)]
#[must_use]
pub fn chosen() -> Option<Bug> {
    choice::BUG.get()
}

/// Whether this build has `bug`, now.
#[cfg(towline_planted)]
#[must_use]
pub(crate) fn planted(bug: Bug) -> bool {
    choice::BUG.get() == Some(bug)
}

/// Whether this build has `bug`: it has none.
#[cfg(not(towline_planted))]
#[must_use]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}
