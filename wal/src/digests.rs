//! What the digest of a log was at any place of it.

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{Digest, RecordHeader, RecordKind};

use crate::error::WalError;
use crate::log::Log;
use crate::segment::Segment;

impl Log {
    /// The digest of everything below `lsn`, which must be the end of a record. Reads up to two
    /// segments.
    ///
    /// # Errors
    /// [`WalError::NoBoundary`] if it is not, [`WalError::Lagged`] if it is trimmed, or what
    /// reading says.
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
        let base = self.size.base_of(lsn);
        let (_, mut digest) = self.before_base(base)?;
        if lsn == base {
            return Ok(digest);
        }
        let segment = self.segments.get(base)?.ok_or(WalError::NoBoundary(lsn))?;
        let mut at = SegmentSize::first_record(base);
        // Behind the end of an epoch, or a SEAL, the segment holds no records: a place there is no
        // boundary. Anywhere else one that can not be read is damage.
        let ends = |at: Lsn| self.history().starts().iter().any(|start| start.previous_end == at);
        while at < lsn.min(self.appended()) && !ends(at) {
            let header = segment.header_at(at)?;
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
        let seal = segment.seal()?.ok_or(WalError::NoBoundary(base))?;
        let sealed = segment.record(seal.lsn)?.payload.first_chunk().copied().unwrap_or_default();
        Ok((seal.end(), Digest(u64::from_le_bytes(sealed)).with(&seal)))
    }
}

impl Segment {
    /// The header of the record at `lsn`; its payload is not looked at.
    pub(crate) fn header_at(&self, lsn: Lsn) -> Result<RecordHeader, WalError> {
        let bytes = self.read(lsn, towline_protocol::record::RECORD_HEADER_LEN)?;
        RecordHeader::decode(&bytes, lsn, self.seed)
            .map_err(|source| WalError::Record { at: lsn, source })
    }

    /// The header of the segment's SEAL; `None` if it has none.
    fn seal(&self) -> Result<Option<RecordHeader>, WalError> {
        let mut at = SegmentSize::first_record(self.base());
        let end = self.header.size.next_base(self.base());
        while at < end {
            match self.header_at(at) {
                Ok(header) if header.kind == RecordKind::Seal => return Ok(Some(header)),
                Ok(header) => at = header.end(),
                Err(WalError::Record { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
