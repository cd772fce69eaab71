//! Pipelined commands whose replies leave together.

use towline_protocol::epoch::Epoch;
use towline_protocol::lsn::Lsn;

use crate::resp::{Protocol, Value};

/// The most commands that wait together.
const COMMANDS_MAX: usize = 1024;
/// A batch takes no more commands once its replies have this many bytes.
const REPLY_BYTES_MAX: usize = 1 << 20;

/// What must be true before a reply may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Nothing: it tells of no key, or of committed state only.
    Nothing,
    /// Its own record must be committed.
    Commit {
        /// The end of the record.
        end: Lsn,
    },
    /// What it saw must be committed, and this node must still lead after that.
    Round {
        /// The end of the newest record it saw.
        saw: Lsn,
    },
}

#[derive(Debug)]
struct Pending {
    value: Value,
    protocol: Protocol,
    waits: Waits,
}

/// Replies in the order of their commands, and what they wait for.
#[derive(Debug, Default)]
pub struct Batch {
    epoch: Option<Epoch>,
    pending: Vec<Pending>,
    bytes: usize,
}

/// Replies that may leave.
#[derive(Debug)]
pub struct Settled {
    /// In the order of their commands, each in its protocol.
    pub replies: Vec<(Value, Protocol)>,
    /// Whether the connection must end after them.
    pub close: bool,
}

impl Batch {
    /// Adds the reply of the next command.
    pub fn push(&mut self, value: Value, protocol: Protocol, waits: Waits) {
        self.bytes += value.wire_len();
        self.pending.push(Pending { value, protocol, waits });
    }

    /// Whether no command is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether it must be settled before another command is taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pending.len() >= COMMANDS_MAX || self.bytes >= REPLY_BYTES_MAX
    }

    /// Binds it to an epoch with its first command; whether it is bound to that one.
    pub(crate) fn is_of(&mut self, epoch: Epoch) -> bool {
        *self.epoch.get_or_insert(epoch) == epoch
    }

    /// The epoch its commands were evaluated in, if any was evaluated on the primary.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The end of the newest record that any reply waits for.
    pub(crate) fn highest(&self) -> Lsn {
        let position = |pending: &Pending| match pending.waits {
            Waits::Nothing => Lsn::ZERO,
            Waits::Commit { end } => end,
            Waits::Round { saw } => saw,
        };
        self.pending.iter().map(position).max().unwrap_or(Lsn::ZERO)
    }

    /// Whether any command appended nothing.
    pub(crate) fn needs_round(&self) -> bool {
        self.pending.iter().any(|pending| matches!(pending.waits, Waits::Round { .. }))
    }

    /// The replies; `failed` gives the error that takes a reply's place.
    pub(crate) fn into_settled(
        self,
        mut failed: impl FnMut(Waits) -> Option<Value>,
        close: bool,
    ) -> Settled {
        let settle =
            |pending: Pending| (failed(pending.waits).unwrap_or(pending.value), pending.protocol);
        Settled { replies: self.pending.into_iter().map(settle).collect(), close }
    }
}

#[cfg(test)]
mod tests {
    use towline_protocol::id::Incarnation;

    use super::*;

    #[test]
    fn a_batch_waits_for_its_newest_record_and_stays_in_one_epoch() {
        let mut batch = Batch::default();
        assert_eq!(batch.highest(), Lsn::ZERO);
        let epoch = |number| Epoch { number, incarnation: Incarnation(1) };
        assert!(batch.is_of(epoch(1)) && batch.is_of(epoch(1)) && !batch.is_of(epoch(2)));
        batch.push(Value::OK, Protocol::Resp2, Waits::Commit { end: Lsn::new(64) });
        assert!(!batch.needs_round());
        batch.push(Value::Null, Protocol::Resp2, Waits::Round { saw: Lsn::new(32) });
        assert!(batch.needs_round());
        assert_eq!(batch.highest(), Lsn::new(64));
    }

    #[test]
    fn a_batch_is_bounded_in_commands_and_bytes() {
        let mut many = Batch::default();
        for _ in 0..COMMANDS_MAX {
            assert!(!many.is_full());
            many.push(Value::Null, Protocol::Resp2, Waits::Nothing);
        }
        assert!(many.is_full());
        let mut large = Batch::default();
        let value = Value::bulk(vec![0; REPLY_BYTES_MAX]);
        large.push(value, Protocol::Resp2, Waits::Nothing);
        assert!(large.is_full());
    }
}
