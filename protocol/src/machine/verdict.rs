//! The fate of a write whose wait timed out, by its token.

use super::Machine;
use crate::epoch::Epoch;
use crate::lsn::Lsn;
use crate::planted::{Bug, planted};

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is committed, for good.
    Committed,
    /// It never will be.
    Lost,
    /// It may be yet.
    Pending,
    /// This node does not know: ask another, or later.
    Unknown,
}

impl Machine {
    /// The fate of the write that `epoch`'s primary appended and that ends at `end`.
    #[must_use]
    pub fn verdict(&self, epoch: Epoch, end: Lsn) -> Verdict {
        let early = planted(Bug::VerdictTooEarly);
        // A later epoch that is committed here decides about everything before it.
        let later = self.history.starts().iter().find(|start| start.epoch > epoch);
        let decided = later.is_some_and(|later| later.first < self.committed || early);
        match self.history.end_of(epoch, self.appended) {
            Some(held) if end <= held && (end <= self.committed || early) => Verdict::Committed,
            Some(held) if end > held && decided => Verdict::Lost,
            Some(_) => Verdict::Pending,
            None if decided => Verdict::Lost,
            None => Verdict::Unknown,
        }
    }
}
