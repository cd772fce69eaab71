//! Records that another node made: verified, and stored under the same Lsns.
//!
//! Both checksums are checked with the sender's seed; only the promise and the header's checksum
//! are this disk's own.

use towline_protocol::barrier::Barrier;
use towline_protocol::frame::SegmentIdentity;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{
    HeaderSeed, RECORD_HEADER_LEN, RecordError, RecordHeader, RecordKind,
};

use crate::error::WalError;
use crate::log::{Log, SEAL_LEN};
use crate::provision::Purpose;

impl Log {
    /// Takes whole records, the first of which lies at `from`, out of the sender's `segment`.
    /// They must follow on this log's end. Returns the new end; what came before a bad record is
    /// kept.
    ///
    /// # Errors
    /// [`WalError::Record`] for damaged bytes, [`WalError::Gap`] for records that do not follow,
    /// [`WalError::Fork`] for a BARRIER or SEAL that contradicts this log.
    pub fn receive(
        &self,
        segment: SegmentIdentity,
        from: Lsn,
        bytes: &[u8],
    ) -> Result<Lsn, WalError> {
        let seed = HeaderSeed::new(self.control().log, segment.epoch, segment.base, segment.nonce);
        let mut at = from;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (header, payload) = take_record(rest, at, seed)?;
            let stored = usize::try_from(header.stored_len()).unwrap_or(usize::MAX);
            self.receive_one(segment, header, payload)?;
            rest = rest.get(stored..).unwrap_or_default();
            at = header.end();
        }
        Ok(self.appended())
    }

    fn receive_one(
        &self,
        sender: SegmentIdentity,
        header: RecordHeader,
        payload: &[u8],
    ) -> Result<(), WalError> {
        let size = self.size;
        // A BARRIER begins an epoch: nobody appends meanwhile.
        let _hold = (header.kind == RecordKind::Barrier).then(|| self.hold()).transpose()?;
        let tail = self.tail();
        self.check_open(&tail)?;
        let in_tail = tail.segment.as_ref().filter(|segment| segment.base() == sender.base);
        let expected =
            if in_tail.is_some() { self.appended() } else { size.barrier_after(self.appended()) };
        let behind_seal = tail.is_sealed() && in_tail.is_some();
        if in_tail.is_none() && !tail.is_sealed() && header.kind != RecordKind::Barrier {
            return Err(WalError::Gap { got: header.lsn, expected: self.appended() });
        }
        if header.lsn != expected || size.base_of(header.lsn) != sender.base || behind_seal {
            return Err(WalError::Gap { got: header.lsn, expected });
        }
        let room = size.bytes() - size.offset_of(header.lsn);
        let reserve = if header.kind == RecordKind::Seal { 0 } else { SEAL_LEN };
        if header.stored_len() + reserve > room {
            let source = RecordError::TooLong(header.len);
            return Err(WalError::Record { at: header.lsn, source });
        }
        if header.kind == RecordKind::Seal && payload != self.digest().0.to_le_bytes() {
            let what = format!("the SEAL at {} has another digest than this log", header.lsn);
            return Err(WalError::Fork { epoch: sender.epoch, what });
        }
        let first = SegmentSize::first_record(sender.base) == header.lsn;
        let tail = match header.kind {
            RecordKind::Barrier if first => {
                let barrier = decode_barrier(payload, sender)?;
                self.enter_epoch(tail, &barrier, header.lsn)?.0
            }
            RecordKind::Barrier => {
                let what = "its BARRIER is not the first record of a segment".to_owned();
                return Err(WalError::Fork { epoch: sender.epoch, what });
            }
            _ if sender.epoch != self.last_epoch() => {
                let what = format!("a record of it before its BARRIER, at {}", header.lsn);
                return Err(WalError::Fork { epoch: sender.epoch, what });
            }
            _ if first => {
                self.enter(tail, (sender.base, sender.epoch), Purpose::of(header.kind))?
            }
            _ => tail,
        };
        let sync_lsn = self.flushed().min(header.lsn);
        self.put_next(tail, &RecordHeader { sync_lsn, ..header }, payload).map(drop)
    }
}

fn decode_barrier(payload: &[u8], sender: SegmentIdentity) -> Result<Barrier, WalError> {
    let fork = |what: String| WalError::Fork { epoch: sender.epoch, what };
    let barrier = Barrier::decode(payload).map_err(|error| fork(error.to_string()))?;
    if barrier.epoch != sender.epoch {
        return Err(fork(format!("its BARRIER names {}", barrier.epoch)));
    }
    Ok(barrier)
}

/// The peer's record that should lie at `at`, verified.
pub(crate) fn take_record(
    bytes: &[u8],
    at: Lsn,
    seed: HeaderSeed,
) -> Result<(RecordHeader, &[u8]), WalError> {
    let bad = |source| WalError::Record { at, source };
    let header = RecordHeader::decode(bytes, at, seed).map_err(bad)?;
    let end = RECORD_HEADER_LEN + header.len as usize;
    let payload = bytes.get(RECORD_HEADER_LEN..end).ok_or(bad(RecordError::Short))?;
    header.check_payload(payload).map_err(bad)?;
    Ok((header, payload))
}
