//! Reading a folder of segments as recovery and the read-only reader do: record after record, and
//! what stands behind the first one that is not valid.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use towline_protocol::barrier::Barrier;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{
    Digest, HeaderSeed, RECORD_ALIGN, RECORD_HEADER_LEN, RecordError, RecordHeader, RecordKind,
};

use crate::control::Control;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::{AtPath, WalError};
use crate::header::{HEADER_PAGE_LEN, SegmentHeader};
use crate::newest::Before;
use crate::planted::{Bug, planted};
use crate::report::{Evidence, Witness};
use crate::segment::{file_name, read_header};

/// A segment's file, open for reading.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) seed: HeaderSeed,
    file: Arc<dyn DiskFile>,
    len: u64,
    /// The whole file, from when it was first read until it is forgotten.
    bytes: Mutex<Option<Arc<Vec<u8>>>>,
    /// How many bytes of it were read.
    read: AtomicU64,
}

impl SegmentFile {
    /// Opens the file of the segment at `base`, and checks that it is of this log and place.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        base: Lsn,
        control: &Control,
    ) -> Result<Self, WalError> {
        let path = dir.join(file_name(base));
        let file = match disk.open(&path, Access::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(WalError::MissingSegment { dir: dir.to_owned(), base });
            }
            opened => opened.at("opening", &path)?,
        };
        let header = read_header(&*file, &path)?;
        header.check_place(&path, control.log, control.segment_size)?;
        let len = file.len().at("reading", &path)?;
        if len != header.size.bytes() {
            // No crash does that: a file gets its name only once it has its whole length.
            let (end, size) = (header.base.advance(len), header.size.bytes());
            let what =
                format!("it has {len} of {size} bytes; what follows on Lsn {end} is missing");
            return Err(WalError::Foreign { path, what });
        }
        let read = AtomicU64::new(HEADER_PAGE_LEN as u64);
        let seed = header.seed();
        Ok(Self { path, header, seed, file, len, bytes: Mutex::default(), read })
    }

    /// How many bytes of the file were read.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(crate) const fn base(&self) -> Lsn {
        self.header.base
    }

    pub(crate) const fn first(&self) -> Lsn {
        SegmentSize::first_record(self.header.base)
    }

    /// The whole file; at most a segment's size.
    pub(crate) fn bytes(&self) -> Result<Arc<Vec<u8>>, WalError> {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &*held {
            return Ok(Arc::clone(bytes));
        }
        let bytes = Arc::new(self.read(0, self.len)?);
        *held = Some(Arc::clone(&bytes));
        Ok(bytes)
    }

    /// Lets go of the file's bytes.
    pub(crate) fn forget(&self) {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// What lies between two offsets, or up to the file's end.
    pub(crate) fn read(&self, from: u64, to: u64) -> Result<Vec<u8>, WalError> {
        let len = to.min(self.len).saturating_sub(from);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, from).at("reading", &self.path)?;
        self.read.fetch_add(len, Ordering::Relaxed);
        Ok(bytes)
    }

    /// The record at `lsn`.
    pub(crate) fn record(&self, lsn: Lsn) -> Result<Result<Parsed, RecordError>, WalError> {
        let offset = lsn.distance_from(self.base());
        if offset + RECORD_HEADER_LEN as u64 > self.len {
            return Ok(Err(RecordError::Short));
        }
        let behind = offset + RECORD_HEADER_LEN as u64;
        let header = match RecordHeader::decode(&self.read(offset, behind)?, lsn, self.seed) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        if offset + header.stored_len() > self.len {
            return Ok(Err(RecordError::Short));
        }
        let payload = self.read(behind, behind + u64::from(header.len))?;
        Ok(header.check_payload(&payload).map(|()| Parsed { header, payload }))
    }
}

impl SegmentFile {
    /// Whether the file begins with a BARRIER that says that the epoch before it ended at `end`.
    pub(crate) fn follows(&self, end: Lsn, digest: Digest) -> Result<bool, WalError> {
        let Ok(record) = self.record(self.first())? else { return Ok(false) };
        let barrier = Barrier::decode(&record.payload).ok();
        let ended = |barrier: Barrier| {
            barrier.previous_end == end && barrier.digest == digest
                || planted(Bug::BarrierFollowsAnything)
        };
        Ok(record.header.kind == RecordKind::Barrier && barrier.is_some_and(ended))
    }
}

/// A valid record.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) header: RecordHeader,
    pub(crate) payload: Vec<u8>,
}

/// The record that begins at `offset` of a segment's bytes.
pub(crate) fn parse(
    bytes: &[u8],
    offset: usize,
    lsn: Lsn,
    seed: HeaderSeed,
) -> Result<(RecordHeader, &[u8]), RecordError> {
    let rest = bytes.get(offset..).ok_or(RecordError::Short)?;
    let header = RecordHeader::decode(rest, lsn, seed)?;
    let payload = rest
        .get(RECORD_HEADER_LEN..RECORD_HEADER_LEN + header.len as usize)
        .ok_or(RecordError::Short)?;
    if !planted(Bug::PayloadNotChecked) {
        header.check_payload(payload)?;
    }
    Ok((header, payload))
}

/// The valid records of some segments, and where and why they end.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The end of the newest valid record; [`Lsn::ZERO`] if there is none.
    pub(crate) end: Lsn,
    /// Which of the files holds it.
    pub(crate) tail: usize,
    /// Whether that record is a SEAL.
    pub(crate) sealed: bool,
    pub(crate) digest: Digest,
    /// The highest promise of any valid record.
    pub(crate) promise: Evidence,
    /// BARRIERs that were met, and where they lie.
    pub(crate) barriers: Vec<(Lsn, Barrier)>,
    /// Where the next record would lie in the file that holds the newest one.
    pub(crate) stopped: Lsn,
    /// What is there instead.
    pub(crate) why: String,
}

impl Scan {
    /// Scans from the beginning of `files[from]`, given what is before it; `files[tail]` holds the
    /// end of that.
    pub(crate) fn run(
        files: &[SegmentFile],
        (from, tail): (usize, usize),
        before: Before,
    ) -> Result<Self, WalError> {
        let mut scan = Self {
            end: before.end,
            tail,
            sealed: before.sealed,
            digest: before.digest,
            promise: Evidence::default(),
            barriers: Vec::new(),
            stopped: files.get(from).map_or(Lsn::ZERO, SegmentFile::first),
            why: "there is no segment".to_owned(),
        };
        for (at, file) in files.iter().enumerate().skip(from) {
            let goes_on = scan.segment(at, file, &file.bytes()?);
            let next = files.get(at + 1).filter(|_| goes_on);
            let Some(next) = next else { break };
            if !scan.sealed && !next.follows(scan.end, scan.digest)? {
                break;
            }
            file.forget();
        }
        Ok(scan)
    }

    /// Scans one segment; `false` if it holds no valid record, so that nothing can follow.
    fn segment(&mut self, at: usize, file: &SegmentFile, bytes: &[u8]) -> bool {
        let mut lsn = file.first();
        loop {
            let offset = usize::try_from(lsn.distance_from(file.base())).unwrap_or(usize::MAX);
            let parsed = parse(bytes, offset, lsn, file.seed)
                .map_err(|error| error.to_string())
                .and_then(|record| self.check(file, record));
            let header = match parsed {
                Ok(header) => header,
                Err(why) => {
                    self.stopped = lsn;
                    self.why = why;
                    return lsn > file.first();
                }
            };
            self.take(at, header);
            lsn = header.end();
            if self.sealed {
                self.stopped = SegmentSize::first_record(file.header.size.next_base(file.base()));
                self.why = "the next segment has no records".to_owned();
                return true;
            }
        }
    }

    /// Checks what only the position and the digest so far can tell.
    fn check(
        &mut self,
        file: &SegmentFile,
        (header, payload): (RecordHeader, &[u8]),
    ) -> Result<RecordHeader, String> {
        let first = header.lsn == file.first();
        match header.kind {
            RecordKind::Barrier => {
                let barrier = Barrier::decode(payload).map_err(|error| error.to_string())?;
                let follows = barrier.epoch == file.header.epoch
                    && barrier.previous_end == self.end
                    && barrier.digest == self.digest
                    || planted(Bug::BarrierFollowsAnything);
                if !first || !follows {
                    return Err("a BARRIER that does not follow on the log before it".to_owned());
                }
                self.barriers.push((header.lsn, barrier));
            }
            RecordKind::Seal if payload != self.digest.0.to_le_bytes() => {
                return Err("a SEAL with another digest".to_owned());
            }
            // Without its SEAL, what is before it need not be whole.
            _ if first && !self.sealed => {
                return Err("a segment that nothing leads to".to_owned());
            }
            _ => {}
        }
        Ok(header)
    }

    fn take(&mut self, at: usize, header: RecordHeader) {
        self.tail = at;
        self.end = header.end();
        self.digest = self.digest.with(&header);
        self.promise = self.promise.or(header.sync_lsn, Witness::Record(header.lsn));
        self.sealed = header.kind == RecordKind::Seal;
    }
}

/// The highest promise of any valid header at or behind `from`: of records at every place one
/// could lie, and of the segments' own headers.
pub(crate) fn promises_behind(files: &[SegmentFile], from: Lsn) -> Result<Evidence, WalError> {
    let mut promise = Evidence::default();
    if planted(Bug::PromisesBehindIgnored) {
        return Ok(promise);
    }
    for file in files {
        let end = file.header.size.next_base(file.base());
        if end <= from {
            continue;
        }
        if file.base() >= from {
            promise = promise.or(file.header.durable, Witness::Segment(file.base()));
        }
        let bytes = file.bytes()?;
        let start = from.max(file.first()).distance_from(file.base());
        let start = usize::try_from(start.next_multiple_of(RECORD_ALIGN)).unwrap_or(usize::MAX);
        for offset in (start..bytes.len().saturating_sub(RECORD_HEADER_LEN - 1))
            .step_by(RECORD_ALIGN as usize)
        {
            let lsn = file.base().advance(offset as u64);
            if let Ok(header) = RecordHeader::decode(&bytes[offset..], lsn, file.seed) {
                promise = promise.or(header.sync_lsn, Witness::Record(lsn));
            }
        }
    }
    Ok(promise)
}

/// How many bytes lie behind `from` in a file, up to the last one that is not zero.
pub(crate) fn stored_behind(file: &SegmentFile, from: Lsn) -> Result<u64, WalError> {
    const BLOCK_LEN: usize = 4096;
    let bytes = file.bytes()?;
    let offset = from.max(file.first()).distance_from(file.base());
    let offset = usize::try_from(offset).unwrap_or(usize::MAX).max(HEADER_PAGE_LEN);
    let mut rest = bytes.get(offset..).unwrap_or_default();
    while let Some((before, block)) = rest.split_at_checked(rest.len().saturating_sub(BLOCK_LEN)) {
        if block.is_empty() || !is_blank(block) {
            break;
        }
        rest = before;
    }
    let last = rest.iter().rposition(|&byte| byte != 0);
    Ok(last.map_or(0, |last| last as u64 + 1))
}

/// Whether all bytes are zero. A chunk is looked at as a whole: many times as fast as byte by byte.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|chunk| chunk.iter().fold(0, |any, &byte| any | byte) == 0)
}
