//! Frames of records: the log's own bytes behind a header of one length.

use bytes::Bytes;

use crate::epoch::Epoch;
use crate::lsn::Lsn;
use crate::record::{RECORD_PAYLOAD_MAX, stored_len};
use crate::wire::{Reader, WireError, Writer};

/// Records are sent in frames of up to this many bytes; only a single longer record exceeds it.
pub const RECORDS_FRAME_AIM: usize = 256 << 10;
/// The longest header of a records frame, in bytes.
pub const RECORDS_HEADER_LEN: usize = 16 + 16 + 8 + 8 + 8 + 8;
/// No records frame is longer than this, in bytes.
pub const RECORDS_FRAME_MAX: usize =
    RECORDS_HEADER_LEN + RECORDS_FRAME_AIM + stored_len(RECORD_PAYLOAD_MAX) as usize;

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
