//! Reading a folder of segments as recovery and the read-only reader do: record after record, and
//! what stands behind the first one that is not valid.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use towline_protocol::barrier::Barrier;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{
    Digest, HeaderSeed, RECORD_ALIGN, RECORD_HEADER_LEN, RecordError, RecordHeader, RecordKind,
};

use crate::disk::{Access, Disk, DiskFile};
use crate::error::{AtPath, WalError};
use crate::header::{HEADER_PAGE_LEN, SegmentHeader};
use crate::planted::{Bug, planted};
use crate::segment::read_header;

/// A segment's file, open for reading.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) seed: HeaderSeed,
    file: Arc<dyn DiskFile>,
    len: u64,
}

impl SegmentFile {
    fn open(disk: &dyn Disk, path: PathBuf) -> Result<Self, WalError> {
        let file = disk.open(&path, Access::Read).at("opening", &path)?;
        let header = read_header(&*file, &path)?;
        let len = file.len().at("reading", &path)?;
        if len != header.size.bytes() {
            // No crash does that: a file gets its name only once it has its whole length.
            let (end, size) = (header.base.advance(len), header.size.bytes());
            let what =
                format!("it has {len} of {size} bytes; what follows on Lsn {end} is missing");
            return Err(WalError::Foreign { path, what });
        }
        Ok(Self { path, header, seed: header.seed(), file, len })
    }

    pub(crate) const fn base(&self) -> Lsn {
        self.header.base
    }

    pub(crate) const fn first(&self) -> Lsn {
        SegmentSize::first_record(self.header.base)
    }

    /// The whole file; at most a segment's size.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, WalError> {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, 0).at("reading", &self.path)?;
        Ok(bytes)
    }

    /// The record at `lsn`.
    pub(crate) fn record(&self, lsn: Lsn) -> Result<Result<Parsed, RecordError>, WalError> {
        let offset = lsn.distance_from(self.base());
        let mut header = [0; RECORD_HEADER_LEN];
        if offset + RECORD_HEADER_LEN as u64 > self.len {
            return Ok(Err(RecordError::Short));
        }
        self.file.read_exact_at(&mut header, offset).at("reading", &self.path)?;
        let header = match RecordHeader::decode(&header, lsn, self.seed) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        if offset + header.stored_len() > self.len {
            return Ok(Err(RecordError::Short));
        }
        let mut payload = vec![0; header.len as usize];
        let at = offset + RECORD_HEADER_LEN as u64;
        self.file.read_exact_at(&mut payload, at).at("reading", &self.path)?;
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

/// Every segment of a folder in order, each following on the one before.
pub(crate) fn segment_files(
    disk: &dyn Disk,
    dir: &Path,
    log: towline_protocol::id::LogId,
    size: SegmentSize,
) -> Result<Vec<SegmentFile>, WalError> {
    let mut paths = disk.list(dir).at("reading", dir)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    paths.sort();
    let mut files: Vec<SegmentFile> = Vec::new();
    for path in paths {
        let file = SegmentFile::open(disk, path)?;
        let foreign = |what: String| Err(WalError::Foreign { path: file.path.clone(), what });
        let header = file.header;
        if header.log != log {
            return foreign(format!("it is of log {}, this is log {log}", header.log));
        }
        if header.size != size {
            let (is, says) = (header.size.bytes(), size.bytes());
            return foreign(format!("its segments have {is} bytes, this log's {says}"));
        }
        let named = file.path.file_name().is_some_and(|name| {
            name.to_str() == Some(crate::segment::file_name(header.base).as_str())
        });
        if !named {
            return foreign(format!("its header says that it is segment {}", header.base));
        }
        if let Some(before) = files.last() {
            let expected = size.next_base(before.base());
            if header.base != expected {
                return Err(WalError::MissingSegment { dir: dir.to_owned(), base: expected });
            }
        }
        files.push(file);
    }
    Ok(files)
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
    pub(crate) promise: Lsn,
    /// BARRIERs that were met, and where they lie.
    pub(crate) barriers: Vec<(Lsn, Barrier)>,
    /// Where the next record would lie in the file that holds the newest one.
    pub(crate) stopped: Lsn,
    /// What is there instead.
    pub(crate) why: String,
}

impl Scan {
    /// Scans from the beginning of `files[from]`, given the end of what is before it, its digest,
    /// and whether it ends in a SEAL.
    /// `each` sees every valid record.
    pub(crate) fn run(
        files: &[SegmentFile],
        from: usize,
        (end, digest, sealed): (Lsn, Digest, bool),
        mut each: impl FnMut(&SegmentFile, &RecordHeader, &[u8]),
    ) -> Result<Self, WalError> {
        let mut scan = Self {
            end,
            tail: from,
            sealed,
            digest,
            promise: Lsn::ZERO,
            barriers: Vec::new(),
            stopped: files.get(from).map_or(Lsn::ZERO, SegmentFile::first),
            why: "there is no segment".to_owned(),
        };
        for (at, file) in files.iter().enumerate().skip(from) {
            let bytes = file.bytes()?;
            let goes_on = scan.segment(at, file, &bytes, &mut each);
            let next = files.get(at + 1).filter(|_| goes_on);
            let Some(next) = next else { break };
            if !scan.sealed && !next.follows(scan.end, scan.digest)? {
                break;
            }
        }
        Ok(scan)
    }

    /// Scans one segment; `false` if it holds no valid record, so that nothing can follow.
    fn segment(
        &mut self,
        at: usize,
        file: &SegmentFile,
        bytes: &[u8],
        each: &mut impl FnMut(&SegmentFile, &RecordHeader, &[u8]),
    ) -> bool {
        let mut lsn = file.first();
        loop {
            let offset = usize::try_from(lsn.distance_from(file.base())).unwrap_or(usize::MAX);
            let parsed = parse(bytes, offset, lsn, file.seed)
                .map_err(|error| error.to_string())
                .and_then(|record| self.check(file, record));
            let (header, payload) = match parsed {
                Ok(record) => record,
                Err(why) => {
                    self.stopped = lsn;
                    self.why = why;
                    return lsn > file.first();
                }
            };
            each(file, &header, payload);
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
    fn check<'a>(
        &mut self,
        file: &SegmentFile,
        (header, payload): (RecordHeader, &'a [u8]),
    ) -> Result<(RecordHeader, &'a [u8]), String> {
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
        Ok((header, payload))
    }

    fn take(&mut self, at: usize, header: RecordHeader) {
        self.tail = at;
        self.end = header.end();
        self.digest = self.digest.with(&header);
        self.promise = self.promise.max(header.sync_lsn);
        self.sealed = header.kind == RecordKind::Seal;
    }
}

/// The highest promise of any valid header at or behind `from`: of records at every place one
/// could lie, and of the segments' own headers.
pub(crate) fn promises_behind(files: &[SegmentFile], from: Lsn) -> Result<Lsn, WalError> {
    let mut promise = Lsn::ZERO;
    if planted(Bug::PromisesBehindIgnored) {
        return Ok(promise);
    }
    for file in files {
        let end = file.header.size.next_base(file.base());
        if end <= from {
            continue;
        }
        if file.base() >= from {
            promise = promise.max(file.header.durable);
        }
        let bytes = file.bytes()?;
        let start = from.max(file.first()).distance_from(file.base());
        let start = usize::try_from(start.next_multiple_of(RECORD_ALIGN)).unwrap_or(usize::MAX);
        for offset in (start..bytes.len().saturating_sub(RECORD_HEADER_LEN - 1))
            .step_by(RECORD_ALIGN as usize)
        {
            let lsn = file.base().advance(offset as u64);
            if let Ok(header) = RecordHeader::decode(&bytes[offset..], lsn, file.seed) {
                promise = promise.max(header.sync_lsn);
            }
        }
    }
    Ok(promise)
}

/// Whether a file holds nothing but zeros behind `from`.
pub(crate) fn is_blank_behind(file: &SegmentFile, from: Lsn) -> Result<bool, WalError> {
    let bytes = file.bytes()?;
    let offset = from.max(file.first()).distance_from(file.base());
    let offset = usize::try_from(offset).unwrap_or(usize::MAX).max(HEADER_PAGE_LEN);
    Ok(is_blank(bytes.get(offset..).unwrap_or_default()))
}

/// Whether all bytes are zero. A chunk is looked at as a whole: many times as fast as byte by byte.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|chunk| chunk.iter().fold(0, |any, &byte| any | byte) == 0)
}
