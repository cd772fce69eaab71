//! What several writers at once were told, and whether the log has kept it. Written apart from the
//! log, as the oracle is: each record's payload follows from its key, so that one which nobody was
//! told of can be judged too.

use std::collections::BTreeMap;

use crate::oracle::{Found, Read};
use crate::random::mix;

/// The kind of a record that opens an epoch.
const BARRIER: u8 = 2;
/// The longest payload.
const LEN_MAX: u64 = 3_000;

/// Which record it is: of a life of the log, of a writer in that, and which of his.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) life: u64,
    pub(crate) writer: u64,
    pub(crate) number: u64,
}

impl Key {
    pub(crate) const fn packed(self) -> u64 {
        self.life << 40 | self.writer << 32 | self.number
    }

    const fn unpack(packed: u64) -> Self {
        let (life, writer) = (packed >> 40, packed >> 32 & 0xff);
        Self { life, writer, number: packed & 0xffff_ffff }
    }

    pub(crate) fn payload(self) -> Vec<u8> {
        let len = 16 + mix(self.packed()) % LEN_MAX;
        crate::log::payload(self.packed(), usize::try_from(len).unwrap_or(16))
    }
}

/// What is known of a log that has had several lives.
#[derive(Default)]
pub(crate) struct Ledger {
    /// What was found the last time, and has been durable since.
    settled: Vec<Read>,
    /// The life that is judged next.
    life: u64,
    /// What its writers were told to be durable, and where.
    acked: BTreeMap<Key, (u64, u64)>,
    /// What it began its epoch with.
    barrier: Option<Vec<u8>>,
}

impl Ledger {
    pub(crate) fn begins(&mut self, life: u64) {
        *self = Self { settled: std::mem::take(&mut self.settled), life, ..Self::default() };
    }

    pub(crate) fn barrier(&mut self, payload: Vec<u8>) {
        self.barrier = Some(payload);
    }

    /// A writer was told that his record is durable.
    pub(crate) fn acked(&mut self, key: u64, lsn: u64, end: u64) {
        self.acked.insert(Key::unpack(key), (lsn, end));
    }

    pub(crate) fn acks(&self) -> usize {
        self.acked.len()
    }

    /// Judges what was read back.
    pub(crate) fn judge(&self, found: &Found) -> Result<(), String> {
        let (before, new) =
            found.records.split_at_checked(self.settled.len()).ok_or_else(|| {
                format!("{} of {} old records are there", found.records.len(), self.settled.len())
            })?;
        if let Some(at) = before.iter().zip(&self.settled).position(|(now, then)| now != then) {
            return Err(format!("old record {at} is another one now"));
        }
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        let mut missing = self.acked.clone();
        for read in new {
            self.judge_record(read, &mut next, &mut missing)?;
        }
        match missing.first_key_value() {
            None => Ok(()),
            Some((key, (lsn, _))) => Err(format!(
                "{} of {} durable records are missing; the first is {key:?} at {lsn}, the log has \
                 {} records and ends at {}",
                missing.len(),
                self.acked.len(),
                found.records.len(),
                found.records.last().map_or(0, |last| last.end)
            )),
        }
    }

    fn judge_record(
        &self,
        read: &Read,
        next: &mut BTreeMap<u64, u64>,
        missing: &mut BTreeMap<Key, (u64, u64)>,
    ) -> Result<(), String> {
        if read.kind == BARRIER {
            let is_ours = self.barrier.as_ref().is_none_or(|barrier| *barrier == read.payload);
            return if is_ours {
                Ok(())
            } else {
                Err(format!("a strange BARRIER at {}", read.lsn))
            };
        }
        let packed = read.payload.first_chunk().map_or(u64::MAX, |it| u64::from_le_bytes(*it));
        let key = Key::unpack(packed);
        if key.life != self.life || read.payload != key.payload() {
            return Err(format!("nobody wrote the record at {}", read.lsn));
        }
        let expected = next.entry(key.writer).or_default();
        if key.number != *expected {
            return Err(format!("{key:?} comes where number {expected} of its writer should"));
        }
        *expected += 1;
        match missing.remove(&key) {
            Some(place) if place != (read.lsn, read.end) => {
                Err(format!("{key:?} was at {place:?} and is at {}", read.lsn))
            }
            _ => Ok(()),
        }
    }

    /// What was found, and judged right, is what the log is from now on.
    pub(crate) fn settle(&mut self, found: Found) {
        self.settled = found.records;
        self.acked.clear();
        self.barrier = None;
        // Nothing is written until the next life begins.
        self.life = u64::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: Key, at: u64) -> Read {
        Read { kind: 1, tag: 0, payload: key.payload(), lsn: at * 100, end: at * 100 + 100 }
    }

    fn key(writer: u64, number: u64) -> Key {
        Key { life: 3, writer, number }
    }

    fn found(records: Vec<Read>) -> Found {
        Found { records, ..Found::default() }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.begins(3);
        ledger.acked(key(0, 0).packed(), 100, 200);
        ledger.acked(key(1, 0).packed(), 200, 300);
        ledger
    }

    #[test]
    fn what_was_told_must_be_there_and_what_was_not_may() {
        let both = [read(key(0, 0), 1), read(key(1, 0), 2)];
        assert_eq!(ledger().judge(&found(both.to_vec())), Ok(()));
        let more = [&both[..], &[read(key(0, 1), 3)]].concat();
        assert_eq!(ledger().judge(&found(more)), Ok(()));
        assert!(ledger().judge(&found(both[..1].to_vec())).unwrap_err().contains("missing"));
        let moved = vec![read(key(1, 0), 1), read(key(0, 0), 2)];
        assert!(ledger().judge(&found(moved)).is_err());
    }

    #[test]
    fn what_nobody_wrote_and_what_is_out_of_order_is_wrong() {
        let mut torn = vec![read(key(0, 0), 1), read(key(1, 0), 2)];
        torn[1].payload[12] ^= 1;
        assert!(ledger().judge(&found(torn)).unwrap_err().contains("nobody"));
        let gap = vec![read(key(0, 0), 1), read(key(1, 0), 2), read(key(0, 2), 3)];
        assert!(ledger().judge(&found(gap)).is_err());
    }

    #[test]
    fn what_was_found_once_stays() {
        let mut ledger = ledger();
        let both = vec![read(key(0, 0), 1), read(key(1, 0), 2)];
        ledger.settle(found(both.clone()));
        assert_eq!(ledger.judge(&found(both.clone())), Ok(()));
        assert!(ledger.judge(&found(both[..1].to_vec())).is_err());
        let more = [&both[..], &[read(key(0, 1), 3)]].concat();
        assert!(ledger.judge(&found(more)).is_err(), "no life has begun");
    }
}
