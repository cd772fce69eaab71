//! The reserved entry that says what a state is the state of.

use towline_protocol::lsn::Lsn;
use towline_protocol::wire::{Reader, WireError, Writer};

const VERSION: u8 = 1;

/// What the tree holds as of one record. Written with every record, in the same memtable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// The end of the newest record.
    pub(crate) applied: Lsn,
    /// The highest effect time of any record so far, in milliseconds since the Unix epoch.
    pub(crate) effect_time_ms: u64,
    /// How many user keys there are, expired ones included.
    pub(crate) keys: u64,
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).lsn(self.applied).u64(self.effect_time_ms).u64(self.keys);
        writer.into_bytes()
    }

    pub(crate) fn decode(stored: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(stored);
        match reader.u8("head version")? {
            VERSION => {}
            other => {
                return Err(WireError::invalid("head version", format!("{other} is unknown")));
            }
        }
        let head = Self {
            applied: reader.lsn("applied")?,
            effect_time_ms: reader.u64("effect time")?,
            keys: reader.u64("keys")?,
        };
        reader.finish()?;
        Ok(head)
    }
}
