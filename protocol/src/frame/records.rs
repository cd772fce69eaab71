//! Frames of records: a header, and the log's own bytes behind it.

use bytes::Bytes;

use super::RECORDS_HEADER_LEN;
use crate::epoch::Epoch;
use crate::lsn::Lsn;
use crate::wire::{Reader, WireError, Writer};

/// The file on a sender's disk that records come from: what their header checksums are seeded by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentIdentity {
    /// The segment's base.
    pub base: Lsn,
    /// The epoch its records were written in.
    pub epoch: Epoch,
    /// The file's nonce.
    pub nonce: u64,
}

/// The header of a frame of records; the records' own bytes follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Records {
    /// The sender's epoch: the session's, never lower than the segment's.
    pub epoch: Epoch,
    /// Counts the frames of one stream, from 1.
    pub number: u64,
    /// Where the bytes come from.
    pub segment: SegmentIdentity,
    /// Where the first record lies.
    pub from: Lsn,
}

impl Records {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.epoch(self.epoch).epoch(self.segment.epoch).u64(self.number);
        writer.lsn(self.segment.base).u64(self.segment.nonce).lsn(self.from);
        let bytes = writer.into_bytes();
        assert_eq!(bytes.len(), RECORDS_HEADER_LEN, "the header has one length");
        bytes.into()
    }

    /// Splits a frame into its header and its records.
    ///
    /// # Errors
    /// [`WireError::Short`] if it is no whole header.
    pub fn decode(frame: &Bytes) -> Result<(Self, Bytes), WireError> {
        let mut reader = Reader::new(frame);
        let epoch = reader.epoch("records.epoch")?;
        let of_segment = reader.epoch("records.segment.epoch")?;
        let number = reader.u64("records.number")?;
        let base = reader.lsn("records.segment.base")?;
        let nonce = reader.u64("records.segment.nonce")?;
        let from = reader.lsn("records.from")?;
        let segment = SegmentIdentity { base, epoch: of_segment, nonce };
        Ok((Self { epoch, number, segment, from }, frame.slice(RECORDS_HEADER_LEN..)))
    }
}
