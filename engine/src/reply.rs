//! What a command answers, before it is put into a protocol's bytes.

use bytes::Bytes;

/// An answer that RESP2 and RESP3 can both express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `OK`.
    Ok,
    /// Another short status.
    Simple(&'static str),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Bytes),
    /// Nothing: the key or the value does not exist.
    Null,
    /// Several answers.
    Array(Vec<Self>),
    /// No array at all, as an EXEC answers whose watched keys changed.
    NullArray,
    /// What went wrong: a code in capitals, a blank, and a sentence. No line breaks.
    Error(String),
}

impl Reply {
    /// An error that says `message`, which begins with its code.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::Error(message.into())
    }

    /// Whether this is an error.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}
