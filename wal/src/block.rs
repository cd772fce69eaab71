//! Looking through a segment's file piece by piece, in memory that is used again.

use towline_protocol::lsn::Lsn;
use towline_protocol::record::{RECORD_HEADER_LEN, RecordError, RecordHeader};

use crate::error::WalError;
use crate::planted::{Bug, planted};
use crate::scan::SegmentFile;

/// So much is read at a time, in bytes: few calls, and it stays in a processor's cache until it
/// has been looked at. Only a longer record makes a block longer.
const BLOCK_LEN: usize = 128 << 10;

/// A piece of a segment's file.
#[derive(Debug)]
pub(crate) struct Block {
    /// How much is read at a time.
    step: usize,
    bytes: Vec<u8>,
    /// Whose it is.
    base: Lsn,
    /// Where it begins in the file.
    from: u64,
    /// How much of `bytes` was read.
    len: usize,
}

impl Block {
    /// For all of a file.
    pub(crate) const fn new() -> Self {
        Self { step: BLOCK_LEN, bytes: Vec::new(), base: Lsn::ZERO, from: 0, len: 0 }
    }

    /// For one record.
    pub(crate) const fn of_one() -> Self {
        Self { step: RECORD_HEADER_LEN, bytes: Vec::new(), base: Lsn::ZERO, from: 0, len: 0 }
    }

    /// Forgets what was read: the next look is at the file.
    pub(crate) const fn forget(&mut self) {
        self.len = 0;
    }

    /// What lies at `offset`: `least` bytes or more, fewer only at the file's end.
    pub(crate) fn at(
        &mut self,
        file: &SegmentFile,
        offset: u64,
        least: usize,
    ) -> Result<&[u8], WalError> {
        let skip = offset.checked_sub(self.from).and_then(|skip| usize::try_from(skip).ok());
        let is_here = |skip: &usize| skip.saturating_add(least) <= self.len;
        let at_hand = skip.filter(is_here).filter(|_| self.base == file.base());
        let skip = match at_hand {
            Some(skip) => skip,
            None => {
                self.len = 0;
                // No more memory than the file could fill.
                let file_len = usize::try_from(file.len()).unwrap_or(usize::MAX);
                let wanted = least.max(self.step).min(file_len);
                if self.bytes.len() < wanted {
                    self.bytes.resize(wanted, 0);
                }
                self.len = file.read_into(&mut self.bytes[..wanted], offset)?;
                (self.base, self.from) = (file.base(), offset);
                0
            }
        };
        Ok(&self.bytes[skip..self.len])
    }

    /// The record at `lsn`, verified, and its payload.
    pub(crate) fn record(
        &mut self,
        file: &SegmentFile,
        lsn: Lsn,
    ) -> Result<Result<(RecordHeader, &[u8]), RecordError>, WalError> {
        let offset = lsn.distance_from(file.base());
        let header =
            RecordHeader::decode(self.at(file, offset, RECORD_HEADER_LEN)?, lsn, file.seed);
        let header = match header {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let end = RECORD_HEADER_LEN + header.len as usize;
        let record = self.at(file, offset, end)?;
        let Some(payload) = record.get(RECORD_HEADER_LEN..end) else {
            return Ok(Err(RecordError::Short));
        };
        if !planted(Bug::PayloadNotChecked) {
            if let Err(error) = header.check_payload(payload) {
                return Ok(Err(error));
            }
        }
        Ok(Ok((header, payload)))
    }
}
