//! What a log must hold, known from outside.
//!
//! This is written apart from the log and names nothing of it: numbers and bytes only. It knows
//! what a writer appended and what it was told is durable, and judges what was read back:
//!
//! - nothing that was told to be durable is missing;
//! - nothing is there that was not appended, and nothing torn or out of order: what is read is a
//!   beginning of what was written, byte for byte;
//! - while a cut is under way both ends are right: the log as it was, or the log as it will be;
//! - below where it begins nothing is demanded, and where it may begin is what [`Kept`] knows.

use std::sync::Arc;

use crate::kept::{Kept, Slot};

/// A record as its writer knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    pub(crate) kind: u8,
    pub(crate) tag: u16,
    pub(crate) payload: Arc<[u8]>,
    /// Where it lies and where it ends, as the writer was told.
    pub(crate) lsn: u64,
    pub(crate) end: u64,
    /// Up to where the log was told to be durable when this was appended: the record promises it.
    pub(crate) promise: u64,
    /// Of a record that opens an epoch: its number.
    pub(crate) epoch: Option<u64>,
}

/// A record as it was read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Read {
    pub(crate) kind: u8,
    pub(crate) tag: u16,
    pub(crate) payload: Vec<u8>,
    pub(crate) lsn: u64,
    pub(crate) end: u64,
}

/// What a whole log looks like to a reader.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    /// Where the log begins: the first segment that is kept.
    pub(crate) base: u64,
    pub(crate) records: Vec<Read>,
    /// The numbers of its epochs, the oldest first.
    pub(crate) epochs: Vec<u64>,
    /// The epoch it has promised to obey.
    pub(crate) fence: u64,
    pub(crate) slot: Option<Slot>,
}

/// One thing a log may be, and how much of it must be there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Story {
    records: Vec<Written>,
    durable: usize,
}

impl Story {
    /// How many records lie before a log that begins at `base`.
    fn before(&self, base: u64) -> usize {
        self.records.iter().take_while(|record| record.lsn < base).count()
    }

    /// How many records a log reaches over, those before its beginning too.
    fn reach(&self, found: &Found) -> usize {
        self.before(found.base) + found.records.len()
    }

    fn judge(&self, found: &Found) -> Result<(), String> {
        for (at, read) in (self.before(found.base)..).zip(&found.records) {
            let Some(written) = self.records.get(at) else {
                return Err(format!(
                    "record {at}, at {}, was read and never written: {} were",
                    read.lsn,
                    self.records.len()
                ));
            };
            if !is_same(written, read) {
                return Err(format!(
                    "record {at} reads at {}..{} with {} bytes of kind {}, written was {}..{} \
                     with {} of kind {}",
                    read.lsn,
                    read.end,
                    read.payload.len(),
                    read.kind,
                    written.lsn,
                    written.end,
                    written.payload.len(),
                    written.kind
                ));
            }
        }
        if self.reach(found) < self.durable {
            return Err(format!(
                "{} records are there, {} were durable of {} written",
                self.reach(found),
                self.durable,
                self.records.len()
            ));
        }
        Ok(())
    }
}

fn is_same(written: &Written, read: &Read) -> bool {
    (written.kind, written.tag, written.lsn, written.end)
        == (read.kind, read.tag, read.lsn, read.end)
        && *written.payload == *read.payload
}

/// What one log may be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Oracle {
    story: Story,
    /// What it may be as well, while a cut is under way.
    other: Option<Story>,
    /// The fence that was told to be durable, and the highest that was asked for.
    fence: u64,
    fence_asked: u64,
    /// Where it begins, and its slot.
    pub(crate) kept: Kept,
}

impl Oracle {
    pub(crate) fn records(&self) -> &[Written] {
        &self.story.records
    }

    /// How many records are durable.
    pub(crate) fn durable(&self) -> usize {
        self.story.durable
    }

    /// The end of what is durable.
    pub(crate) fn durable_end(&self) -> u64 {
        self.story.durable.checked_sub(1).map_or(0, |last| self.story.records[last].end)
    }

    /// A record was appended: it may be there from now on.
    pub(crate) fn appended(&mut self, written: Written) {
        self.story.records.push(written);
    }

    /// Everything appended was told to be durable.
    pub(crate) fn all_durable(&mut self) {
        self.story.durable = self.story.records.len();
    }

    /// The first `count` records are durable.
    pub(crate) fn durable_count(&mut self, count: usize) {
        self.story.durable = count;
    }

    /// A cut behind the first `kept` records begins: it may happen from now on.
    pub(crate) fn cut_begins(&mut self, kept: usize) {
        let records = self.story.records[..kept].to_vec();
        self.kept.cut_begins(records.last().map_or(0, |last| last.end));
        self.other = Some(Story { records, durable: kept });
    }

    /// The cut was told to be done.
    pub(crate) fn cut_is_done(&mut self) {
        if let Some(cut) = self.other.take() {
            self.story = cut;
            self.kept.cut_is_done(self.durable_end());
        }
    }

    /// Whether a cut is under way.
    pub(crate) fn is_cutting(&self) -> bool {
        self.other.is_some()
    }

    pub(crate) fn fence_asked(&mut self, fence: u64) {
        self.fence_asked = fence;
    }

    pub(crate) fn fence_is_durable(&mut self) {
        self.fence = self.fence_asked;
    }

    /// The same knowledge, with only what `before` knew to be durable: for a moment between the
    /// two, at which what was appended in between may be there.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut story = self.story.clone();
        story.durable = before.story.durable.min(story.records.len());
        let kept = self.kept.since(&before.kept);
        let mut since = Self { story, fence: before.fence, kept, ..self.clone() };
        if since.other.is_none() && self.story.records.len() < before.story.records.len() {
            // A cut was done in between.
            since.other = Some(before.story.clone());
            since.story.durable = self.story.durable;
        }
        since
    }

    /// Judges what was read back.
    pub(crate) fn judge(&self, found: &Found) -> Result<(), String> {
        let judged = self.story.judge(found);
        let other = self.other.as_ref().map(|other| other.judge(found));
        if let (Err(error), None | Some(Err(_))) = (judged, other) {
            return Err(error);
        }
        let stories = [Some(&self.story), self.other.as_ref()];
        let longest = stories.into_iter().flatten().max_by_key(|story| story.records.len());
        let written = longest.map(|story| &story.records[..]).unwrap_or_default();
        let reach = self.story.reach(found);
        let epochs = written.iter().take(reach).filter_map(|record| record.epoch);
        if !epochs.eq(found.epochs.iter().copied()) {
            return Err(format!("its epochs are {:?} after {reach} records", found.epochs));
        }
        if !(self.fence..=self.fence_asked).contains(&found.fence) {
            let (durable, asked) = (self.fence, self.fence_asked);
            return Err(format!("its fence is {}, not in {durable}..={asked}", found.fence));
        }
        let end = reach.checked_sub(1).and_then(|last| written.get(last));
        self.kept.judge(found.base, found.slot, end.map_or(0, |last| last.end))
    }

    /// How many records lie before a log that begins at `base`.
    pub(crate) fn before(&self, base: u64) -> usize {
        self.story.before(base)
    }

    /// As [`Oracle::judge`] for a log that has lost nothing: everything written is there.
    pub(crate) fn judge_whole(&self, found: &Found) -> Result<(), String> {
        self.judge(found)?;
        let (read, written) = (self.story.reach(found), self.story.records.len());
        if read < written {
            return Err(format!("{read} of {written} records are there, and no power was cut"));
        }
        Ok(())
    }

    /// What was found, and judged right, is what the log is from now on; all of it is durable.
    pub(crate) fn settle(&mut self, found: &Found) {
        if let Some(other) = self.other.take() {
            if self.story.reach(found) > self.story.records.len()
                || self.story.judge(found).is_err()
            {
                self.story = other;
            }
        }
        self.story.records.truncate(self.story.reach(found));
        self.all_durable();
        self.kept.settle(found.base, found.slot);
        self.fence = found.fence;
        self.fence_asked = found.fence;
    }
}

#[cfg(test)]
mod tests;
