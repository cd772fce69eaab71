//! What the server remembers of one connection.

use std::sync::Arc;

use towline::Token;
use towline_engine::Command;

use crate::clients::Client;
use crate::resp::{Protocol, Value};

/// The most commands a transaction may queue.
const QUEUE_COMMANDS_MAX: usize = 65_536;
/// The most bytes of arguments a transaction may queue: more would not fit a record.
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// One connection's state.
#[derive(Debug)]
pub struct Session {
    /// Who it is.
    pub client: Arc<Client>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its transaction, if it has begun one.
    pub transaction: Option<Transaction>,
    /// Its last write.
    pub last_write: Option<Token>,
    /// Whether it asked to be closed.
    pub closing: bool,
}

impl Session {
    /// The state of a new connection.
    #[must_use]
    pub fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            protocol: Protocol::Resp2,
            transaction: None,
            last_write: None,
            closing: false,
        }
    }
}

/// A queued command.
#[derive(Debug)]
pub enum Queued {
    /// One on keys.
    Keys(Command),
    /// One whose reply depends on no key, given when it was queued.
    Answered(Value),
}

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Transaction {
    queue: Vec<Queued>,
    bytes: usize,
    spoiled: bool,
}

impl Transaction {
    /// Queues a command whose arguments have `len` bytes; whether there was room.
    pub fn queue(&mut self, command: Queued, len: usize) -> bool {
        if self.queue.len() >= QUEUE_COMMANDS_MAX || self.bytes + len > QUEUE_BYTES_MAX {
            self.spoil();
            return false;
        }
        self.bytes += len;
        self.queue.push(command);
        true
    }

    /// Makes its EXEC fail, and forgets what it queued.
    pub fn spoil(&mut self) {
        self.spoiled = true;
        self.queue = Vec::new();
        self.bytes = 0;
    }

    /// What was queued; `None` if it was spoiled.
    #[must_use]
    pub fn into_queue(self) -> Option<Vec<Queued>> {
        (!self.spoiled).then_some(self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_bounded_and_a_refused_command_spoils_it() {
        let mut transaction = Transaction::default();
        assert!(transaction.queue(Queued::Answered(Value::OK), QUEUE_BYTES_MAX));
        assert!(!transaction.queue(Queued::Answered(Value::OK), 1));
        assert!(transaction.into_queue().is_none());

        let mut transaction = Transaction::default();
        for _ in 0..QUEUE_COMMANDS_MAX {
            assert!(transaction.queue(Queued::Answered(Value::OK), 1));
        }
        assert!(!transaction.queue(Queued::Answered(Value::OK), 1));
    }
}
