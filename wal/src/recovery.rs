//! Opening a log: what is in it, what is torn, what is damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::History;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{Digest, RECORD_HEADER_LEN, RecordHeader, RecordKind};
use towline_protocol::terms::Terms;

use crate::control::{self, Control};
use crate::cut;
use crate::disk::{Disk, DiskLock};
use crate::error::{AtPath, WalError};
use crate::header::HEADER_PAGE_LEN;
use crate::log::Recovered;
use crate::planted::{Bug, planted};
use crate::scan::{Scan, SegmentFile, is_blank_behind, promises_behind, segment_files};
use crate::segment::Segment;
use crate::wal::Options;

/// What opening found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The end of the newest record; [`Lsn::ZERO`] if there is none.
    pub end: Lsn,
    /// Everything below was known to be durable before.
    pub evidence: Lsn,
    /// Where a torn tail was cut off, and what was there.
    pub torn: Option<(Lsn, String)>,
    /// Where the torn tail is kept.
    pub bundle: Option<PathBuf>,
    /// How long it took; not measured for a log without threads.
    pub took: Duration,
}

/// Takes a folder's lock, or says that somebody else has it.
pub(crate) fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DiskLock>, WalError> {
    let path = dir.join("lock");
    match disk.lock(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(WalError::Locked(dir.to_owned()))
        }
        lock => lock.at("locking", &path),
    }
}

/// Recovers a folder's log, and returns the lock on it.
pub(crate) fn recover(
    dir: &Path,
    options: &Options,
) -> Result<(Recovered, Box<dyn DiskLock>, Report), WalError> {
    let disk = &*options.disk;
    control::read(disk, dir)?; // Before the lock file is made: an empty folder stays empty.
    let lock = take_lock(disk, dir)?;
    // A process that died may have left names that only the page cache holds. Nothing may be
    // flushed into a file whose name a power cut would take.
    if !planted(Bug::NamesFoundNotSynced) {
        disk.sync_dir(dir).at("syncing", dir)?;
    }
    let (mut control, rewrite) = control::read(disk, dir)?;
    cut::finish(dir, &mut control, options)?;
    let mut files = segment_files(disk, dir, control.log, control.segment_size)?;
    let mut scan = scan_tail(&files, &control)?;
    let mut report = Report { end: scan.end, ..Report::default() };
    report.evidence = evidence(&files, &scan, &control, options)?;
    if report.evidence > scan.stopped {
        return Err(corrupt(dir, &files, &scan, report.evidence));
    }
    if !is_clean(&files, &scan)? && !planted(Bug::TornTailLeftInPlace) {
        report.torn = Some((scan.stopped, scan.why.clone()));
        report.bundle = Some(cut::apply(dir, &mut control, scan.end, options)?);
        files = segment_files(disk, dir, control.log, control.segment_size)?;
        scan = scan_tail(&files, &control)?;
        if scan.end != report.end {
            // With the segments that are gone went what they promise, so this scan began further
            // back, and met damage where the first one had no reason to look.
            return Err(corrupt(dir, &files, &scan, report.end));
        }
    }
    // An epoch whose BARRIER was lost would come back once the log has grown past its place.
    let mut history = control.history.clone();
    if !planted(Bug::EpochWithoutBarrier) {
        history.cut(scan.end);
    }
    if rewrite || history != control.history {
        control.history = history;
        control::write(disk, dir, &mut control)?;
    }
    let recovered = open_segments(&options.disk, control, &files, &scan, report.evidence)?;
    Ok((recovered, lock, report))
}

/// Scans what may not be on the disk, and a segment before it.
fn scan_tail(files: &[SegmentFile], control: &Control) -> Result<Scan, WalError> {
    if let Some(first) = files.first().filter(|first| first.base() != Lsn::ZERO) {
        let dir = first.path.parent().unwrap_or(Path::new("")).to_owned();
        return Err(WalError::MissingSegment { dir, base: Lsn::ZERO });
    }
    let made_ready = files.iter().map(|file| file.header.durable);
    let durable = made_ready.fold(control.durable, Lsn::max);
    let holds = files.iter().rposition(|file| file.base() <= durable).unwrap_or(0);
    for from in (0..holds).rev() {
        if let Some(before) = state_before(files, from)? {
            return Scan::run(files, from, before, |_, _, _| {});
        }
    }
    Scan::run(files, 0, (Lsn::ZERO, Digest::EMPTY, false), |_, _, _| {})
}

/// The end, the digest and the seal of everything before a segment, if its own BARRIER or the
/// SEAL before it tells.
fn state_before(files: &[SegmentFile], at: usize) -> Result<Option<(Lsn, Digest, bool)>, WalError> {
    let file = &files[at];
    if let Ok(record) = file.record(file.first())? {
        if record.header.kind == RecordKind::Barrier {
            let barrier = Barrier::decode(&record.payload).ok();
            return Ok(barrier.map(|it| (it.previous_end, it.digest, false)));
        }
    }
    let Some(before) = at.checked_sub(1).map(|before| &files[before]) else { return Ok(None) };
    let bytes = before.bytes()?;
    let mut lsn = before.first();
    loop {
        let offset = usize::try_from(lsn.distance_from(before.base())).unwrap_or(usize::MAX);
        let rest = bytes.get(offset..).unwrap_or_default();
        let Ok(header) = RecordHeader::decode(rest, lsn, before.seed) else { return Ok(None) };
        if header.kind == RecordKind::Seal {
            let payload = rest.get(RECORD_HEADER_LEN..RECORD_HEADER_LEN + header.len as usize);
            let payload = payload.filter(|payload| header.check_payload(payload).is_ok());
            let sealed = payload.and_then(|payload| payload.first_chunk());
            let digest = sealed.map(|digest| Digest(u64::from_le_bytes(*digest)).with(&header));
            return Ok(digest.map(|digest| (header.end(), digest, true)));
        }
        lsn = header.end();
    }
}

/// How far the log is known to have been durable, by everything that ever promised it.
fn evidence(
    files: &[SegmentFile],
    scan: &Scan,
    control: &Control,
    options: &Options,
) -> Result<Lsn, WalError> {
    let made_ready = files.iter().map(|file| file.header.durable).fold(Lsn::ZERO, Lsn::max);
    let behind = promises_behind(files, scan.stopped)?;
    Ok(behind.max(made_ready).max(scan.promise).max(control.durable).max(options.expect_durable))
}

fn corrupt(dir: &Path, files: &[SegmentFile], scan: &Scan, evidence: Lsn) -> WalError {
    let holds = |file: &&SegmentFile| {
        file.base() <= scan.stopped && scan.stopped < file.header.size.next_base(file.base())
    };
    match files.iter().find(holds) {
        Some(file) => WalError::Corrupt {
            path: file.path.clone(),
            at: scan.stopped,
            evidence,
            what: scan.why.clone(),
        },
        None => {
            let last = files.last();
            let base = last.map_or(Lsn::ZERO, |file| file.header.size.next_base(file.base()));
            WalError::MissingSegment { dir: dir.to_owned(), base }
        }
    }
}

/// Whether nothing but zeros follows on the newest record, so that the log can go on in place.
fn is_clean(files: &[SegmentFile], scan: &Scan) -> Result<bool, WalError> {
    for file in files.iter().skip(scan.tail) {
        if !is_blank_behind(file, scan.end)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens the segments, and takes to the disk what only the page cache may hold: after a failed
/// sync the kernel believes that pages are clean which never arrived. So everything valid past
/// the last promise is written again, and synced, before it counts as flushed.
fn open_segments(
    disk: &Arc<dyn Disk>,
    control: Control,
    files: &[SegmentFile],
    scan: &Scan,
    promise: Lsn,
) -> Result<Recovered, WalError> {
    let mut segments = BTreeMap::new();
    let mut ready = None;
    for (at, file) in files.iter().enumerate() {
        let holds_records = at <= scan.tail && file.first() < scan.end;
        if !holds_records {
            if ready.is_none() {
                let segment = Segment::open(disk, &file.path, true)?;
                // An epoch may have taken it by a header that a failed sync kept from the disk.
                if !planted(Bug::ReadyHeaderNotRewritten) {
                    segment.rewrite(file.base(), &file.header.encode())?;
                    segment.sync()?;
                }
                ready = Some(Arc::new(segment));
            }
            continue;
        }
        let segment = Segment::open(disk, &file.path, at == scan.tail)?;
        if file.header.size.next_base(file.base()) > promise {
            make_durable(file, &segment, promise, scan.end)?;
        }
        segments.insert(file.base(), Arc::new(segment));
    }
    let mut history = control.history.clone();
    if !planted(Bug::EpochWithoutBarrier) {
        history.cut(scan.end);
    }
    for (first, barrier) in &scan.barriers {
        if history.start_of(barrier.epoch).is_none() {
            history.push(barrier.start(*first))?;
        }
    }
    let terms = terms_of(files, &history, &control)?;
    let tail = segments.last_key_value().map(|(_, segment)| Arc::clone(segment));
    Ok(Recovered {
        control,
        segments,
        tail,
        end: scan.end,
        sealed: scan.sealed,
        digest: scan.digest,
        history,
        terms,
        ready,
    })
}

fn make_durable(
    file: &SegmentFile,
    segment: &Segment,
    promise: Lsn,
    end: Lsn,
) -> Result<(), WalError> {
    let from = promise.max(file.first());
    let to = end.min(file.header.size.next_base(file.base()));
    if from < to && !planted(Bug::TailNotRewritten) {
        let bytes = file.bytes()?;
        let offset =
            |lsn: Lsn| usize::try_from(lsn.distance_from(file.base())).unwrap_or(usize::MAX);
        let valid = bytes.get(offset(from)..offset(to).min(bytes.len())).unwrap_or_default();
        segment.rewrite(from, valid)?;
        segment.rewrite(file.base(), bytes.get(..HEADER_PAGE_LEN).unwrap_or_default())?;
    }
    segment.sync()
}

/// The terms of the log: the newest epoch's BARRIER says them.
fn terms_of(
    files: &[SegmentFile],
    history: &History,
    control: &Control,
) -> Result<Terms, WalError> {
    let Some(newest) = history.starts().last() else {
        return Ok(Terms::founding(control.founding_voters.clone()));
    };
    let holds = |file: &&SegmentFile| SegmentSize::first_record(file.base()) == newest.first;
    let missing = || WalError::NoBoundary(newest.first);
    let file = files.iter().find(holds).ok_or_else(missing)?;
    let record = file
        .record(newest.first)?
        .map_err(|source| WalError::Record { at: newest.first, source })?;
    let barrier = Barrier::decode(&record.payload).map_err(|error| WalError::Corrupt {
        path: file.path.clone(),
        at: newest.first,
        evidence: control.durable,
        what: error.to_string(),
    })?;
    Ok(barrier.terms)
}

#[cfg(test)]
mod tests;
