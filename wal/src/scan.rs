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

use crate::block::Block;
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
    /// Whether there is nothing but zeros behind the header, once somebody looked.
    blank: Mutex<Option<bool>>,
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
        Ok(Self { path, header, seed, file, len, blank: Mutex::default(), read })
    }

    /// As [`SegmentFile::open`]; `None` if the file is damaged, cut short, another's or not there.
    ///
    /// # Errors
    /// What else keeps it from being read: it may be whole.
    pub(crate) fn open_whole(
        disk: &dyn Disk,
        dir: &Path,
        base: Lsn,
        control: &Control,
    ) -> Result<Option<Self>, WalError> {
        match Self::open(disk, dir, base, control) {
            Err(error) if error.is_damage() => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// How many bytes the file has.
    pub(crate) const fn len(&self) -> u64 {
        self.len
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
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, WalError> {
        self.read(0, self.len)
    }

    /// Fills `bytes` with what lies at `offset`, as far as the file goes; returns how much it is.
    pub(crate) fn read_into(&self, bytes: &mut [u8], offset: u64) -> Result<usize, WalError> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(bytes.len());
        self.file.read_exact_at(&mut bytes[..len], offset).at("reading", &self.path)?;
        self.read.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }

    /// Whether there is nothing but zeros behind the header. Looked at once, whoever asks.
    pub(crate) fn is_blank(&self) -> Result<bool, WalError> {
        let mut blank = self.blank.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(blank) = *blank {
            return Ok(blank);
        }
        let (mut block, mut offset) = (Block::new(), SegmentSize::HEADER_LEN);
        let mut is_blank_so_far = true;
        while is_blank_so_far && offset < self.len {
            let piece = block.at(self, offset, 1)?;
            is_blank_so_far = is_blank(piece);
            offset += piece.len() as u64;
        }
        *blank = Some(is_blank_so_far);
        Ok(is_blank_so_far)
    }

    /// What lies between two offsets, or up to the file's end.
    pub(crate) fn read(&self, from: u64, to: u64) -> Result<Vec<u8>, WalError> {
        let len = to.min(self.len).saturating_sub(from);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.read_into(&mut bytes, from)?;
        Ok(bytes)
    }

    /// Whether the file begins with a BARRIER that says that the epoch before it ended at `end`.
    pub(crate) fn follows(&self, end: Lsn, digest: Digest) -> Result<bool, WalError> {
        let mut block = Block::of_one();
        let Ok((header, payload)) = block.record(self, self.first())? else { return Ok(false) };
        let barrier = Barrier::decode(payload).ok();
        let ended = |barrier: Barrier| {
            barrier.previous_end == end && barrier.digest == digest
                || planted(Bug::BarrierFollowsAnything)
        };
        Ok(header.kind == RecordKind::Barrier && barrier.is_some_and(ended))
    }
}

/// The record that begins at `offset` of a segment's bytes.
pub(crate) fn parse(
    bytes: &[u8],
    offset: usize,
    lsn: Lsn,
    seed: HeaderSeed,
) -> Result<(RecordHeader, &[u8]), RecordError> {
    let rest = bytes.get(offset..).unwrap_or_default();
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
        block: &mut Block,
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
            let goes_on = scan.segment(at, file, block)?;
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
        block: &mut Block,
    ) -> Result<bool, WalError> {
        let mut lsn = file.first();
        loop {
            let parsed = block
                .record(file, lsn)?
                .map_err(|error| error.to_string())
                .and_then(|record| self.check(file, record));
            let header = match parsed {
                Ok(header) => header,
                Err(why) => {
                    self.stopped = lsn;
                    self.why = why;
                    return Ok(lsn > file.first());
                }
            };
            self.take(at, header);
            lsn = header.end();
            if self.sealed {
                self.stopped = SegmentSize::first_record(file.header.size.next_base(file.base()));
                self.why = "the next segment has no records".to_owned();
                return Ok(true);
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

/// So much is skipped at once if it is blank, in bytes.
const CHUNK_LEN: usize = 4096;

/// What lies behind the newest record.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// The highest promise of any valid header: of records at every place one could lie, and of the
    /// segments' own headers.
    pub(crate) promise: Evidence,
    /// How many bytes there are, in each file up to the last one that is not zero.
    pub(crate) stored: u64,
}

impl Behind {
    /// Looks behind `end`, the end of the newest record; promises are taken from `stopped` on, the
    /// place where the next one should lie.
    pub(crate) fn look(
        files: &[SegmentFile],
        (end, stopped): (Lsn, Lsn),
        block: &mut Block,
    ) -> Result<Self, WalError> {
        let mut behind = Self::default();
        for file in files {
            if file.header.size.next_base(file.base()) <= end {
                continue;
            }
            if file.base() >= stopped {
                behind.promised(file.header.durable, Witness::Segment(file.base()));
            }
            let from = end.max(file.first());
            if from > file.first() || !file.is_blank()? {
                behind.look_into(file, (from, stopped), block)?;
            }
        }
        Ok(behind)
    }

    fn promised(&mut self, durable: Lsn, witness: Witness) {
        if !planted(Bug::PromisesBehindIgnored) {
            self.promise = self.promise.or(durable, witness);
        }
    }

    fn look_into(
        &mut self,
        file: &SegmentFile,
        (from, stopped): (Lsn, Lsn),
        block: &mut Block,
    ) -> Result<(), WalError> {
        let from = from.distance_from(file.base()).next_multiple_of(RECORD_ALIGN);
        let (mut offset, mut stored) = (from, 0);
        while offset < file.len {
            let piece = block.at(file, offset, RECORD_HEADER_LEN)?;
            for (chunk, at) in piece.chunks(CHUNK_LEN).zip((0..).step_by(CHUNK_LEN)) {
                // Where a header could begin there is an Lsn, and it is not zero.
                if is_blank(chunk) {
                    continue;
                }
                let last = chunk.iter().rposition(|&byte| byte != 0).unwrap_or_default();
                stored = offset - from + (at + last) as u64 + 1;
                for at in (at..at + chunk.len()).step_by(RECORD_ALIGN as usize) {
                    let lsn = file.base().advance(offset + at as u64);
                    let header = RecordHeader::decode(&piece[at..], lsn, file.seed);
                    if let Some(header) = header.ok().filter(|_| lsn >= stopped) {
                        self.promised(header.sync_lsn, Witness::Record(lsn));
                    }
                }
            }
            // The next piece begins with the first place whose header was not all in this one.
            let places = piece.len().saturating_sub(RECORD_HEADER_LEN) as u64 / RECORD_ALIGN + 1;
            offset += places * RECORD_ALIGN;
        }
        self.stored += stored;
        Ok(())
    }
}

/// Whether all bytes are zero. A chunk is looked at as a whole: many times as fast as byte by byte.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|chunk| chunk.iter().fold(0, |any, &byte| any | byte) == 0)
}
