//! The storage engine of a simulated node: the list of what it was given, in memory.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use towline::{Engine, EngineError};
use towline_protocol::id::NodeId;
use towline_protocol::lsn::Lsn;

use crate::ledger::Ledger;

/// What a record holds: a value no other record holds, and filling that follows from it.
pub(crate) fn payload(value: u64, len: usize) -> Vec<u8> {
    let filling = value.to_le_bytes().into_iter().cycle().skip(8).map(|byte| byte ^ 0x5a);
    value.to_le_bytes().into_iter().chain(filling).take(len.max(8)).collect()
}

/// The value of a record, if it is whole.
pub(crate) fn value_of(payload: &[u8]) -> Option<u64> {
    let value = u64::from_le_bytes(payload.get(..8)?.try_into().ok()?);
    (self::payload(value, payload.len()) == payload).then_some(value)
}

/// An engine. What it was given it also tells the ledger.
pub(crate) struct List {
    node: NodeId,
    ledger: Arc<Ledger>,
    applied: Mutex<Vec<(Lsn, u64)>>,
}

impl List {
    pub(crate) const fn new(node: NodeId, ledger: Arc<Ledger>) -> Self {
        Self { node, ledger, applied: Mutex::new(Vec::new()) }
    }

    /// What its disk holds after a crash: any prefix, for an engine writes when it likes.
    pub(crate) fn reborn(&self, keep: usize) -> Self {
        let mut applied = self.applied().clone();
        applied.truncate(keep);
        Self { node: self.node, ledger: Arc::clone(&self.ledger), applied: Mutex::new(applied) }
    }

    /// Every record, by where it ends.
    pub(crate) fn applied(&self) -> MutexGuard<'_, Vec<(Lsn, u64)>> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for List {
    fn apply(&self, end: Lsn, payload: &[u8]) -> Result<(), EngineError> {
        let mut applied = self.applied();
        let before = applied.last().map_or(Lsn::ZERO, |(end, _)| *end);
        match value_of(payload) {
            Some(value) => {
                self.ledger.applied(self.node, before, end, value);
                applied.push((end, value));
            }
            None => self.ledger.violated(format!("{} applied a torn record at {end}", self.node)),
        }
        Ok(())
    }

    fn applied(&self) -> Lsn {
        self.applied().last().map_or(Lsn::ZERO, |(end, _)| *end)
    }

    fn snapshot(&self, _: &mut dyn Write) -> Result<Lsn, EngineError> {
        Err(EngineError::new("it takes no snapshots"))
    }

    fn restore(&self, _: &mut dyn Read) -> Result<Lsn, EngineError> {
        Err(EngineError::new("it takes no snapshots"))
    }
}
