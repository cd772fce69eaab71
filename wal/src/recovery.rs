//! Opening a log: what is in it, what is torn, what is damaged.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::History;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_protocol::terms::Terms;

use crate::block::Block;
use crate::control::Control;
use crate::copies::{self, Copies};
use crate::cut;
use crate::disk::{Disk, DiskLock};
use crate::error::{AtPath, WalError};
use crate::log::Recovered;
use crate::newest::Newest;
use crate::planted::{Bug, planted};
use crate::provision::READY_SEGMENTS;
use crate::report::{Evidence, Report, Witness};
use crate::scan::{Behind, Scan, SegmentFile};
use crate::segment::Segment;
use crate::segments::Segments;
use crate::trim;
use crate::wal::Options;

/// So much is written again at a time, in bytes.
const REWRITE_LEN: u64 = 1 << 20;

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
    copies::read(disk, dir)?; // Before the lock file is made: an empty folder stays empty.
    let lock = take_lock(disk, dir)?;
    // A process that died may have left names that only the page cache holds. Nothing may be
    // flushed into a file whose name a power cut would take.
    if !planted(Bug::NamesFoundNotSynced) {
        disk.sync_dir(dir).at("syncing", dir)?;
    }
    let (mut copies, mut control, rewrite) = Copies::open(disk, dir)?;
    let finished_cut = match control.cut {
        Some(mark) => Some(cut::finish(dir, mark, (&mut copies, &mut control), options)?),
        None => None,
    };
    let in_memory = disk.is_in_memory(dir).at("asking for the file system of", dir)?;
    let mut report =
        Report { control_healed: rewrite, finished_cut, in_memory, ..Report::default() };
    let (newest, scan) = judge(dir, (&mut copies, &mut control), options, &mut report)?;
    // Only now that nothing is refused: files that a trim left behind may go.
    let leftovers = trim::below(disk, dir, control.oldest.base)?;
    report.finished_trim = trim::remove(disk, dir, &leftovers)?;
    // An epoch whose BARRIER was lost would come back once the log has grown past its place.
    let (history, slots) = (control.history.clone(), control.slots.clone());
    if !planted(Bug::EpochWithoutBarrier) {
        control.history.cut(scan.end);
    }
    control.clamp_slots(scan.end);
    if rewrite || history != control.history || slots != control.slots {
        copies.write(disk, &mut control)?;
    }
    let recovered =
        open_segments(dir, &options.disk, (copies, control), &newest, &scan, &mut report)?;
    report.scanned_bytes += newest.bytes_read();
    Ok((recovered, lock, report))
}

/// Reads the newest segments, and judges what ends them: a torn tail is cut off, and corruption
/// is an error.
fn judge(
    dir: &Path,
    (copies, control): (&mut Copies, &mut Control),
    options: &Options,
    report: &mut Report,
) -> Result<(Newest, Scan), WalError> {
    let disk = &*options.disk;
    let newest = Newest::open(disk, dir, control, options.expect_durable)?;
    let mut block = Block::new();
    let scan = newest.scan(options.threads, &mut block)?;
    let behind =
        Behind::look(newest.reached(control, &scan), (scan.end, scan.stopped), &mut block)?;
    let evidence = evidence(&newest.files, (&scan, &behind), control, options);
    (report.evidence, report.witness) = (evidence.durable, evidence.witness);
    report.end = scan.end;
    report.segments = newest.segments;
    report.discarded.clone_from(&newest.discarded);
    report.scanned_from = newest.files.get(newest.from).map_or(Lsn::ZERO, SegmentFile::first);
    if evidence.durable > scan.stopped {
        return Err(corrupt(dir, &newest.files, &scan, evidence.durable));
    }
    report.torn_bytes = behind.stored;
    if report.torn_bytes == 0 || planted(Bug::TornTailLeftInPlace) {
        return Ok((newest, scan));
    }
    report.torn = Some((scan.stopped, scan.why.clone()));
    // What the segments promise that go with the tail is kept, or damage below it would look like
    // a torn tail from then on.
    control.durable = control.durable.max(evidence.durable);
    report.bundle = Some(cut::apply(dir, (copies, control), scan.end, options)?);
    report.scanned_bytes += newest.bytes_read();
    drop(newest);
    let newest = Newest::open(disk, dir, control, options.expect_durable)?;
    let scan = newest.scan(options.threads, &mut Block::new())?;
    if scan.end != report.end {
        // With the segments that are gone went what they promise, so this scan began further
        // back, and met damage where the first one had no reason to look.
        return Err(corrupt(dir, &newest.files, &scan, report.end));
    }
    Ok((newest, scan))
}

impl Newest {
    /// Scans the records, and at the same time looks through the segment that should be the first
    /// behind them.
    fn scan(&self, threads: bool, block: &mut Block) -> Result<Scan, WalError> {
        let ready = self.files.len().checked_sub(READY_SEGMENTS).filter(|&at| threads && at > 0);
        std::thread::scope(|scope| {
            if let Some(at) = ready {
                let look = move || {
                    // Whoever asks for the answer asks again if there is none.
                    let _ = self.files[at].is_blank();
                };
                let _ = std::thread::Builder::new().spawn_scoped(scope, look);
            }
            Scan::run(&self.files, (self.from, 0), self.before, block)
        })
    }

    /// The files that can hold anything. A segment is entered only once it is noted that everything
    /// before the last one is durable; so nothing is further behind the place where the records end
    /// than in the next segment, or that place would be corruption.
    fn reached(&self, control: &Control, scan: &Scan) -> &[SegmentFile] {
        let Some(size) = self.files.first().map(|file| file.header.size) else { return &[] };
        // One that an epoch left early ends there, too: nothing before the next one is missing.
        let left = control.history.starts().iter().find(|it| it.previous_end == scan.end);
        let stopped = left.map_or(scan.stopped, |start| start.first.max(scan.stopped));
        let last = size.next_base(size.base_of(stopped));
        &self.files[..self.files.partition_point(|file| file.base() <= last)]
    }

    fn bytes_read(&self) -> u64 {
        self.files.iter().map(SegmentFile::bytes_read).sum()
    }
}

/// How far the log is known to have been durable, by everything that ever promised it.
fn evidence(
    files: &[SegmentFile],
    (scan, behind): (&Scan, &Behind),
    control: &Control,
    options: &Options,
) -> Evidence {
    let mut evidence = scan.promise.or(control.durable, Witness::Control);
    for file in files {
        evidence = evidence.or(file.header.durable, Witness::Segment(file.base()));
    }
    let promise = behind.promise;
    evidence.or(promise.durable, promise.witness).or(options.expect_durable, Witness::Caller)
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

/// Opens the segments, and takes to the disk what only the page cache may hold: after a failed
/// sync the kernel believes that pages are clean which never arrived. So everything valid past
/// the last promise is written again, and synced, before it counts as flushed.
fn open_segments(
    dir: &Path,
    disk: &Arc<dyn Disk>,
    (copies, control): (Copies, Control),
    newest: &Newest,
    scan: &Scan,
    report: &mut Report,
) -> Result<Recovered, WalError> {
    let mut segments = Vec::new();
    let mut ready = VecDeque::new();
    for (at, file) in newest.files.iter().enumerate() {
        let holds_records = at <= scan.tail && file.first() < scan.end;
        if !holds_records {
            if ready.len() < READY_SEGMENTS {
                let segment = Segment::open(disk, &file.path, true)?;
                // An epoch may have taken it by a header that a failed sync kept from the disk.
                if !planted(Bug::ReadyHeaderNotRewritten) {
                    segment.rewrite(file.base(), &file.header.encode())?;
                    segment.sync()?;
                }
                ready.push_back(Arc::new(segment));
            }
            continue;
        }
        let is_past_promise = file.header.size.next_base(file.base()) > report.evidence;
        if is_past_promise || at == scan.tail {
            let segment = Segment::open(disk, &file.path, at == scan.tail)?;
            if is_past_promise {
                report.rewritten_bytes += make_durable(file, &segment, report.evidence, scan)?;
            }
            segments.push(Arc::new(segment));
        }
    }
    let mut history = control.history.clone();
    for (first, barrier) in &scan.barriers {
        if history.start_of(barrier.epoch).is_none() {
            history.push(barrier.start(*first))?;
        }
    }
    let terms = terms_of(dir, &**disk, &history, &control)?;
    let tail = segments.last().map(Arc::clone);
    let names = (control.log, control.segment_size);
    let segments = Segments::new(disk, dir, names, control.oldest.base, segments);
    Ok(Recovered {
        control,
        copies,
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

/// Writes what lies past the promise again and syncs it; returns how much.
fn make_durable(
    file: &SegmentFile,
    segment: &Segment,
    promise: Lsn,
    scan: &Scan,
) -> Result<u64, WalError> {
    let mut written = 0;
    let from = promise.max(file.first());
    let to = scan.end.min(file.header.size.next_base(file.base()));
    if from < to && !planted(Bug::TailNotRewritten) {
        let offset = |at: Lsn| at.distance_from(file.base());
        while from.advance(written) < to {
            let at = from.advance(written);
            let valid = file.read(offset(at), offset(to).min(offset(at) + REWRITE_LEN))?;
            segment.rewrite(at, &valid)?;
            written += valid.len() as u64;
        }
        segment.rewrite(file.base(), &file.read(0, SegmentSize::HEADER_LEN)?)?;
        verify(file, (from, to), scan)?;
    }
    segment.sync()?;
    Ok(written)
}

/// Checks that there still are records from one place to another. The page cache may have dropped
/// what the disk does not hold between the scan and the rewriting, and drops no page that is to be
/// written.
fn verify(file: &SegmentFile, (from, to): (Lsn, Lsn), scan: &Scan) -> Result<(), WalError> {
    let mut block = Block::new();
    // The caller of opening may promise any place, also one inside a record.
    let mut at = if block.record(file, from)?.is_ok() { from } else { file.first() };
    while at < to {
        match block.record(file, at)? {
            Ok((header, _)) if header.kind == RecordKind::Seal => break,
            Ok((header, _)) => at = header.end(),
            Err(_) if scan.barriers.iter().any(|(_, next)| next.previous_end == at) => break,
            Err(source) => return Err(WalError::Record { at, source }),
        }
    }
    Ok(())
}

/// The terms of the log: the newest epoch's BARRIER says them.
fn terms_of(
    dir: &Path,
    disk: &dyn Disk,
    history: &History,
    control: &Control,
) -> Result<Terms, WalError> {
    let Some(newest) = history.starts().last() else {
        return Ok(Terms::founding(control.founding_voters.clone()));
    };
    if newest.first < trim::first_of(control) {
        return control.trimmed_terms.clone().ok_or(WalError::NoBoundary(newest.first));
    }
    let base = control.segment_size.base_of(newest.first);
    let file = SegmentFile::open(disk, dir, base, control)?;
    let corrupt = |what: String| WalError::Corrupt {
        path: file.path.clone(),
        at: newest.first,
        evidence: control.durable,
        what,
    };
    let mut block = Block::of_one();
    let record = block.record(&file, newest.first)?;
    let (_, payload) = record.map_err(|error| corrupt(error.to_string()))?;
    let barrier = Barrier::decode(payload).map_err(|error| corrupt(error.to_string()))?;
    Ok(barrier.terms)
}

#[cfg(test)]
mod tests;
