//! Taking the tail off a log, so that no crash on the way brings any of it back.
//!
//! 1. One control write says where the log ends, which nonce the fresh file will have, and that a
//!    cut is under way; it drops the epochs behind the end and lowers `durable`.
//! 2. Later files move into the salvage bundle; the cut file is linked into it.
//! 3. What is kept of the cut file is copied to a fresh one, which is synced and renamed over it.
//! 4. The mark is cleared.
//!
//! Opening does an unfinished cut again from step 2, and knows the fresh file by its nonce.

use std::path::{Path, PathBuf};

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{RECORD_HEADER_LEN, RecordHeader};

use crate::control::{Control, CutMark};
use crate::copies::{self, Copies, folder_of};
use crate::disk::{Access, Disk};
use crate::error::{AtPath, WalError};
use crate::header::SegmentHeader;
use crate::newest::{bases, files_from};
use crate::planted::{Bug, planted};
use crate::recovery::take_lock;
use crate::scan::{SegmentFile, is_blank, parse};
use crate::segment::{create, file_name};
use crate::wal::Options;

const FRESH_NAME: &str = "cut.new";

/// What a cut took off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CutReport {
    /// The new end of the log.
    pub to: Lsn,
    /// The old end.
    pub from: Lsn,
    /// How many stored bytes were cut.
    pub bytes: u64,
    /// How many records.
    pub records: u64,
    /// Where they are kept.
    pub bundle: PathBuf,
}

/// Cuts a closed log to `to`, the end of one of its records or [`Lsn::ZERO`].
///
/// # Errors
/// [`WalError::NoBoundary`] if it is not, [`WalError::Record`] if what comes before it in its
/// segment is damaged, [`WalError::Locked`] if the log is open.
pub fn cut(dir: &Path, to: Lsn, options: &Options) -> Result<CutReport, WalError> {
    let disk = &*options.disk;
    copies::read(disk, dir)?; // Before the lock file is made: an empty folder stays empty.
    let _lock = take_lock(disk, dir)?;
    let (mut copies, mut control, _) = Copies::open(disk, dir)?;
    if to < control.oldest.end {
        return Err(WalError::Lagged { at: to, oldest: control.oldest.end });
    }
    let files = files_from(disk, dir, &control, before(to))?;
    let mut report = measure(&files, to)?;
    drop(files);
    report.bundle = apply(dir, (&mut copies, &mut control), to, options)?;
    Ok(report)
}

/// A place in the segment that holds the record which ends at `to`.
fn before(to: Lsn) -> Lsn {
    Lsn::new(to.get().saturating_sub(1))
}

/// Counts what lies behind `to`, and checks that a record ends there.
fn measure(files: &[SegmentFile], to: Lsn) -> Result<CutReport, WalError> {
    let mut report = CutReport { to, from: to, bytes: 0, records: 0, bundle: PathBuf::new() };
    let mut boundary = to == Lsn::ZERO;
    for file in files {
        let bytes = file.bytes()?;
        let mut lsn = file.first();
        loop {
            let offset = usize::try_from(lsn.distance_from(file.base())).unwrap_or(usize::MAX);
            let header = match parse(&bytes, offset, lsn, file.seed) {
                Ok((header, _)) => header,
                // Before the cut it is damage, which is kept as it is and not built upon.
                Err(source) if lsn < to && !is_blank(bytes.get(offset..).unwrap_or_default()) => {
                    return Err(WalError::Record { at: lsn, source });
                }
                Err(_) => break,
            };
            if lsn >= to {
                report.records += 1;
                report.bytes += header.stored_len();
                report.from = header.end();
            }
            lsn = header.end();
            boundary |= lsn == to;
        }
    }
    if boundary { Ok(report) } else { Err(WalError::NoBoundary(to)) }
}

/// Cuts, with the folder's lock held.
pub(crate) fn apply(
    dir: &Path,
    (copies, control): (&mut Copies, &mut Control),
    to: Lsn,
    options: &Options,
) -> Result<PathBuf, WalError> {
    let mark = CutMark { to, nonce: options.disk.nonce() };
    control.cut = Some(mark);
    control.history.cut(to);
    if !planted(Bug::DurableNotLowered) {
        control.durable = control.durable.min(to);
    }
    control.clamp_slots(to);
    copies.write(&*options.disk, control)?;
    finish(dir, mark, (copies, control), options)
}

/// Does, or does again, the cut that the control file speaks of.
pub(crate) fn finish(
    dir: &Path,
    mark: CutMark,
    (copies, control): (&mut Copies, &mut Control),
    options: &Options,
) -> Result<PathBuf, WalError> {
    let disk = &*options.disk;
    let salvage = salvage_dir(dir, options.salvage_dir.as_deref());
    let bundle = salvage.join(format!("{:020}-{:016x}", mark.to.get(), mark.nonce));
    disk.create_dir_all(&bundle).at("creating", &bundle)?;
    // Nothing moves into a folder whose own name a power cut could take.
    for dir in [folder_of(&salvage), &*salvage] {
        disk.sync_dir(dir).at("syncing", dir)?;
    }
    // The newest first: what is left is a log without a gap after every step.
    let mut bases = bases(disk, dir, control)?;
    bases.retain(|&base| base >= control.segment_size.base_of(before(mark.to)));
    if !planted(Bug::CutOldestFirst) {
        bases.reverse();
    }
    for base in bases {
        let name = file_name(base);
        let kept = bundle.join(&name);
        if mark.to <= SegmentSize::first_record(base) {
            // Not looked into: it may be one that nobody could open.
            disk.rename(&dir.join(&name), &kept).at("moving to", &kept)?;
            continue;
        }
        let file = SegmentFile::open(disk, dir, base, control)?;
        if mark.to < file.header.size.next_base(base) && file.header.nonce != mark.nonce {
            match disk.hard_link(&file.path, &kept) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).at("linking to", &kept);
                }
                _ => {}
            }
            // Before the name in the log goes, or a crash could take the only one.
            disk.sync_dir(&bundle).at("syncing", &bundle)?;
            replace(disk, dir, &file, mark)?;
        }
    }
    disk.sync_dir(&bundle).at("syncing", &bundle)?;
    disk.sync_dir(dir).at("syncing", dir)?;
    control.cut = None;
    if planted(Bug::CutMarkLeft) {
        return Ok(bundle);
    }
    copies.write(disk, control)?;
    Ok(bundle)
}

/// Where bundles go.
pub(crate) fn salvage_dir(dir: &Path, configured: Option<&Path>) -> PathBuf {
    configured.map_or_else(|| dir.join("salvage"), Path::to_owned)
}

/// Puts a fresh file with the records below the end in the place of `file`.
fn replace(disk: &dyn Disk, dir: &Path, file: &SegmentFile, mark: CutMark) -> Result<(), WalError> {
    let fresh = dir.join(FRESH_NAME);
    let header = SegmentHeader { nonce: mark.nonce, ..file.header };
    create(disk, &fresh, &header)?;
    let kept = reseeded(file, &header, mark.to)?;
    let out = disk.open(&fresh, Access::ReadWrite).at("opening", &fresh)?;
    out.write_at(&kept, SegmentSize::HEADER_LEN).at("writing", &fresh)?;
    if !planted(Bug::CutFileNotSynced) {
        out.sync().at("syncing", &fresh)?;
    }
    disk.rename(&fresh, &file.path).at("renaming over", &file.path)?;
    disk.sync_dir(dir).at("syncing", dir)
}

/// The records of `file` below `to`, under the header checksums of another file.
fn reseeded(file: &SegmentFile, header: &SegmentHeader, to: Lsn) -> Result<Vec<u8>, WalError> {
    let bytes = file.bytes()?;
    let seed = header.seed();
    let mut kept = Vec::new();
    let mut lsn = file.first();
    while lsn < to {
        let offset = usize::try_from(lsn.distance_from(file.base())).unwrap_or(usize::MAX);
        let (record, payload) = parse(&bytes, offset, lsn, file.seed)
            .map_err(|source| WalError::Record { at: lsn, source })?;
        let record = RecordHeader { sync_lsn: record.sync_lsn.min(to), ..record };
        kept.extend_from_slice(&record.encode(seed));
        kept.extend_from_slice(payload);
        let stored = usize::try_from(record.stored_len()).unwrap_or(usize::MAX);
        kept.resize(kept.len() + stored - RECORD_HEADER_LEN - payload.len(), 0);
        lsn = record.end();
    }
    Ok(kept)
}
