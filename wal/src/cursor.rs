//! Reading the log while it is written.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use towline_protocol::frame::SegmentIdentity;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{Digest, RECORD_HEADER_LEN, RecordHeader, RecordKind};

use crate::error::WalError;
use crate::log::{Log, SEAL_LEN};
use crate::planted::{Bug, planted};
use crate::segment::Segment;
use crate::wal::Wal;

/// Up to which watermark a cursor reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// What is on this disk.
    Flushed,
    /// What is in the log, perhaps not on this disk yet.
    Appended,
}

/// Whole records of one segment, as they lie in its file.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The file they come from.
    pub segment: SegmentIdentity,
    /// Where the first one lies.
    pub from: Lsn,
    /// Where the last one ends.
    pub end: Lsn,
    /// Their bytes; from a mapped segment without a copy.
    pub bytes: Bytes,
}

/// One record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its header.
    pub header: RecordHeader,
    /// Its payload.
    pub payload: Bytes,
}

/// Hands out a log's records in order. It never blocks; at the watermark it has nothing, and has
/// more once the watermark moved.
#[derive(Debug)]
pub struct Cursor {
    wal: Arc<Log>,
    level: Level,
    position: Lsn,
    segment: Option<Arc<Segment>>,
    /// What was read ahead for [`Cursor::next_record`].
    ahead: Option<Chunk>,
}

/// How much [`Cursor::next_record`] reads ahead, in bytes.
const READ_AHEAD: usize = 64 << 10;

impl Cursor {
    pub(crate) fn new(wal: Arc<Log>, from: Lsn, level: Level) -> Result<Self, WalError> {
        if from > wal.appended() {
            return Err(WalError::NoBoundary(from));
        }
        Ok(Self { wal, level, position: from, segment: None, ahead: None })
    }

    /// The end of what was handed out.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    fn watermark(&self) -> Lsn {
        match self.level {
            Level::Flushed => self.wal.flushed(),
            Level::Appended => self.wal.appended(),
        }
    }

    /// The next records of one segment: as many as fit `max_bytes`, and at least one. `None` at
    /// the watermark.
    ///
    /// # Errors
    /// [`WalError`] if they can not be read or are damaged.
    pub fn next_chunk(&mut self, max_bytes: usize) -> Result<Option<Chunk>, WalError> {
        // What was read ahead lies behind the position and would come twice.
        self.ahead = None;
        let until = self.watermark();
        if self.position >= until {
            return Ok(None);
        }
        let segment = self.enter_segment()?;
        let at = self.position;
        let size = segment.header.size;
        let left = until.min(size.next_base(segment.base())).distance_from(at);
        let window = usize::try_from(left).unwrap_or(usize::MAX).min(max_bytes);
        let mut bytes = segment.read(at, window.max(RECORD_HEADER_LEN))?;
        let mut len = 0;
        loop {
            let (lsn, rest) = (at.advance(len as u64), &bytes[len..]);
            if lsn >= until || rest.len() < RECORD_HEADER_LEN {
                break;
            }
            let header = match RecordHeader::decode(rest, lsn, segment.seed) {
                Ok(header) => header,
                // Behind an epoch's last record there may be anything.
                Err(_) if len > 0 => break,
                Err(source) => return Err(corrupt(&segment, lsn, until, &source)),
            };
            let stored = usize::try_from(header.stored_len()).unwrap_or(usize::MAX);
            if stored > rest.len() {
                if len > 0 {
                    break;
                }
                bytes = segment.read(at, stored)?;
                if bytes.len() < stored {
                    let short = towline_protocol::record::RecordError::Short;
                    return Err(corrupt(&segment, lsn, until, &short));
                }
            }
            len += stored;
            if header.kind == RecordKind::Seal || len >= max_bytes {
                break;
            }
        }
        let end = at.advance(len as u64);
        self.position = end;
        let identity = segment.identity();
        Ok(Some(Chunk { segment: identity, from: at, end, bytes: bytes.slice(..len) }))
    }

    /// The next record, verified. `None` at the watermark.
    ///
    /// # Errors
    /// [`WalError`] if it can not be read or is damaged.
    pub fn next_record(&mut self) -> Result<Option<Record>, WalError> {
        let at = self.position;
        let chunk = match self.ahead.take() {
            Some(chunk) => chunk,
            None => match self.next_chunk(READ_AHEAD)? {
                Some(chunk) => chunk,
                None => return Ok(None),
            },
        };
        let segment = self.segment.clone().ok_or(WalError::NoBoundary(at))?;
        let bad = |source| corrupt(&segment, chunk.from, self.watermark(), &source);
        let header = RecordHeader::decode(&chunk.bytes, chunk.from, segment.seed).map_err(bad)?;
        let payload = chunk.bytes.slice(RECORD_HEADER_LEN..RECORD_HEADER_LEN + header.len as usize);
        header.check_payload(&payload).map_err(bad)?;
        let stored = usize::try_from(header.stored_len()).unwrap_or(usize::MAX);
        let rest = chunk.bytes.slice(stored..);
        self.position = header.end();
        if !rest.is_empty() {
            self.ahead = Some(Chunk { from: header.end(), bytes: rest, ..chunk });
        }
        Ok(Some(Record { header, payload }))
    }

    /// The segment that holds the record at the position; moves on over skipped Lsns.
    fn enter_segment(&mut self) -> Result<Arc<Segment>, WalError> {
        let size = self.wal.control().segment_size;
        let ended = |end: Lsn| {
            let history = self.wal.history();
            history.starts().iter().find(|start| start.previous_end == end).map(|s| s.first)
        };
        if let Some(first) = ended(self.position).filter(|first| *first > self.position) {
            self.position = first;
        } else if size.offset_of(self.position) < SegmentSize::HEADER_LEN {
            // The beginning of the log, or behind a SEAL that filled its segment to the last byte.
            self.position = SegmentSize::first_record(size.base_of(self.position));
        } else if self.at_seal_end(size)? {
            self.position = SegmentSize::first_record(size.next_base(self.position));
        }
        let base = size.base_of(self.position);
        if let Some(segment) = self.segment.as_ref().filter(|segment| segment.base() == base) {
            return Ok(Arc::clone(segment));
        }
        let segments = self.wal.segments.read().unwrap_or_else(PoisonError::into_inner);
        let segment = segments.get(&base).cloned().ok_or(WalError::NoBoundary(self.position))?;
        drop(segments);
        self.segment = Some(Arc::clone(&segment));
        Ok(segment)
    }

    /// Whether the position is behind the SEAL of a segment on which the log goes on. Only the SEAL
    /// tells: that no record lies at the position may be damage as well.
    fn at_seal_end(&self, size: SegmentSize) -> Result<bool, WalError> {
        if size.offset_of(self.position) < SegmentSize::HEADER_LEN + SEAL_LEN {
            return Ok(false);
        }
        let base = size.base_of(self.position);
        let next = size.next_base(self.position);
        let segments = self.wal.segments.read().unwrap_or_else(PoisonError::into_inner);
        let Some(segment) = segments.get(&base).cloned() else { return Ok(false) };
        let goes_on = segments.contains_key(&next) && self.wal.appended() > next;
        drop(segments);
        if !goes_on {
            return Ok(false);
        }
        let lsn = Lsn::new(self.position.get() - SEAL_LEN);
        let header = segment.read(lsn, RECORD_HEADER_LEN)?;
        let before = RecordHeader::decode(&header, lsn, segment.seed);
        if planted(Bug::DamageTakenForSeal) {
            let here = segment.read(self.position, RECORD_HEADER_LEN)?;
            return Ok(RecordHeader::decode(&here, self.position, segment.seed).is_err());
        }
        Ok(before.is_ok_and(|it| it.kind == RecordKind::Seal && it.end() == self.position))
    }
}

fn corrupt(segment: &Segment, at: Lsn, evidence: Lsn, what: &dyn std::fmt::Display) -> WalError {
    WalError::Corrupt { path: segment.path.clone(), at, evidence, what: what.to_string() }
}

impl Wal {
    /// The digest of everything below `lsn`, which must be the end of a record. Reads up to two
    /// segments.
    ///
    /// # Errors
    /// [`WalError::NoBoundary`] if it is not, or what reading says.
    pub fn digest_at(&self, lsn: Lsn) -> Result<Digest, WalError> {
        if lsn == Lsn::ZERO {
            return Ok(Digest::EMPTY);
        }
        {
            let tail = self.tail();
            if self.appended() == lsn {
                return Ok(tail.digest);
            }
        }
        if let Some(next) = self.history().starts().iter().find(|s| s.previous_end == lsn) {
            return Ok(next.digest);
        }
        let base = self.control().segment_size.base_of(lsn);
        let first = SegmentSize::first_record(base);
        let mut digest = self.digest_at_base(base)?;
        if lsn == base {
            return Ok(digest);
        }
        let mut cursor = self.cursor(first, Level::Appended)?;
        while cursor.position() < lsn {
            let record = cursor.next_record()?.ok_or(WalError::NoBoundary(lsn))?;
            digest = digest.with(&record.header);
        }
        if cursor.position() == lsn { Ok(digest) } else { Err(WalError::NoBoundary(lsn)) }
    }

    /// The digest of everything before the segment at `base`: told by its own BARRIER, or by the
    /// SEAL before it.
    fn digest_at_base(&self, base: Lsn) -> Result<Digest, WalError> {
        let first = SegmentSize::first_record(base);
        if let Some(start) = self.history().starts().iter().find(|start| start.first == first) {
            return Ok(start.digest);
        }
        let size = self.control().segment_size;
        let before = Lsn::new(base.get().saturating_sub(size.bytes()));
        let mut cursor = self.cursor(SegmentSize::first_record(before), Level::Appended)?;
        while let Some(record) = cursor.next_record()? {
            if record.header.kind == RecordKind::Seal {
                let sealed = record.payload.first_chunk().copied().unwrap_or_default();
                return Ok(Digest(u64::from_le_bytes(sealed)).with(&record.header));
            }
            if size.base_of(record.header.lsn) != before {
                break;
            }
        }
        Err(WalError::NoBoundary(base))
    }
}
