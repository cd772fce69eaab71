//! The state that a batch of commands sees, and what it makes of it.

use std::collections::HashMap;

use bytes::Bytes;
use towline_protocol::lsn::Lsn;

use super::overlay::Overlay;
use crate::effects::{EFFECTS_MAX, Effect, Effects, HEADER_LEN, PAYLOAD_LEN_MAX, encoded_len_max};
use crate::store::{StoreError, View};
use crate::value::Value;

/// Why a command has no ordinary answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client's mistake: what it is answered. The rest of the batch goes on.
    Answer(String),
    /// The store failed; nothing of the batch may count.
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A key that the batch has touched.
struct Slot {
    /// Whether the key was there, expired or not, before the batch.
    existed: bool,
    current: Option<Value>,
    /// What the effect on it takes in the record; zero as long as there is none.
    encoded_len: usize,
}

pub(super) struct Batch<'a> {
    view: &'a View<'a>,
    /// `None` on a replica, which sees what is applied.
    overlay: Option<&'a Overlay>,
    now_ms: u64,
    slots: HashMap<Bytes, Slot>,
    saw: Lsn,
    encoded_len: usize,
    effects: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(view: &'a View<'a>, overlay: Option<&'a Overlay>, now_ms: u64) -> Self {
        Self {
            view,
            overlay,
            now_ms,
            slots: HashMap::new(),
            saw: Lsn::ZERO,
            encoded_len: HEADER_LEN,
            effects: 0,
        }
    }

    pub(super) const fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The highest end of a pending record that was looked at.
    pub(super) const fn saw(&self) -> Lsn {
        self.saw
    }

    /// What `key` holds for a client. If that has expired, its delete joins the batch.
    pub(super) fn get(&mut self, key: &Bytes) -> Result<Option<Value>, StoreError> {
        let found = match self.slots.get(key) {
            Some(slot) => slot.current.clone(),
            None => self.look_up(key)?,
        };
        match found {
            Some(value) if value.is_expired(self.now_ms) => {
                self.drop_expired(key);
                Ok(None)
            }
            found => Ok(found),
        }
    }

    /// [`Batch::get`] for a command that is going to write the key: it is not looked up again.
    pub(super) fn get_to_write(&mut self, key: &Bytes) -> Result<Option<Value>, StoreError> {
        if !self.slots.contains_key(key) {
            let current = self.look_up(key)?;
            let slot = Slot { existed: current.is_some(), current, encoded_len: 0 };
            self.slots.insert(key.clone(), slot);
        }
        self.get(key)
    }

    /// Makes sure that `effects` more effects of `encoded_len` bytes fit the record. A command
    /// asks before its first effect, so that it happens as a whole or not at all.
    pub(super) fn reserve(&self, effects: usize, encoded_len: usize) -> Result<(), Failure> {
        if self.fits(effects, encoded_len) {
            Ok(())
        } else {
            let text = format!(
                "ERR the changes do not fit one log record, which holds {EFFECTS_MAX} keys and \
                 {PAYLOAD_LEN_MAX} bytes"
            );
            Err(Failure::Answer(text))
        }
    }

    fn fits(&self, effects: usize, encoded_len: usize) -> bool {
        self.effects.saturating_add(effects) <= EFFECTS_MAX
            && self.encoded_len.saturating_add(encoded_len) <= PAYLOAD_LEN_MAX
    }

    /// Lets `key`, which [`Batch::get_to_write`] has seen, hold `value`, or nothing.
    pub(super) fn set(&mut self, key: &Bytes, value: Option<Value>) {
        let value_len = value.as_ref().map_or(0, |value| value.bytes.len());
        let encoded_len = encoded_len_max(key.len(), value_len);
        let slot = self.slots.get_mut(key).expect("a command looks before it writes");
        self.effects += usize::from(slot.encoded_len == 0);
        self.encoded_len += encoded_len - slot.encoded_len.min(encoded_len);
        self.encoded_len -= slot.encoded_len.saturating_sub(encoded_len);
        slot.encoded_len = encoded_len;
        slot.current = value;
    }

    /// How many keys there are, expired ones included.
    pub(super) fn keys(&mut self) -> u64 {
        let mut delta = self.keys_delta();
        if let Some(overlay) = self.overlay {
            self.saw = self.saw.max(overlay.newest());
            delta += overlay.keys_delta_after(self.view.applied());
        }
        let keys = self.view.keys().checked_add_signed(delta);
        keys.expect("pending deletes are of keys that exist")
    }

    /// The changes as one record's payload; `None` if there are none.
    pub(super) fn into_payload(self) -> Option<Bytes> {
        let keys_delta = self.keys_delta();
        let mut effects = Effects::default();
        for (key, slot) in self.slots {
            match slot.current {
                _ if slot.encoded_len == 0 => {}
                Some(Value { bytes, expires_at_ms }) => {
                    effects.push(Effect::Put { key, value: bytes, expires_at_ms });
                }
                None if slot.existed => effects.push(Effect::Delete { key }),
                None => {}
            }
        }
        (!effects.is_empty()).then(|| Bytes::from(effects.encode(self.now_ms, keys_delta)))
    }

    fn keys_delta(&self) -> i64 {
        let deltas = self
            .slots
            .values()
            .map(|slot| i64::from(slot.current.is_some()) - i64::from(slot.existed));
        deltas.sum()
    }

    /// What `key` holds without the batch, expired or not: pending effects hide the store.
    fn look_up(&mut self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        match self.overlay.and_then(|overlay| overlay.get(key)) {
            Some(pending) => {
                self.saw = self.saw.max(pending.end);
                Ok(pending.value.clone())
            }
            None => self.view.get(key),
        }
    }

    /// Adds the delete of an expired key, unless the record is full: another read will, then.
    fn drop_expired(&mut self, key: &Bytes) {
        if self.fits(1, encoded_len_max(key.len(), 0)) {
            let unseen = Slot { existed: true, current: None, encoded_len: 0 };
            self.slots.entry(key.clone()).or_insert(unseen);
            self.set(key, None);
        }
    }
}
