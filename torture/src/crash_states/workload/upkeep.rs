//! The operations that keep a log in order: trims, slots, repairs, scrubs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use towline_protocol::lsn::Lsn;
use towline_wal::simulated::SimDisk;
use towline_wal::{Access, Chunk, Disk, RepairReport, WalError, repair};

use super::{Run, SMALL, failed};
use crate::kept::base_of;
use crate::log::{SLOT, dir, open, options, read_back, read_to_damage, segment_of, segment_path};
use crate::oracle::Oracle;

/// Where in a record a byte rots: in its payload.
const ROTS_AT: u64 = 37;

/// A record that has rotted, and what repairs it.
pub(in crate::crash_states) struct Mending {
    /// Which record of the log it is, and where.
    at: usize,
    lsn: u64,
    /// The segment's file as it is with the damage in it.
    damaged: Vec<u8>,
    /// The segment as a peer has it.
    chunks: Vec<Chunk>,
}

impl Mending {
    /// Judges what a crash of the repair left: the damage or none, never a third thing, and the
    /// damaged file is kept before it goes. Repaired again, the log is whole.
    pub(in crate::crash_states) fn check(
        &self,
        disk: &SimDisk,
        oracle: &Oracle,
    ) -> Result<(), String> {
        let (found, corruption) = read_to_damage(disk)?;
        let was_damaged = corruption.is_some();
        match corruption {
            None => {
                oracle.judge_whole(&found)?;
                self.check_salvage(disk)?;
            }
            Some((at, what)) => {
                let reach = oracle.before(found.base) + found.records.len();
                // A BARRIER that rotted leaves nothing to follow where its predecessor ends.
                let end = self.at.checked_sub(1).map_or(0, |last| oracle.records()[last].end);
                if reach != self.at || !(end..=self.lsn).contains(&at) {
                    return Err(format!("{what} at {at}, after {reach} records, of {}", self.at));
                }
                let mut before = oracle.clone();
                before.durable_count(self.at);
                before.judge(&found)?;
            }
        }
        let refused = |error: WalError| format!("repaired again: {error}");
        let repaired = repair(dir(), &self.chunks, &options(disk)).map_err(refused)?;
        if repaired.records != u64::from(was_damaged) {
            return Err(format!("{} records were repaired again", repaired.records));
        }
        let wal = open(disk).map_err(refused)?;
        oracle.judge_whole(&read_back(&wal).map_err(refused)?)
    }

    /// The damaged file is kept once it is not in the log any more.
    fn check_salvage(&self, disk: &SimDisk) -> Result<(), String> {
        let list = |dir: &Path| disk.list(dir).unwrap_or_default();
        let kept = list(&dir().join("salvage")).into_iter().flat_map(|bundle| list(&bundle));
        let is_kept = |path| disk.read(path, u64::MAX).is_ok_and(|it| it == self.damaged);
        match kept.collect::<Vec<_>>().iter().any(|path| is_kept(path)) {
            true => Ok(()),
            false => Err("the damaged file is gone".to_owned()),
        }
    }
}

impl Run {
    /// Trims as much as there is below the newest segment and the slot.
    pub(super) fn trim(&mut self) -> Result<(), String> {
        self.act(Self::flush)?;
        let (expected, told) = self.act(|run| {
            let Some(wal) = &run.wal else { return Err(WalError::Closed) };
            let to = run.oracle.durable_end();
            let expected = run.oracle.kept.trim_begins(to);
            let report = wal.trim(Lsn::new(to))?;
            run.oracle.kept.trim_is_done();
            Ok((expected, report.oldest.base.get()))
        })?;
        if told != expected {
            return Err(format!("it was trimmed to {told}, not to {expected}"));
        }
        let below = segment_path(dir(), expected);
        let is_segment = |path: &Path| path.extension().is_some_and(|it| it == "wal");
        let mut files = self.disk.files().into_iter().map(|(path, _)| path);
        let is_left =
            |path: &PathBuf| path.parent() == Some(dir()) && is_segment(path) && *path < below;
        match files.find(is_left) {
            Some(path) => Err(format!("{} is trimmed and still there", path.display())),
            None => Ok(()),
        }
    }

    /// The first position that is kept, as a writer knows it.
    fn first_kept(&self) -> u64 {
        let at = self.oracle.before(self.oracle.kept.base());
        self.oracle.records().get(at).map_or(0, |record| record.lsn)
    }

    pub(super) fn make_or_drop_slot(&mut self) -> Result<(), String> {
        let position = self.first_kept();
        self.act(|run| {
            let Some(wal) = &run.wal else { return Err(WalError::Closed) };
            if run.oracle.kept.has_slot() {
                run.oracle.kept.drop_asked();
                wal.drop_slot(SLOT)?;
                run.oracle.kept.is_dropped();
            } else {
                run.oracle.kept.slot_asked(position);
                wal.create_slot(SLOT, Lsn::new(position), None)?;
                run.oracle.kept.slot_is_durable();
            }
            Ok(())
        })
    }

    pub(super) fn move_slot(&mut self) -> Result<(), String> {
        if !self.oracle.kept.has_slot() {
            self.make_or_drop_slot()?;
        }
        self.act(|run| {
            let Some(wal) = &run.wal else { return Err(WalError::Closed) };
            let end = run.oracle.records().last().map_or(0, |last| last.end);
            let before = run.oracle.kept.slot_position();
            run.oracle.kept.slot_moves(end);
            wal.advance_slot(SLOT, Lsn::new(end))?;
            run.oracle.kept.slot_has_moved(before);
            Ok(())
        })
    }

    /// A scrub finds nothing, and changes nothing.
    pub(super) fn scrub(&mut self) -> Result<(), String> {
        let wal = self.wal()?;
        for check in wal.scrub(None) {
            let check = check.map_err(|error| failed(&error))?;
            if let Some(damage) = check.damaged.first() {
                return Err(format!("a scrub finds at {}: {}", damage.from, damage.what));
            }
        }
        match self.disk.take_outages().len() {
            0 => Ok(()),
            changes => Err(format!("a scrub changes something, {changes} times")),
        }
    }

    /// A record in the middle of the segment at `base` that is about to rot, and its cure.
    fn choose(&self, base: u64) -> Result<Mending, String> {
        let is_there = |at: &usize| base_of(self.oracle.records()[*at].lsn) == base;
        let there: Vec<_> = (0..self.oracle.records().len()).filter(is_there).collect();
        let at = *there.get(there.len() / 2).ok_or("there is no record to rot")?;
        let lsn = self.oracle.records()[at].lsn;
        let chunks = segment_of(&self.wal()?, base).map_err(|error| failed(&error))?;
        Ok(Mending { at, lsn, damaged: Vec::new(), chunks })
    }

    /// A byte of the record rots on the disk.
    fn rot(&mut self, mut mending: Mending) -> std::io::Result<()> {
        let base = base_of(mending.lsn);
        let path = segment_path(dir(), base);
        let file = self.disk.open(&path, Access::ReadWrite)?;
        let (mut byte, offset) = ([0], mending.lsn - base + ROTS_AT);
        file.read_exact_at(&mut byte, offset)?;
        file.write_at(&[!byte[0]], offset)?;
        file.sync()?;
        mending.damaged = self.disk.read(&path, u64::MAX)?;
        // That was not the log's doing.
        drop(self.disk.take_outages());
        self.mending = Some(Arc::new(mending));
        Ok(())
    }

    fn newest_base(&self) -> u64 {
        self.oracle.records().last().map_or(0, |last| base_of(last.lsn))
    }

    pub(super) fn mend_closed(&mut self) -> Result<(), String> {
        self.act(Self::flush)?;
        let mending = self.choose(self.newest_base())?;
        self.act(Self::shutdown)?;
        let chunks = mending.chunks.clone();
        self.rot(mending).map_err(|error| format!("the rot: {error}"))?;
        let report = self.act(|run| repair(dir(), &chunks, &options(&run.disk)))?;
        is_one(&report)?;
        self.open_whole()
    }

    pub(super) fn mend_open(&mut self) -> Result<(), String> {
        let oldest = base_of(self.first_kept());
        if self.newest_base() == oldest {
            self.span()?;
        }
        // What is durable is promised by the next record: without that, rot is a torn tail.
        self.act(Self::flush)?;
        self.act(|run| run.append(SMALL))?;
        self.act(Self::flush)?;
        let mending = self.choose(oldest)?;
        let chunks = mending.chunks.clone();
        self.rot(mending).map_err(|error| format!("the rot: {error}"))?;
        let wal = self.wal()?;
        let report = self.act(|_| wal.repair(&chunks))?;
        is_one(&report)?;
        let found = read_back(&wal).map_err(|error| failed(&error))?;
        self.oracle.judge_whole(&found)
    }
}

/// One record was damaged, and one repaired.
fn is_one(report: &RepairReport) -> Result<(), String> {
    match (report.segments.len(), report.records) {
        (1, 1) => Ok(()),
        (segments, records) => {
            Err(format!("{records} records of {segments} segments were repaired, not one"))
        }
    }
}
