//! The header page of a segment.
//!
//! Everything lies in its first sector, so that rewriting it (when a ready segment is taken by
//! another epoch than it was made for) leaves the old header or the new one.

use std::path::Path;

use towline_protocol::epoch::Epoch;
use towline_protocol::frame::SegmentIdentity;
use towline_protocol::id::LogId;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::HeaderSeed;
use towline_protocol::wire::{Reader, WireError, Writer};

use crate::error::WalError;
use crate::planted::{Bug, planted};
use crate::segment::named_base;

/// The format this version writes.
pub(crate) const FORMAT_VERSION: u16 = 1;
/// The header page's length in bytes.
pub(crate) const HEADER_PAGE_LEN: usize = SegmentSize::HEADER_LEN as usize;
const MAGIC: &[u8; 8] = b"TOWLSEG\n";
const FIELDS_LEN: usize = 8 + 2 + 16 + 8 + 16 + 8 + 8 + 8;

const _: () = assert!(FIELDS_LEN + 4 <= 512, "the header fits a sector");

/// What a segment's file says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) log: LogId,
    pub(crate) base: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) size: SegmentSize,
    /// Random for every file, so that no stale byte ever validates in another.
    pub(crate) nonce: u64,
    /// How far the log was durable here when the file was made ready: a promise.
    pub(crate) durable: Lsn,
}

impl SegmentHeader {
    pub(crate) fn seed(&self) -> HeaderSeed {
        let nonce = if planted(Bug::SeedWithoutNonce) { 0 } else { self.nonce };
        HeaderSeed::new(self.log, self.epoch, self.base, nonce)
    }

    pub(crate) const fn identity(&self) -> SegmentIdentity {
        SegmentIdentity { base: self.base, epoch: self.epoch, nonce: self.nonce }
    }

    /// Checks that a file with this header is a segment of that log, and the one its name says.
    pub(crate) fn check_place(
        &self,
        path: &Path,
        log: LogId,
        size: SegmentSize,
    ) -> Result<(), WalError> {
        let foreign = |what: String| Err(WalError::Foreign { path: path.to_owned(), what });
        if self.log != log {
            return foreign(format!("it is of log {}, this is log {log}", self.log));
        }
        if self.size != size {
            let (is, says) = (self.size.bytes(), size.bytes());
            return foreign(format!("its segments have {is} bytes, this log's {says}"));
        }
        if named_base(path) != Some(self.base) {
            return foreign(format!("its header says that it is segment {}", self.base));
        }
        Ok(())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(MAGIC).u16(FORMAT_VERSION).u128(self.log.0).lsn(self.base).epoch(self.epoch);
        writer.u64(self.size.bytes()).u64(self.nonce).lsn(self.durable);
        let mut page = writer.into_bytes();
        assert_eq!(page.len(), FIELDS_LEN, "the header has one length");
        page.extend_from_slice(&crc32fast::hash(&page).to_le_bytes());
        page.resize(HEADER_PAGE_LEN, 0);
        page
    }

    /// Reads a header page; `Err(Ok(version))` for one of a later version.
    ///
    /// The checksum is looked at before the version: a rotten version is damage, and no reason to
    /// upgrade anything. Every version keeps both where they are.
    pub(crate) fn decode(page: &[u8]) -> Result<Self, Result<u16, WireError>> {
        let (fields, rest) =
            page.split_at_checked(FIELDS_LEN).ok_or(Err(WireError::Short { field: "header" }))?;
        let crc = rest.first_chunk().copied().unwrap_or_default();
        let is_whole = crc32fast::hash(fields) == u32::from_le_bytes(crc);
        if !is_whole && !planted(Bug::SegmentChecksumIgnored) {
            return Err(Err(WireError::invalid("crc", "the header's checksum does not match")));
        }
        let mut reader = Reader::new(fields);
        if reader.bytes("magic", 8).map_err(Err)? != MAGIC {
            return Err(Err(WireError::invalid("magic", "this is no segment")));
        }
        let version = reader.u16("version").map_err(Err)?;
        if version > FORMAT_VERSION {
            return Err(Ok(version));
        }
        Self::decode_fields(&mut reader).map_err(Err)
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let header = Self {
            log: LogId(reader.u128("log")?),
            base: reader.lsn("base")?,
            epoch: reader.epoch("epoch")?,
            size: SegmentSize::new(reader.u64("size")?)
                .ok_or_else(|| WireError::invalid("size", "no segment size"))?,
            nonce: reader.u64("nonce")?,
            durable: reader.lsn("durable")?,
        };
        // Where the next segment's first record lies is asked without another check.
        let is_inside = header.base.checked_add(2 * header.size.bytes()).is_some();
        if header.size.base_of(header.base) != header.base || !is_inside {
            return Err(WireError::invalid("base", format!("{} is no base", header.base)));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_protocol::id::Incarnation;

    #[test]
    fn a_header_reads_back_and_every_flipped_bit_is_noticed() {
        let header = SegmentHeader {
            log: LogId(7),
            base: Lsn::new(1 << 16),
            epoch: Epoch { number: 3, incarnation: Incarnation(4) },
            size: SegmentSize::MIN,
            nonce: 99,
            durable: Lsn::new(70_000),
        };
        let page = header.encode();
        assert_eq!(SegmentHeader::decode(&page).unwrap(), header);
        for bit in 0..(FIELDS_LEN + 4) * 8 {
            let mut damaged = page.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // Damage, wherever it is, and never another version.
            let told = SegmentHeader::decode(&damaged).unwrap_err();
            assert!(told.is_err(), "bit {bit}: {told:?}");
        }
        let mut newer = page.clone();
        newer[8] += 1;
        let crc = crc32fast::hash(&newer[..FIELDS_LEN]);
        newer[FIELDS_LEN..FIELDS_LEN + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&newer), Err(Ok(2)));
        assert!(SegmentHeader::decode(&page[..FIELDS_LEN + 3]).is_err());
    }

    #[test]
    fn fields_that_are_cut_short_name_the_one_that_is_missing() {
        let fields = [0; FIELDS_LEN - 10];
        let mut missing = Vec::new();
        for len in 0..fields.len() {
            match SegmentHeader::decode_fields(&mut Reader::new(&fields[..len])) {
                Err(WireError::Short { field }) => missing.push(field),
                // Zeros are no size.
                other => assert_eq!(other, Err(WireError::invalid("size", "no segment size"))),
            }
        }
        missing.dedup();
        assert_eq!(missing, ["log", "base", "epoch", "size"]);
    }

    #[test]
    fn a_base_that_is_none_is_refused_whatever_the_checksum_says() {
        for base in [u64::MAX, u64::MAX - 65_535, 1, 4_096] {
            let header = SegmentHeader {
                log: LogId(7),
                base: Lsn::new(base),
                epoch: Epoch { number: 3, incarnation: Incarnation(4) },
                size: SegmentSize::MIN,
                nonce: 99,
                durable: Lsn::ZERO,
            };
            assert!(SegmentHeader::decode(&header.encode()).is_err(), "{base}");
        }
    }
}
