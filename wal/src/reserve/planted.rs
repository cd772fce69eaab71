//! Bugs that a build for the model checker can have, to prove that it finds them.

/// A bug in the reservations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bug {
    RelaxedPublish,
    FlagBeforePublish,
    PromiseBeforeLooking,
    RingNeverFull,
    SealedAtOnce,
}

#[cfg(towline_loom)]
thread_local! {
    // All threads of a model run on one real thread.
    static BUG: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Builds `bug` into everything this thread runs from now on.
#[cfg(towline_loom)]
pub(super) fn plant(bug: Option<Bug>) {
    BUG.set(bug);
}

/// Whether this build has `bug`, now.
#[cfg(towline_loom)]
pub(super) fn planted(bug: Bug) -> bool {
    BUG.get() == Some(bug)
}

/// Whether this build has `bug`: none, but in one that a race detector must refuse.
#[cfg(not(towline_loom))]
pub(super) const fn planted(bug: Bug) -> bool {
    cfg!(towline_racy) && matches!(bug, Bug::RelaxedPublish)
}
