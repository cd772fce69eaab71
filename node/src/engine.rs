//! The contract of a storage engine.

use std::io::{Read, Write};

use towline_protocol::lsn::Lsn;

/// Why an engine could not do its part. A node whose engine fails stops: its state can no longer
/// be what its log says.
#[derive(Debug, thiserror::Error)]
#[error("the engine failed: {message}")]
pub struct EngineError {
    /// What failed and where, for the operator.
    pub message: String,
}

impl EngineError {
    /// An error that says `message`.
    pub fn new(message: impl ToString) -> Self {
        Self { message: message.to_string() }
    }
}

/// A storage engine: the state that a log's records build.
///
/// The node calls [`Engine::apply`] with every committed DATA record in log order, on one thread,
/// on primaries and replicas alike, and never with a record that could still be cut. The payload
/// is opaque to everything but the engine.
pub trait Engine: Send + Sync + 'static {
    /// Makes the effects of one record visible. `end` is where the record ends in the log;
    /// [`Engine::applied`] is `end` afterwards. Applying must be deterministic: no clock, no
    /// randomness, nothing but the state and the payload.
    ///
    /// # Errors
    /// [`EngineError`] if the record cannot be applied; the node then stops.
    fn apply(&self, end: Lsn, payload: &[u8]) -> Result<(), EngineError>;

    /// The `end` of the newest record the state holds; [`Lsn::ZERO`] for an empty state. After a
    /// restart, replay begins here: it may lag what was applied before, and must never lead the
    /// state.
    fn applied(&self) -> Lsn;

    /// The `end` of the newest record that the state would hold after a crash: the log is kept from
    /// there on, as replay begins there. For an engine that says [`Lsn::ZERO`], as one does that
    /// keeps nothing, the whole log is kept.
    fn durable(&self) -> Lsn {
        Lsn::ZERO
    }

    /// Takes to disk what was applied so far, as [`Engine::durable`] is far behind
    /// [`Engine::applied`] and holds the log up.
    ///
    /// # Errors
    /// [`EngineError`] if the disk fails.
    fn checkpoint(&self) -> Result<(), EngineError> {
        Ok(())
    }

    /// Writes the whole state as of one position, and returns that position. Writers are not
    /// held up.
    ///
    /// # Errors
    /// [`EngineError`] if the state cannot be read or `out` cannot be written.
    fn snapshot(&self, out: &mut dyn Write) -> Result<Lsn, EngineError>;

    /// Replaces the whole state by a snapshot, and returns its position.
    ///
    /// # Errors
    /// [`EngineError`] if `from` is no whole snapshot; the state is then unchanged.
    fn restore(&self, from: &mut dyn Read) -> Result<Lsn, EngineError>;
}
