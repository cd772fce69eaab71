//! What the digest of a log was at any place of it.

use bytes::Bytes;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{Digest, RECORD_HEADER_LEN, RecordHeader, RecordKind};

use crate::error::WalError;
use crate::log::Log;
use crate::newest::search_seal;
use crate::segment::Segment;

/// How much of a segment is read at a time, in bytes.
const BLOCK_LEN: usize = 64 << 10;

impl Log {
    /// The digest of everything below `lsn`, which must be the end of a record. Reads up to a
    /// segment, and the end of the one before.
    ///
    /// # Errors
    /// [`WalError::NoBoundary`] if it is not, [`WalError::Lagged`] if it is trimmed,
    /// [`WalError::Corrupt`] or [`WalError::Record`] if what tells it is damaged.
    pub fn digest_at(&self, lsn: Lsn) -> Result<Digest, WalError> {
        if lsn == Lsn::ZERO {
            return Ok(Digest::EMPTY);
        }
        {
            let prefix = self.reservations.prefix();
            if prefix.end == lsn {
                return Ok(prefix.digest);
            }
        }
        if let Some(next) = self.history().starts().iter().find(|s| s.previous_end == lsn) {
            return Ok(next.digest);
        }
        let oldest = self.oldest();
        if lsn <= oldest.end {
            let lagged = WalError::Lagged { at: lsn, oldest: oldest.end };
            return if lsn == oldest.end { Ok(oldest.digest) } else { Err(lagged) };
        }
        let appended = self.appended();
        if lsn > appended {
            return Err(WalError::NoBoundary(lsn));
        }
        let base = self.size.base_of(lsn);
        let (end, mut digest) = self.before_base(base)?;
        if lsn == base {
            // A segment's last record ends there, or the place lies behind it.
            return if lsn == end { Ok(digest) } else { Err(WalError::NoBoundary(lsn)) };
        }
        let segment = self.segments.get(base)?.ok_or(WalError::NoBoundary(lsn))?;
        let mut at = SegmentSize::first_record(base);
        // Behind the end of an epoch, or a SEAL, the segment holds no records: a place there is no
        // boundary. Anywhere else one that can not be read is damage.
        let history = self.history();
        let ends = history.starts().iter().map(|start| start.previous_end);
        let ended = ends.filter(|end| *end >= at).min();
        let mut headers =
            Headers { segment: &segment, until: appended, from: at, block: Bytes::new() };
        while at < lsn && Some(at) != ended {
            let header = headers.at(at)?;
            digest = digest.with(&header);
            at = header.end();
            if header.kind == RecordKind::Seal {
                break;
            }
        }
        if at == lsn { Ok(digest) } else { Err(WalError::NoBoundary(lsn)) }
    }

    /// The end and the digest of everything before the segment at `base`: told by its own
    /// BARRIER, by the SEAL before it, or by the trim that made it the oldest.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] if that SEAL is damaged.
    pub(crate) fn before_base(&self, base: Lsn) -> Result<(Lsn, Digest), WalError> {
        let first = SegmentSize::first_record(base);
        if let Some(start) = self.history().starts().iter().find(|start| start.first == first) {
            return Ok((start.previous_end, start.digest));
        }
        let oldest = self.oldest();
        if base <= oldest.base {
            return Ok((oldest.end, oldest.digest));
        }
        let before = Lsn::new(base.get() - self.size.bytes());
        let segment = self.segments.get(before)?.ok_or(WalError::NoBoundary(base))?;
        let seal = search_seal(&segment.header, |from, to| {
            let len = usize::try_from(to - from).unwrap_or(usize::MAX);
            segment.read(before.advance(from), len)
        })?;
        // The log went on behind it, so the SEAL was there.
        let gone = || segment.corrupt(before, base, &"its SEAL can not be read");
        seal.map(|seal| (seal.end, seal.digest)).ok_or_else(gone)
    }
}

/// Reads a segment's headers one after another, a block of the file at a time: a replica waits for
/// a digest before its stream begins, and a call for every record would keep it waiting.
struct Headers<'a> {
    segment: &'a Segment,
    /// Nothing behind this is read: it may be written at this moment.
    until: Lsn,
    /// Where the block lies that was read last.
    from: Lsn,
    block: Bytes,
}

impl Headers<'_> {
    /// The header of the record at `at`, which lies behind those before; its payload is not looked
    /// at.
    fn at(&mut self, at: Lsn) -> Result<RecordHeader, WalError> {
        let offset = usize::try_from(at.distance_from(self.from)).unwrap_or(usize::MAX);
        let behind = offset.saturating_add(RECORD_HEADER_LEN);
        if behind > self.block.len() {
            let left = usize::try_from(self.until.distance_from(at)).unwrap_or(usize::MAX);
            self.block = self.segment.read(at, left.min(BLOCK_LEN))?;
            self.from = at;
        }
        let offset = usize::try_from(at.distance_from(self.from)).unwrap_or(usize::MAX);
        RecordHeader::decode(&self.block[offset..], at, self.segment.seed)
            .map_err(|source| WalError::Record { at, source })
    }
}
