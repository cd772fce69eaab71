//! The part of a log that opening reads: its newest segments, from the one that holds the end of
//! what is known to be durable on. What is before is not looked at, however long the log is.

use std::path::{Path, PathBuf};

use towline_protocol::barrier::Barrier;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{
    Digest, RECORD_ALIGN, RECORD_PAYLOAD_MAX, RecordHeader, RecordKind,
};

use crate::block::Block;
use crate::control::Control;
use crate::disk::{Access, Disk};
use crate::error::{AtPath, WalError};
use crate::header::SegmentHeader;
use crate::log::SEAL_LEN;
use crate::scan::{SegmentFile, is_blank, parse};
use crate::segment::{file_name, named_base};

/// How much is read at a time where the end of a segment is searched for its SEAL.
const SEARCH_LEN: u64 = 64 << 10;
/// How much at a time of a segment that should be blank.
const BLANK_LEN: u64 = 1 << 20;

/// What is known of everything before a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    /// The end of its newest record.
    pub(crate) end: Lsn,
    pub(crate) digest: Digest,
    /// Whether that record is a SEAL.
    pub(crate) sealed: bool,
}

/// The newest segments of a log, in order.
#[derive(Debug)]
pub(crate) struct Newest {
    pub(crate) files: Vec<SegmentFile>,
    /// Where reading begins among them. What is before it was only asked for its SEAL.
    pub(crate) from: usize,
    pub(crate) before: Before,
    /// How many segments the folder has, those that are not read included.
    pub(crate) segments: u64,
    /// A file that holds nothing under a damaged header.
    pub(crate) discarded: Option<PathBuf>,
}

/// The base of every segment of a folder that the log has not trimmed, by their names.
pub(crate) fn named_bases(
    disk: &dyn Disk,
    dir: &Path,
    control: &Control,
) -> Result<Vec<Lsn>, WalError> {
    let mut bases = Vec::new();
    for path in disk.list(dir).at("reading", dir)? {
        if path.extension().is_none_or(|extension| extension != "wal") {
            continue;
        }
        let base = named_base(&path).filter(|&base| control.segment_size.base_of(base) == base);
        let Some(base) = base else {
            let what = "its name is no segment's: move it elsewhere".to_owned();
            return Err(WalError::Foreign { path, what });
        };
        if base >= control.oldest.base {
            bases.push(base);
        }
    }
    bases.sort_unstable();
    Ok(bases)
}

/// As [`named_bases`], without a gap, beginning where the log does.
pub(crate) fn bases(disk: &dyn Disk, dir: &Path, control: &Control) -> Result<Vec<Lsn>, WalError> {
    let bases = named_bases(disk, dir, control)?;
    let mut expected = control.oldest.base;
    for &base in &bases {
        if base != expected {
            return Err(WalError::MissingSegment { dir: dir.to_owned(), base: expected });
        }
        expected = control.segment_size.next_base(base);
    }
    if bases.is_empty() && control.oldest.base > Lsn::ZERO {
        return Err(WalError::MissingSegment { dir: dir.to_owned(), base: expected });
    }
    Ok(bases)
}

/// Opens the segments from the one that holds `from` on.
pub(crate) fn files_from(
    disk: &dyn Disk,
    dir: &Path,
    control: &Control,
    from: Lsn,
) -> Result<Vec<SegmentFile>, WalError> {
    let from = control.segment_size.base_of(from);
    let bases = bases(disk, dir, control)?;
    let wanted = bases.into_iter().filter(|&base| base >= from);
    wanted.map(|base| SegmentFile::open(disk, dir, base, control)).collect()
}

impl Newest {
    /// Opens the segments that may hold what is not known to be durable, the newest first: each
    /// header says how far the log was durable when its file was made ready.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        control: &Control,
        expected: Lsn,
    ) -> Result<Self, WalError> {
        let bases = bases(disk, dir, control)?;
        let before = Before {
            end: control.oldest.end,
            digest: control.oldest.digest,
            sealed: control.oldest.base > Lsn::ZERO,
        };
        let segments = bases.len() as u64;
        let mut newest = Self { files: Vec::new(), from: 0, before, segments, discarded: None };
        let mut durable = control.durable;
        let mut older = bases.into_iter().rev();
        while newest.files.first().is_none_or(|first| first.base() > durable) {
            let Some(base) = older.next() else { return Ok(newest) };
            match SegmentFile::open(disk, dir, base, control) {
                Ok(file) => {
                    durable = durable.max(file.header.durable);
                    newest.files.insert(0, file);
                }
                Err(error) => {
                    let path = dir.join(file_name(base));
                    let known = durable.max(expected);
                    if known > base
                        || !newest.are_blank()?
                        || !holds_nothing(disk, &path, control, &error)?
                    {
                        return Err(error);
                    }
                    // With it go those that were ready behind it: the log has a gap there.
                    newest.segments -= newest.files.len() as u64 + 1;
                    newest.files.clear();
                    newest.discarded = Some(path);
                }
            }
        }
        // One whose BARRIER or whose SEAL before it tells what came before.
        loop {
            if let Some(before) = newest.files[0].opened_by_barrier()? {
                newest.before = before;
                return Ok(newest);
            }
            let Some(base) = older.next() else { return Ok(newest) };
            newest.files.insert(0, SegmentFile::open(disk, dir, base, control)?);
            if let Some(before) = newest.files[0].sealed_before()? {
                (newest.before, newest.from) = (before, 1);
                return Ok(newest);
            }
        }
    }

    /// Whether the segments that were opened so far hold nothing.
    fn are_blank(&self) -> Result<bool, WalError> {
        for file in &self.files {
            if !file.is_blank()? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a file is refused for its header alone, and is blank behind it. One that was cut short
/// may have held anything.
fn holds_nothing(
    disk: &dyn Disk,
    path: &Path,
    control: &Control,
    error: &WalError,
) -> Result<bool, WalError> {
    if !matches!(error, WalError::Corrupt { .. }) {
        return Ok(false);
    }
    let file = disk.open(path, Access::Read).at("opening", path)?;
    let len = file.len().at("reading", path)?;
    if len != control.segment_size.bytes() {
        return Ok(false);
    }
    let mut block = vec![0; usize::try_from(len.min(BLANK_LEN)).unwrap_or_default()];
    let mut at = SegmentSize::HEADER_LEN;
    while at < len {
        let most = usize::try_from(len - at).unwrap_or(usize::MAX).min(block.len());
        file.read_exact_at(&mut block[..most], at).at("reading", path)?;
        if !is_blank(&block[..most]) {
            return Ok(false);
        }
        at += most as u64;
    }
    Ok(true)
}

impl SegmentFile {
    /// What the BARRIER that the segment begins with says of everything before it.
    fn opened_by_barrier(&self) -> Result<Option<Before>, WalError> {
        let mut block = Block::of_one();
        let Ok((header, payload)) = block.record(self, self.first())? else { return Ok(None) };
        if header.kind != RecordKind::Barrier {
            return Ok(None);
        }
        let barrier = Barrier::decode(payload).ok();
        Ok(barrier.map(|it| Before { end: it.previous_end, digest: it.digest, sealed: false }))
    }

    /// What the SEAL of the segment says.
    pub(crate) fn sealed_before(&self) -> Result<Option<Before>, WalError> {
        search_seal(&self.header, |from, to| self.read(from, to))
    }
}

/// What a segment's SEAL says, searched from the segment's end: it lies no further from there than
/// the longest record. `read` gives what lies between two offsets, or up to the file's end.
pub(crate) fn search_seal<Bytes: AsRef<[u8]>>(
    header: &SegmentHeader,
    read: impl Fn(u64, u64) -> Result<Bytes, WalError>,
) -> Result<Option<Before>, WalError> {
    let (size, seed) = (header.size, header.seed());
    let longest = size.max_payload().min(u64::from(RECORD_PAYLOAD_MAX));
    let lowest = size.bytes() - longest - 2 * SEAL_LEN;
    let mut to = size.bytes();
    while to > lowest {
        let from = to.saturating_sub(SEARCH_LEN).max(SegmentSize::HEADER_LEN);
        let bytes = read(from, to + SEAL_LEN - RECORD_ALIGN)?;
        let places = usize::try_from(to - from).unwrap_or(usize::MAX);
        for offset in (0..places).step_by(RECORD_ALIGN as usize).rev() {
            let lsn = header.base.advance(from + offset as u64);
            if let Ok((record, payload)) = parse(bytes.as_ref(), offset, lsn, seed) {
                return Ok(seal(&record, payload));
            }
        }
        to = from;
    }
    Ok(None)
}

/// What a segment's last record says, if it is a SEAL.
fn seal(header: &RecordHeader, payload: &[u8]) -> Option<Before> {
    let sealed = payload.first_chunk().filter(|_| header.kind == RecordKind::Seal)?;
    let digest = Digest(u64::from_le_bytes(*sealed)).with(header);
    Some(Before { end: header.end(), digest, sealed: true })
}
