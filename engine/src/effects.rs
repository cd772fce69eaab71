//! What a DATA record of this engine carries: the effects of a batch of commands.
//!
//! ```text
//!  version u8 = 1 │ effect_time_ms u64 │ keys_delta i64 │ count u32 │ effect × count
//!
//!  put            1 u8 │ key_len u16 │ key │ value_len u32 │ value
//!  expiring put   2 u8 │ key_len u16 │ key │ expires_at_ms u64 │ value_len u32 │ value
//!  delete         3 u8 │ key_len u16 │ key
//! ```
//!
//! All little endian. Keys ascend strictly, so there is one effect per key, and a batch has one
//! encoding. `keys_delta` is by how much the batch changes the number of keys: whoever evaluated
//! it had to look, whoever replays it need not.

use std::collections::BTreeMap;

use bytes::Bytes;
use towline_protocol::record::RECORD_PAYLOAD_MAX;
use towline_protocol::wire::{Reader, WireError, Writer};

use crate::value::{Value, write_value};

/// The longest key, in bytes.
pub const KEY_LEN_MAX: usize = u16::MAX as usize - 1;
/// The most effects one record carries.
pub const EFFECTS_MAX: usize = 1 << 20;
/// The longest encoded batch, in bytes: what one record may carry.
pub const PAYLOAD_LEN_MAX: usize = RECORD_PAYLOAD_MAX as usize;

const VERSION: u8 = 1;
const PUT: u8 = 1;
const PUT_EXPIRING: u8 = 2;
const DELETE: u8 = 3;
/// The bytes in front of the first effect.
pub(crate) const HEADER_LEN: usize = 1 + 8 + 8 + 4;
/// The most bytes an effect takes besides its key and its value.
const EFFECT_OVERHEAD: usize = 1 + 2 + 8 + 4;

/// What becomes of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The key holds this value.
    Put {
        /// The key.
        key: Bytes,
        /// What it holds from now on.
        value: Bytes,
        /// When that expires, in milliseconds since the Unix epoch; `None` for never.
        expires_at_ms: Option<u64>,
    },
    /// The key is gone.
    Delete {
        /// The key.
        key: Bytes,
    },
}

/// One effect, borrowed from an encoded batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectRef<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What the key holds afterwards, and until when; `None` if it is gone.
    pub put: Option<(&'a [u8], Option<u64>)>,
}

/// An upper bound of what a put or a delete adds to an encoded batch, in bytes.
#[must_use]
pub const fn encoded_len_max(key_len: usize, value_len: usize) -> usize {
    EFFECT_OVERHEAD + key_len + value_len
}

/// The effects of one batch, before it is encoded: at most one per key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Effects {
    by_key: BTreeMap<Bytes, Option<Value>>,
}

impl Effects {
    /// Adds an effect. A later one on the same key replaces the earlier: the state between two
    /// effects of one record is never seen by anybody.
    ///
    /// # Panics
    /// If the key is longer than [`KEY_LEN_MAX`]; commands with such keys are refused when parsed.
    pub fn push(&mut self, effect: Effect) {
        let (key, value) = match effect {
            Effect::Put { key, value, expires_at_ms } => {
                (key, Some(Value { bytes: value, expires_at_ms }))
            }
            Effect::Delete { key } => (key, None),
        };
        assert!(key.len() <= KEY_LEN_MAX, "a key of {} bytes got past the parser", key.len());
        self.by_key.insert(key, value);
    }

    /// How many keys are touched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The batch as a record's payload. `effect_time_ms` is the time it was evaluated at,
    /// `keys_delta` by how much it changes the number of keys.
    ///
    /// # Panics
    /// Past [`EFFECTS_MAX`] effects or [`PAYLOAD_LEN_MAX`] bytes, which the evaluator refuses.
    #[must_use]
    pub fn encode(&self, effect_time_ms: u64, keys_delta: i64) -> Vec<u8> {
        assert!(self.len() <= EFFECTS_MAX, "{} effects got past the evaluator", self.len());
        let mut writer = Writer::new();
        writer.u8(VERSION).u64(effect_time_ms).u64(keys_delta.cast_unsigned());
        writer.u32(self.len() as u32);
        for (key, value) in &self.by_key {
            writer.u8(match value {
                None => DELETE,
                Some(Value { expires_at_ms: None, .. }) => PUT,
                Some(_) => PUT_EXPIRING,
            });
            writer.u16(key.len() as u16).bytes(key);
            if let Some(value) = value {
                write_value(&mut writer, value);
            }
        }
        let payload = writer.into_bytes();
        assert!(payload.len() <= PAYLOAD_LEN_MAX, "{} bytes got past the evaluator", payload.len());
        payload
    }
}

/// An encoded batch that was found whole.
#[derive(Debug, Clone, Copy)]
pub struct Decoded<'a> {
    /// When the batch was evaluated, in milliseconds since the Unix epoch.
    pub effect_time_ms: u64,
    /// By how much the batch changes the number of keys.
    pub keys_delta: i64,
    count: u32,
    effects: &'a [u8],
}

impl<'a> Decoded<'a> {
    /// Checks the whole of `payload`, so that a batch is applied as a whole or not at all.
    /// Allocates nothing.
    ///
    /// # Errors
    /// [`WireError`] with the field that is wrong.
    pub fn new(payload: &'a [u8]) -> Result<Self, WireError> {
        if payload.len() > PAYLOAD_LEN_MAX {
            let reason = format!("{} bytes are over {PAYLOAD_LEN_MAX}", payload.len());
            return Err(WireError::invalid("effects", reason));
        }
        let mut reader = Reader::new(payload);
        match reader.u8("effects version")? {
            VERSION => {}
            other => {
                let reason = format!("{other} is not a version this node knows; upgrade it");
                return Err(WireError::invalid("effects version", reason));
            }
        }
        let effect_time_ms = reader.u64("effect time")?;
        let keys_delta = reader.u64("keys delta")?.cast_signed();
        let count = reader.u32("effect count")?;
        if count as usize > EFFECTS_MAX || keys_delta.unsigned_abs() > u64::from(count) {
            let reason = format!("{count} effects, {keys_delta} more keys");
            return Err(WireError::invalid("effect count", reason));
        }
        let mut previous: Option<&[u8]> = None;
        for _ in 0..count {
            let effect = read_effect(&mut reader)?;
            if previous.is_some_and(|previous| previous >= effect.key) {
                return Err(WireError::invalid("effect key", "keys do not ascend"));
            }
            previous = Some(effect.key);
        }
        reader.finish()?;
        Ok(Self { effect_time_ms, keys_delta, count, effects: &payload[HEADER_LEN..] })
    }

    /// How many effects there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The effects, in key order.
    pub fn effects(&self) -> impl Iterator<Item = EffectRef<'a>> + use<'a> {
        let mut reader = Reader::new(self.effects);
        (0..self.count).map(move |_| read_effect(&mut reader).expect("the batch was checked whole"))
    }
}

fn read_effect<'a>(reader: &mut Reader<'a>) -> Result<EffectRef<'a>, WireError> {
    let tag = reader.u8("effect tag")?;
    let key_len = usize::from(reader.u16("key length")?);
    if key_len > KEY_LEN_MAX {
        return Err(WireError::invalid("key length", format!("{key_len} is over {KEY_LEN_MAX}")));
    }
    let key = reader.bytes("key", key_len)?;
    let expires_at_ms = match tag {
        DELETE => return Ok(EffectRef { key, put: None }),
        PUT => None,
        PUT_EXPIRING => Some(reader.u64("expiry")?),
        unknown => {
            return Err(WireError::invalid("effect tag", format!("{unknown} is unknown")));
        }
    };
    let value_len = reader.u32("value length")? as usize;
    Ok(EffectRef { key, put: Some((reader.bytes("value", value_len)?, expires_at_ms)) })
}

#[cfg(test)]
mod tests;
