//! Bugs that are built in on purpose, to prove that the checks can find them.

use std::fmt;
use std::str::FromStr;

/// A bug of the driver. Those of the rules are `towline_protocol::planted`'s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// A node says that records are flushed when they are only appended.
    AckBeforeFlush,
    /// A fence is reported as durable without having been written.
    FenceNotWritten,
    /// A voter goes on taking and acknowledging records of the epoch it no longer obeys.
    AckAfterFence,
    /// A client is answered when the primary's own disk has the write.
    ReplyOnOwnFlush,
    /// A read is answered without its round.
    ReadWithoutRound,
    /// A cut takes one record more than the fork says.
    CutTooDeep,
    /// A cut is reported and not made.
    CutNotMade,
    /// The longest log is reported as fetched, and was not.
    FetchNotMade,
    /// A read is evaluated against what was applied a while ago.
    StaleRead,
    /// The engine takes what is in the log, committed or not.
    AppliedBeforeCommitted,
    /// A record is applied a second time after a restart.
    AppliedTwice,
    /// The applier leaves out a record now and then.
    RecordSkipped,
    /// A replaced disk comes back under its old incarnation.
    WipedDiskKeepsItsName,
    /// A disk that was restored from a copy comes back under its old incarnation.
    StaleDiskKeepsItsName,
    /// A failed sync is tried again, and believed.
    SyncTriedAgain,
    /// The primary is told of its own flush though it never was.
    OwnFlushInvented,
    /// A deposed primary goes on answering writes that were waiting.
    AnswersAfterDemotion,
    /// Writes that are executed after a hand-over began are answered at once.
    AnswersBehindTheEnd,
    /// A read does not wait until what it saw is committed.
    ReadOfUnflushed,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::AckBeforeFlush,
        Self::FenceNotWritten,
        Self::AckAfterFence,
        Self::ReplyOnOwnFlush,
        Self::ReadWithoutRound,
        Self::CutTooDeep,
        Self::CutNotMade,
        Self::FetchNotMade,
        Self::StaleRead,
        Self::AppliedBeforeCommitted,
        Self::AppliedTwice,
        Self::RecordSkipped,
        Self::WipedDiskKeepsItsName,
        Self::StaleDiskKeepsItsName,
        Self::SyncTriedAgain,
        Self::OwnFlushInvented,
        Self::AnswersAfterDemotion,
        Self::AnswersBehindTheEnd,
        Self::ReadOfUnflushed,
    ];
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|plant| plant.to_string() == name);
        found.ok_or_else(|| format!("no planted bug is called {name}"))
    }
}
