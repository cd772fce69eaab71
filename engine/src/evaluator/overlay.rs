//! The effects that are in the log and not in the store yet.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use towline_protocol::lsn::Lsn;

use crate::effects::Decoded;
use crate::value::Value;

/// What a pending record takes besides its payload, in bytes, about.
const RECORD_OVERHEAD: usize = 64;
/// What a pending effect takes besides its payload, in bytes, about.
const EFFECT_OVERHEAD: usize = 160;

/// The newest pending effect on a key.
#[derive(Debug)]
pub(super) struct Pending {
    /// Where its record ends.
    pub(super) end: Lsn,
    /// What the key will hold; `None` if it will be gone.
    pub(super) value: Option<Value>,
}

#[derive(Debug)]
struct PendingRecord {
    end: Lsn,
    payload: Bytes,
    keys_delta: i64,
    cost: usize,
}

#[derive(Debug, Default)]
pub(super) struct Overlay {
    by_key: HashMap<Bytes, Pending>,
    /// In log order.
    records: VecDeque<PendingRecord>,
    bytes: usize,
    keys_delta: i64,
    effect_time_ms: u64,
}

impl Overlay {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Pending> {
        self.by_key.get(key)
    }

    /// Adds a record's effects.
    pub(super) fn push(&mut self, payload: &Bytes, end: Lsn) {
        let newest = self.newest();
        assert!(end > newest, "a record that ends at {end} came after one that ends at {newest}");
        let record = Decoded::new(payload).expect("the evaluator encoded it");
        for effect in record.effects() {
            let value = effect.put.map(|(bytes, expires_at_ms)| Value {
                bytes: payload.slice_ref(bytes),
                expires_at_ms,
            });
            // An insert would keep the old key, and with it the old record's whole payload.
            self.by_key.remove(effect.key);
            self.by_key.insert(payload.slice_ref(effect.key), Pending { end, value });
        }
        let cost = RECORD_OVERHEAD + payload.len() + record.count() as usize * EFFECT_OVERHEAD;
        self.bytes += cost;
        self.keys_delta += record.keys_delta;
        self.effect_time_ms = self.effect_time_ms.max(record.effect_time_ms);
        let (payload, keys_delta) = (payload.clone(), record.keys_delta);
        self.records.push_back(PendingRecord { end, payload, keys_delta, cost });
    }

    /// Drops what the store has applied.
    pub(super) fn forget_applied(&mut self, applied: Lsn) {
        while self.records.front().is_some_and(|record| record.end <= applied) {
            let record = self.records.pop_front().expect("there is a front");
            self.bytes -= record.cost;
            self.keys_delta -= record.keys_delta;
            let effects = Decoded::new(&record.payload).expect("it was decoded before");
            for effect in effects.effects() {
                // A newer record may have taken the key over.
                if self.by_key.get(effect.key).is_some_and(|pending| pending.end == record.end) {
                    self.by_key.remove(effect.key);
                }
            }
        }
    }

    /// Where the newest pending record ends; zero if there is none.
    pub(super) fn newest(&self) -> Lsn {
        self.records.back().map_or(Lsn::ZERO, |record| record.end)
    }

    /// By how much the records behind `applied` change the number of keys.
    pub(super) fn keys_delta_after(&self, applied: Lsn) -> i64 {
        let applied = self.records.iter().take_while(|record| record.end <= applied);
        self.keys_delta - applied.map(|record| record.keys_delta).sum::<i64>()
    }

    pub(super) fn effect_time_ms(&self) -> u64 {
        self.effect_time_ms
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
