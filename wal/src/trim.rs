//! Taking the oldest segments off a log.
//!
//! 1. One control write says where the log begins now, and what that takes to know: the end and
//!    the digest of everything before.
//! 2. The files below are removed, and the folder is synced.
//!
//! Opening does an unfinished removal again. Whoever still reads a removed file keeps it open.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use towline_protocol::barrier::Barrier;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::Digest;
use towline_protocol::terms::Terms;
use towline_protocol::wire::{Reader, WireError, Writer};

use crate::control::Control;
use crate::disk::Disk;
use crate::error::{AtPath, WalError};
use crate::log::Log;
use crate::planted::{Bug, planted};
use crate::slots::Slot;

/// Where a log begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Oldest {
    /// The base of the oldest segment that is kept.
    pub base: Lsn,
    /// The end of the newest record before it: the lowest position there is.
    pub end: Lsn,
    /// The digest of everything before it.
    pub digest: Digest,
}

impl Default for Oldest {
    fn default() -> Self {
        Self { base: Lsn::ZERO, end: Lsn::ZERO, digest: Digest::EMPTY }
    }
}

impl Oldest {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.lsn(self.base).lsn(self.end).u64(self.digest.0);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            base: reader.lsn("oldest.base")?,
            end: reader.lsn("oldest.end")?,
            digest: Digest(reader.u64("oldest.digest")?),
        })
    }
}

/// What a trim did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrimReport {
    /// Where the log begins now.
    pub oldest: Oldest,
    /// How many segments were removed.
    pub segments: u64,
    /// The slots that were past their bound and lag now.
    pub lagged: Vec<String>,
    /// The slot that keeps the log from being trimmed further, if one does.
    pub held_by: Option<String>,
}

impl Log {
    /// Where the log begins: what is before was trimmed.
    #[must_use]
    pub fn oldest(&self) -> Oldest {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).oldest
    }

    /// Removes whole segments that lie below `to` and below every slot that is inside its bound.
    /// The segment that holds `to`, or the end of the log, stays. Durable on return.
    ///
    /// # Errors
    /// [`WalError`]; a segment whose removal failed is removed on the next opening.
    pub fn trim(&self, to: Lsn) -> Result<TrimReport, WalError> {
        let _one = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.oldest();
        let tail = self.tail().segment.as_ref().map(|segment| segment.base());
        let Some(tail) = tail else {
            let (lagged, held_by) = (Vec::new(), None);
            return Ok(TrimReport { oldest: before, segments: 0, lagged, held_by });
        };
        let flushed = self.flushed();
        // Something flushed stays: a log that begins with what may be torn could end with nothing.
        let last = Lsn::new(flushed.get().saturating_sub(1));
        let mut base = self.size.base_of(to.min(last)).min(tail);
        let mut held_by = None;
        let slots = self.slots();
        let holds = |slot: &&Slot| slot.holds(self, flushed) && !planted(Bug::TrimIgnoresSlots);
        for slot in slots.iter().filter(holds) {
            let needs = self.size.base_of(slot.position);
            if needs < base {
                base = needs;
                held_by = Some(slot.name.clone());
            }
        }
        if base <= before.base {
            return Ok(TrimReport { oldest: before, segments: 0, lagged: Vec::new(), held_by });
        }
        let (end, digest) = self.before_base(base)?;
        let oldest = Oldest { base, end, digest };
        let terms = self.terms_below(base)?;
        if planted(Bug::TrimRemovesFirst) {
            remove(&*self.disk, &self.dir, &below(&*self.disk, &self.dir, base)?)?;
        }
        let mut lagged = Vec::new();
        self.update_control(|control| {
            control.oldest = oldest;
            control.trimmed_terms = terms;
            // What is known of the rest must not hang on what is removed.
            control.durable = control.durable.max(flushed);
            for slot in control.slots.iter_mut().filter(|slot| !slot.lagged) {
                slot.lagged = slot.position < oldest.end;
                if slot.lagged {
                    lagged.push(slot.name.clone());
                }
            }
        })?;
        self.segments.trim(base);
        let leftovers = below(&*self.disk, &self.dir, base)?;
        let segments = remove(&*self.disk, &self.dir, &leftovers)?;
        Ok(TrimReport { oldest, segments, lagged, held_by })
    }

    /// The terms of the newest BARRIER below `base`.
    fn terms_below(&self, base: Lsn) -> Result<Option<Terms>, WalError> {
        let history = self.history();
        let newest = history.starts().iter().rev().find(|start| start.first < base);
        let control = self.control();
        let Some(newest) = newest.filter(|newest| newest.first > control.oldest.base) else {
            return Ok(control.trimmed_terms);
        };
        let place = self.size.base_of(newest.first);
        let segment = self.segments.get(place)?.ok_or(WalError::NoBoundary(newest.first))?;
        let payload = segment.payload(newest.first)?;
        let barrier = Barrier::decode(&payload)
            .map_err(|error| segment.corrupt(newest.first, self.flushed(), &error))?;
        Ok(Some(barrier.terms))
    }
}

/// The segments that a trim to `oldest` leaves to be removed, oldest first.
pub(crate) fn below(disk: &dyn Disk, dir: &Path, oldest: Lsn) -> Result<Vec<PathBuf>, WalError> {
    let mut paths = disk.list(dir).at("reading", dir)?;
    paths.retain(|path| crate::segment::named_base(path).is_some_and(|base| base < oldest));
    paths.sort();
    Ok(paths)
}

/// Removes what a trim left, and counts it. Durable on return.
pub(crate) fn remove(disk: &dyn Disk, dir: &Path, paths: &[PathBuf]) -> Result<u64, WalError> {
    for path in paths {
        disk.remove(path).at("removing", path)?;
    }
    if !paths.is_empty() {
        disk.sync_dir(dir).at("syncing", dir)?;
    }
    Ok(paths.len() as u64)
}

/// The first record of a log that begins there.
pub(crate) const fn first_of(control: &Control) -> Lsn {
    SegmentSize::first_record(control.oldest.base)
}
