//! Bugs that are built in on purpose, to prove that the checks can find them.

use std::fmt;
use std::str::FromStr;

use towline_protocol::planted::Bug;

/// A bug of the driver, or one of the rules.
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
    /// A bug in the rules. They hold it only in a build with `--cfg towline_planted`.
    Rules(Bug),
}

impl Plant {
    /// Those of the driver.
    const OF_THE_DRIVER: [Self; 19] = [
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

    /// All that this build holds.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Self::OF_THE_DRIVER.to_vec();
        if cfg!(towline_planted) {
            all.extend(Bug::ALL.map(Self::Rules));
        }
        all
    }

    /// Builds the bug of `plant` into the rules, or takes it out again.
    pub(crate) fn into_rules(plant: Option<Self>) {
        #[cfg(towline_planted)]
        towline_protocol::planted::plant(match plant {
            Some(Self::Rules(bug)) => Some(bug),
            _ => None,
        });
        #[cfg(not(towline_planted))]
        let _ = plant;
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules(bug) => write!(f, "rules:{bug:?}"),
            plant => write!(f, "{plant:?}"),
        }
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::all().into_iter().find(|plant| plant.to_string() == name);
        found.ok_or_else(|| format!("no planted bug is called {name}"))
    }
}
