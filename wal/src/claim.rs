//! A place in the log that is filled piece by piece.

use towline_protocol::lsn::Lsn;
use towline_protocol::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind};

use crate::error::WalError;
use crate::log::{Appended, Log, Place, promise_of};

/// Zeros are written so many at a time.
const ZEROS: [u8; 4096] = [0; 4096];

/// A reserved place for one record: filled in order, without a copy of the whole in between, and
/// then committed. One that is dropped before becomes an ABORT record of zeros, which means
/// nothing: who reads the log passes over it.
///
/// Nothing that is appended behind it is published before it is committed or dropped. So a thread
/// that holds one must neither wait for a flush nor append before it lets go of it.
#[derive(Debug)]
#[must_use = "a claim that is dropped is an ABORT record"]
pub struct Claim<'a> {
    /// `None` once it is published.
    place: Option<Place<'a>>,
    /// The header as it will be, but for the checksum of the payload.
    header: RecordHeader,
    filled: u32,
    payload_crc: crc32fast::Hasher,
}

impl Log {
    /// Reserves the next place in the log for a record of exactly `len` bytes.
    ///
    /// # Errors
    /// As [`Log::append`]; nothing is reserved then.
    pub fn reserve(&self, kind: RecordKind, tag: u16, len: usize) -> Result<Claim<'_>, WalError> {
        let len = self.check(kind, len)?;
        let place = self.reserve_place(kind, len)?;
        let (lsn, sync_lsn) = (place.lsn, promise_of(&place));
        let header = RecordHeader { len, lsn, sync_lsn, pcrc: 0, kind, flags: 0, tag };
        let payload_crc = crc32fast::Hasher::new();
        Ok(Claim { place: Some(place), header, filled: 0, payload_crc })
    }
}

impl Claim<'_> {
    /// Where the record will lie.
    #[must_use]
    pub const fn lsn(&self) -> Lsn {
        self.header.lsn
    }

    /// How many bytes are still to be filled.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        (self.header.len - self.filled) as usize
    }

    /// Fills the next bytes.
    ///
    /// # Errors
    /// [`WalError::Overfilled`] if they are more than remain; none of them is filled then.
    pub fn fill(&mut self, bytes: &[u8]) -> Result<(), WalError> {
        let left = self.remaining();
        if bytes.len() > left {
            return Err(WalError::Overfilled { len: bytes.len(), left });
        }
        if let Some(place) = &self.place {
            place.target().store(self.next(), bytes);
        }
        self.payload_crc.update(bytes);
        self.filled += u32::try_from(bytes.len()).expect("it is no more than remains");
        Ok(())
    }

    /// Publishes the record. It is not flushed yet on return.
    ///
    /// # Errors
    /// [`WalError::Unfilled`] if bytes are missing; the place is an ABORT record then.
    pub fn commit(mut self) -> Result<Appended, WalError> {
        if self.remaining() > 0 {
            let (len, filled) = (self.header.len, self.filled);
            return Err(WalError::Unfilled { len, filled });
        }
        self.publish();
        Ok(Appended { lsn: self.header.lsn, end: self.header.end() })
    }

    fn next(&self) -> Lsn {
        self.header.lsn.advance(RECORD_HEADER_LEN as u64 + u64::from(self.filled))
    }

    fn publish(&mut self) {
        let Some(place) = self.place.take() else { return };
        self.header.pcrc = self.payload_crc.clone().finalize();
        let segment = place.target();
        segment.store(self.header.lsn, &self.header.encode(segment.seed));
        place.publish(self.header.end(), self.header.fingerprint());
    }

    /// Makes the place a record of zeros that means nothing.
    fn abort(&mut self) {
        self.header.kind = RecordKind::Abort;
        self.header.tag = 0;
        self.filled = 0;
        self.payload_crc = crc32fast::Hasher::new();
        while self.remaining() > 0 {
            let zeros = &ZEROS[..self.remaining().min(ZEROS.len())];
            self.fill(zeros).expect("it is no more than remains");
        }
        self.publish();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.abort();
        }
    }
}
