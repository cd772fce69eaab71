//! The engine: a register for each key, and a digest of everything that was ever applied.

use towline_protocol::lsn::Lsn;

use crate::rng::mix;

/// How many keys clients write and read.
pub(crate) const KEYS: usize = 6;
/// A write begins with its key and its value; anything may follow.
const HEAD_LEN: usize = 9;

/// A key's number and a value that no other write has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Put {
    pub(crate) key: u8,
    pub(crate) value: u64,
}

impl Put {
    /// The record's payload, `extra` bytes longer than it needs to be.
    pub(crate) fn encode(self, extra: usize, into: &mut Vec<u8>) {
        into.clear();
        into.push(self.key);
        into.extend_from_slice(&self.value.to_le_bytes());
        into.resize(HEAD_LEN + extra, self.value as u8);
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (key, rest) = payload.split_first()?;
        let value = u64::from_le_bytes(*rest.first_chunk()?);
        (usize::from(*key) < KEYS).then_some(Self { key: *key, value })
    }
}

/// The state of one node. A copy of it is what a checkpoint leaves on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Engine {
    pub(crate) values: [u64; KEYS],
    pub(crate) digest: u64,
    /// The end of the newest record in it.
    pub(crate) applied: Lsn,
}

impl Engine {
    /// Takes one record, which ends at `end`; `put` if it is a client's.
    pub(crate) fn apply(&mut self, end: Lsn, put: Option<Put>) {
        if let Some(Put { key, value }) = put {
            self.values[usize::from(key)] = value;
            self.digest = mix(self.digest ^ value ^ (u64::from(key) << 56));
        }
        self.applied = end;
    }
}
