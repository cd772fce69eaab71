//! From commands to replies and effects.
//!
//! On the primary, commands are evaluated in log order against everything that is in the log,
//! applied or not: the store, and an overlay of what it does not have yet. The overlay is looked
//! at first and forgets a record only once the store has it, so an effect is always in one of the
//! two, whatever the applier does meanwhile.

mod batch;
mod execute;
pub(crate) mod number;
mod overlay;

use std::sync::Arc;

use bytes::Bytes;
use towline_protocol::lsn::Lsn;

use crate::command::Command;
use crate::reply::Reply;
use crate::store::{Store, StoreError};
use batch::{Batch, Failure};
use execute::execute;
use overlay::Overlay;

/// What commands answer, and what they change. None of it counts before it is in the log and
/// committed.
#[derive(Debug, Clone)]
#[must_use]
pub struct Evaluation {
    /// One answer per command.
    pub replies: Vec<Reply>,
    /// The payload of the DATA record that makes the changes; `None` if nothing changes.
    pub effects: Option<Bytes>,
    /// The highest end of a record that the answers depend on and that was not applied yet;
    /// [`Lsn::ZERO`] if they depend on applied state alone. They must not leave before this is
    /// committed.
    pub saw: Lsn,
    /// How many records had been recorded before.
    turn: u64,
}

/// Evaluates commands on the primary, one batch after the other.
#[derive(Debug)]
pub struct Evaluator {
    store: Arc<Store>,
    overlay: Overlay,
    pending_bytes_max: usize,
    turn: u64,
}

impl Evaluator {
    /// An evaluator over `store`, full at `pending_bytes_max` bytes of effects not yet applied.
    #[must_use]
    pub fn new(store: Arc<Store>, pending_bytes_max: usize) -> Self {
        Self { store, overlay: Overlay::default(), pending_bytes_max, turn: 0 }
    }

    /// Evaluates a command, or the commands of a transaction, which become one record. `now_ms`
    /// counts from the Unix epoch; should the clock have gone backwards, the time of the newest
    /// record is used instead.
    ///
    /// If it yields effects, append them and [`Evaluator::record`] them before the next
    /// evaluation. If they cannot be appended, drop the evaluation: it has changed nothing.
    ///
    /// Should the store fail, every reply is an error and nothing changes.
    pub fn evaluate(&mut self, commands: &[Command], now_ms: u64) -> Evaluation {
        let view = self.store.view();
        let now_ms = now_ms.max(view.effect_time_ms()).max(self.overlay.effect_time_ms());
        let mut batch = Batch::new(&view, Some(&self.overlay), now_ms);
        let (replies, effects, saw) = match run(&mut batch, commands) {
            Ok(replies) => {
                let saw = batch.saw();
                (replies, batch.into_payload(), saw)
            }
            Err(error) => (vec![store_failed(&error); commands.len()], None, Lsn::ZERO),
        };
        Evaluation { replies, effects, saw, turn: self.turn }
    }

    /// Notes that the evaluation's effects are in the log, in a record that ends at `end`. Does
    /// nothing if it has none.
    ///
    /// # Panics
    /// If another evaluation was recorded in between, or a later `end`: the effects would not be
    /// what the commands mean at their place in the log.
    pub fn record(&mut self, evaluation: &Evaluation, end: Lsn) {
        let Some(effects) = &evaluation.effects else {
            return;
        };
        assert_eq!(evaluation.turn, self.turn, "the record at {end} was overtaken");
        self.turn += 1;
        self.overlay.push(effects, end);
    }

    /// Drops what the store has applied up to `applied`, which must not be ahead of it.
    pub fn forget_applied(&mut self, applied: Lsn) {
        self.overlay.forget_applied(applied);
    }

    /// Drops all effects that are not applied: this node is no primary any more, and other records
    /// may take the place of these. What is evaluated and not recorded yet must not be recorded.
    pub fn clear(&mut self) {
        self.overlay = Overlay::default();
        self.turn += 1;
    }

    /// How much memory the effects not yet applied take, in bytes.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.overlay.bytes()
    }

    /// Whether commands that write should wait for the applier.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pending_bytes() >= self.pending_bytes_max
    }
}

/// Evaluates a command that reads against applied state, on any node. An expired key reads as
/// absent and stays where it is.
#[must_use]
pub fn read(store: &Store, command: &Command, now_ms: u64) -> Reply {
    if command.is_write() {
        return Reply::error("READONLY You can't write against a read only replica.");
    }
    let view = store.view();
    let now_ms = now_ms.max(view.effect_time_ms());
    let mut batch = Batch::new(&view, None, now_ms);
    match run(&mut batch, std::slice::from_ref(command)) {
        Ok(mut replies) => replies.pop().expect("one reply per command"),
        Err(error) => store_failed(&error),
    }
}

fn run(batch: &mut Batch<'_>, commands: &[Command]) -> Result<Vec<Reply>, StoreError> {
    let mut replies = Vec::with_capacity(commands.len());
    for command in commands {
        replies.push(match execute(batch, command) {
            Ok(reply) => reply,
            Err(Failure::Answer(text)) => Reply::error(text),
            Err(Failure::Store(error)) => return Err(error),
        });
    }
    Ok(replies)
}

fn store_failed(error: &StoreError) -> Reply {
    Reply::error(format!("ERR {error}").replace(['\r', '\n'], " "))
}

#[cfg(test)]
mod tests;
