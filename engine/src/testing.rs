//! What the tests of this crate share.

use bytes::Bytes;

use crate::effects::{Effect, Effects};

/// A small generator of the same numbers on every run.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// The payload that puts `value` at `key`, adding `keys_delta` keys.
pub(crate) fn put(key: &str, value: &str, keys_delta: i64) -> Vec<u8> {
    let mut effects = Effects::default();
    effects.push(Effect::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        expires_at_ms: None,
    });
    effects.encode(1, keys_delta)
}
