//! Reading the log while it is written.

use std::sync::Arc;

use bytes::Bytes;
use towline_protocol::frame::SegmentIdentity;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{
    HeaderSeed, RECORD_HEADER_LEN, RecordError, RecordHeader, RecordKind,
};

use crate::error::WalError;
use crate::log::{Log, SEAL_LEN};
use crate::planted::{Bug, planted};
use crate::segment::{Segment, Share};

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

/// Hands out a log's records in order. At the watermark [`Cursor::next_record`] and
/// [`Cursor::next_chunk`] have nothing, and have more once the watermark moved: [`Cursor::wait`]
/// and [`Cursor::blocking_wait`] wait for that.
#[derive(Debug)]
pub struct Cursor {
    wal: Arc<Log>,
    level: Level,
    position: Lsn,
    segment: Option<Arc<Segment>>,
    /// What was read ahead for [`Cursor::next_record`].
    ahead: Option<Window>,
    /// The mapped segments of which bytes were handed out, and are held while a pin has clones.
    pins: Vec<(Lsn, Arc<()>)>,
}

/// The most mapped segments that the bytes one cursor handed out may keep in memory while they are
/// held; past it the cursor hands out copies, until some are let go.
pub const PINNED_SEGMENTS_MAX: usize = 4;
/// How much [`Cursor::next_record`] reads ahead, in bytes.
const READ_AHEAD: usize = 128 << 10;

impl Cursor {
    pub(crate) fn new(wal: Arc<Log>, from: Lsn, level: Level) -> Result<Self, WalError> {
        if from > wal.appended() {
            return Err(WalError::NoBoundary(from));
        }
        check_kept(&wal, from)?;
        Ok(Self { wal, level, position: from, segment: None, ahead: None, pins: Vec::new() })
    }

    /// The end of what was handed out.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    pub(crate) const fn level(&self) -> Level {
        self.level
    }

    pub(crate) fn log(&self) -> &Log {
        &self.wal
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
        let Some(Window { segment, from: at, until, mut bytes, .. }) = self.window(max_bytes)?
        else {
            return Ok(None);
        };
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
                Err(source) => return Err(self.no_record(&segment, (lsn, until), &source)),
            };
            let stored = usize::try_from(header.stored_len()).unwrap_or(usize::MAX);
            if stored > rest.len() {
                if len > 0 {
                    break;
                }
                bytes = self.read(&segment, at, stored)?;
                if bytes.len() < stored {
                    return Err(self.no_record(&segment, (lsn, until), &RecordError::Short));
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
        if let Some(ahead) = &self.ahead {
            if let Ok(record) = ahead.record(self.position) {
                self.position = record.header.end();
                return Ok(Some(record));
            }
        }
        // What was read ends here, or the segment, or the epoch, or it is damage: a new look tells.
        let record = self.read_ahead()?;
        self.position = record.as_ref().map_or(self.position, |record| record.header.end());
        Ok(record)
    }

    /// Reads ahead from the position on, and returns the first record of that.
    #[cold]
    fn read_ahead(&mut self) -> Result<Option<Record>, WalError> {
        self.ahead = None;
        let Some(mut window) = self.window(READ_AHEAD)? else { return Ok(None) };
        let at = window.from;
        let mut read = window.record(at);
        if let (Err(RecordError::Short), Some(stored)) = (&read, window.stored_len(at)) {
            window.bytes = self.read(&window.segment, at, stored)?;
            read = window.record(at);
        }
        let record =
            read.map_err(|source| self.no_record(&window.segment, (at, window.until), &source))?;
        self.ahead = Some(window);
        Ok(Some(record))
    }

    /// Why there is no record at `at`, though the log goes on to `until`. It is not skipped:
    /// whoever asks again is told again, or finds it repaired.
    fn no_record(
        &mut self,
        segment: &Segment,
        (at, until): (Lsn, Lsn),
        source: &RecordError,
    ) -> WalError {
        self.segment = None;
        let first = SegmentSize::first_record(segment.base());
        // A place inside a record is the caller's mistake and no damage. Asked only now, as it
        // takes reading the segment up to there.
        match self.wal.digest_at(self.position) {
            Err(inside @ WalError::NoBoundary(_)) if self.position > first => inside,
            _ => segment.corrupt(at, until, source),
        }
    }

    /// What lies at the position, up to the watermark, the segment's end or `max_bytes`; no less
    /// than a header. `None` at the watermark.
    fn window(&mut self, max_bytes: usize) -> Result<Option<Window>, WalError> {
        let until = self.watermark();
        if self.position >= until {
            return Ok(None);
        }
        let segment = self.enter_segment()?;
        let from = self.position;
        let left = until.min(segment.header.size.next_base(segment.base())).distance_from(from);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(max_bytes);
        let bytes = self.read(&segment, from, len.max(RECORD_HEADER_LEN))?;
        Ok(Some(Window { seed: segment.seed, segment, from, until, bytes }))
    }

    fn read(&mut self, segment: &Segment, at: Lsn, len: usize) -> Result<Bytes, WalError> {
        if !segment.is_mapped() {
            return segment.read(at, len);
        }
        let base = segment.base();
        self.pins.retain(|(pinned, pin)| *pinned == base || Arc::strong_count(pin) > 1);
        let pin = self.pins.iter().find(|(pinned, _)| *pinned == base).map(|(_, pin)| pin);
        let share = match pin.map(Arc::clone) {
            None if self.pins.len() >= PINNED_SEGMENTS_MAX => Share::Copy,
            None => {
                let pin = Arc::new(());
                self.pins.push((base, Arc::clone(&pin)));
                Share::Mapping(Some(pin))
            }
            pin => Share::Mapping(pin),
        };
        segment.read_for(at, len, share)
    }

    /// The segment that holds the record at the position; moves on over skipped Lsns.
    fn enter_segment(&mut self) -> Result<Arc<Segment>, WalError> {
        let size = self.wal.size;
        let oldest = self.wal.oldest();
        // Before any checksum: what is trimmed is not damaged.
        if self.position < oldest.end {
            return Err(WalError::Lagged { at: self.position, oldest: oldest.end });
        }
        if self.position == oldest.end {
            self.position = SegmentSize::first_record(oldest.base);
        }
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
        let segment = match self.wal.segments.get(base) {
            Ok(segment) => segment.ok_or(WalError::NoBoundary(self.position))?,
            // It may have been trimmed at this moment.
            Err(error) => return Err(check_kept(&self.wal, self.position).err().unwrap_or(error)),
        };
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
        if self.wal.appended() <= next || !self.wal.segments.has(next) {
            return Ok(false);
        }
        let current = self.segment.as_ref().filter(|segment| segment.base() == base);
        let segment = match current {
            Some(segment) => Some(Arc::clone(segment)),
            None => self.wal.segments.get(base)?,
        };
        let Some(segment) = segment else { return Ok(false) };
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

/// Published bytes of a segment that were read at once.
#[derive(Debug)]
struct Window {
    segment: Arc<Segment>,
    seed: HeaderSeed,
    from: Lsn,
    /// The watermark when they were read.
    until: Lsn,
    bytes: Bytes,
}

impl Window {
    /// The record at `at`, verified, if all of it is here.
    #[inline(always)]
    fn record(&self, at: Lsn) -> Result<Record, RecordError> {
        let (offset, rest) = self.behind(at).ok_or(RecordError::Short)?;
        let header = RecordHeader::decode(rest, at, self.seed)?;
        let payload = RECORD_HEADER_LEN..RECORD_HEADER_LEN + header.len as usize;
        header.check_payload(rest.get(payload.clone()).ok_or(RecordError::Short)?)?;
        let payload = self.bytes.slice(offset + payload.start..offset + payload.end);
        Ok(Record { header, payload })
    }

    /// How long the record at `at` is, if its header is here.
    fn stored_len(&self, at: Lsn) -> Option<usize> {
        let header = RecordHeader::decode(self.behind(at)?.1, at, self.seed).ok()?;
        usize::try_from(header.stored_len()).ok()
    }

    fn behind(&self, at: Lsn) -> Option<(usize, &[u8])> {
        let offset = usize::try_from(at.distance_from(self.from)).ok()?;
        Some((offset, self.bytes.get(offset..)?))
    }
}

/// Whether a position is one that the log has not trimmed.
fn check_kept(log: &Log, at: Lsn) -> Result<(), WalError> {
    let oldest = log.oldest().end;
    if at < oldest { Err(WalError::Lagged { at, oldest }) } else { Ok(()) }
}
