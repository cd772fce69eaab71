//! Commands as clients type them, checked as far as that goes without looking at any key.

mod parse;
mod table;

use bytes::Bytes;

pub use table::{CommandSpec, commands};

/// A command on keys, ready to be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// GET.
    Get {
        /// The key.
        key: Bytes,
    },
    /// SET, SETNX, SETEX and GETSET.
    Set {
        /// The key.
        key: Bytes,
        /// What it shall hold.
        value: Bytes,
        /// Under which condition, until when, and what is answered.
        options: SetOptions,
    },
    /// DEL and UNLINK.
    Del {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// EXISTS.
    Exists {
        /// The keys; one that is named twice counts twice.
        keys: Vec<Bytes>,
    },
    /// MGET.
    MGet {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// MSET.
    MSet {
        /// Keys with what they shall hold.
        pairs: Vec<(Bytes, Bytes)>,
    },
    /// INCR, DECR, INCRBY and DECRBY.
    IncrBy {
        /// The key.
        key: Bytes,
        /// What is added.
        delta: i64,
    },
    /// STRLEN.
    StrLen {
        /// The key.
        key: Bytes,
    },
    /// TTL and PTTL.
    Ttl {
        /// The key.
        key: Bytes,
        /// What the answer counts.
        unit: TimeUnit,
    },
    /// EXPIRE and PEXPIRE.
    Expire {
        /// The key.
        key: Bytes,
        /// From now on; gone at once if not positive.
        after: i64,
        /// What `after` counts.
        unit: TimeUnit,
        /// Under which condition.
        condition: ExpireCondition,
    },
    /// PERSIST.
    Persist {
        /// The key.
        key: Bytes,
    },
    /// DBSIZE.
    DbSize,
    /// APPEND.
    Append {
        /// The key.
        key: Bytes,
        /// What is added at the end.
        value: Bytes,
    },
    /// GETDEL.
    GetDel {
        /// The key.
        key: Bytes,
    },
    /// A command whose arguments make no sense, queued nonetheless: as in Redis, a transaction
    /// finds that out only when it runs, and its other commands take effect.
    Failing {
        /// What it answers.
        error: String,
    },
}

/// What a time in a command counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// Until when a SET holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetExpiry {
    /// For ever; an earlier expiry is dropped.
    #[default]
    Never,
    /// As the key had it.
    Keep,
    /// So long from now on; positive.
    After(i64, TimeUnit),
    /// Until then, counted from the Unix epoch; positive.
    At(i64, TimeUnit),
}

/// Under which condition a SET takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetCondition {
    /// Always.
    #[default]
    Always,
    /// Only if the key does not exist.
    Absent,
    /// Only if the key exists.
    Present,
}

/// What a SET answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetAnswer {
    /// OK, or nothing if the condition failed.
    #[default]
    Ok,
    /// What the key held before, whether or not the condition held.
    Old,
    /// 1, or 0 if the condition failed.
    Flag,
}

/// The options of a SET.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetOptions {
    /// Under which condition it takes effect.
    pub condition: SetCondition,
    /// Until when it holds.
    pub expiry: SetExpiry,
    /// What it answers.
    pub answer: SetAnswer,
    /// The name of the command in errors.
    pub name: &'static str,
}

/// Under which conditions an EXPIRE takes effect; all that are set must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExpireCondition {
    /// NX: only if the key has no expiry.
    pub without: bool,
    /// XX: only if the key has an expiry.
    pub with: bool,
    /// GT: only if the new expiry is later; none counts as endless.
    pub later: bool,
    /// LT: only if the new expiry is earlier.
    pub earlier: bool,
}

/// Why arguments are no command. Its text is what the client is answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such command here.
    #[error("ERR unknown command '{name}', with args beginning with: {args}")]
    Unknown {
        /// The name, cut to what an error may carry.
        name: String,
        /// The first arguments, quoted.
        args: String,
    },
    /// Too few arguments, or too many.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    /// Arguments that make no sense.
    #[error("{0}")]
    Invalid(String),
}

impl CommandError {
    /// Whether a transaction refuses the command when it is queued, and fails as a whole then. If
    /// not, [`Command::Failing`] takes its place in the queue.
    #[must_use]
    pub const fn refuses_queueing(&self) -> bool {
        !matches!(self, Self::Invalid(_))
    }
}

impl Command {
    /// The command in `args`, its name first.
    ///
    /// # Errors
    /// [`CommandError`], with Redis's words.
    pub fn parse(args: &[Bytes]) -> Result<Self, CommandError> {
        parse::parse(args)
    }

    /// The command in `args` for the queue of a transaction.
    ///
    /// # Errors
    /// [`CommandError`] if the transaction must be refused as a whole.
    pub fn parse_queued(args: &[Bytes]) -> Result<Self, CommandError> {
        match Self::parse(args) {
            Err(error) if !error.refuses_queueing() => {
                Ok(Self::Failing { error: error.to_string() })
            }
            parsed => parsed,
        }
    }

    /// The command of this name, in capitals or not; `None` if there is none here.
    #[must_use]
    pub fn known(name: &[u8]) -> Option<&'static CommandSpec> {
        table::find(name)
    }

    /// Whether a replica refuses the command. A command that only reads may still delete what it
    /// finds expired.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        match self {
            Self::Get { .. }
            | Self::Exists { .. }
            | Self::MGet { .. }
            | Self::StrLen { .. }
            | Self::Ttl { .. }
            | Self::DbSize
            | Self::Failing { .. } => false,
            Self::Set { .. }
            | Self::Del { .. }
            | Self::MSet { .. }
            | Self::IncrBy { .. }
            | Self::Expire { .. }
            | Self::Persist { .. }
            | Self::Append { .. }
            | Self::GetDel { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests;
