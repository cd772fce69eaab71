//! What can go wrong with a node, one type per thing asked of it.

use std::path::PathBuf;

use towline_protocol::epoch::Epoch;
use towline_protocol::id::NodeId;
use towline_protocol::machine::Failure;
use towline_wal::WalError;

use crate::refusals::PeerError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data folder holds no log.
    #[error(
        "{} holds no log: an empty folder never votes or leads. Found the cluster once with \
         `towline init`, or point data_dir at the folder it made", .0.display()
    )]
    NotFounded(PathBuf),
    /// More than one log; this version runs one.
    #[error("{} holds {count} logs; this version serves one", .path.display())]
    ManyLogs {
        /// The folder.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// The folder is another node's or another cluster's.
    #[error("{}: {what}. Correct the configuration or data_dir", .path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// The log does not open.
    #[error(transparent)]
    Log(#[from] WalError),
    /// A file or address can not be used.
    #[error("{what}: {source}")]
    Io {
        /// Which, and what for.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The certificate can not be used, or the endpoint not be bound.
    #[error("{0}")]
    Transport(String),
}

/// Why a record was not appended. It is not in the log.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// This node is not, or no longer, the open primary of that epoch.
    #[error("this node is not the primary of epoch {0}")]
    NotPrimary(Epoch),
    /// The record is longer than a log of this segment size takes.
    #[error("a record of {len} bytes is over the limit of {max}")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The log takes nothing: it is full or poisoned.
    #[error("the log takes no writes: {0}")]
    Log(WalError),
}

/// Why a wait ended without what it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// Not acknowledged in time. The write may still commit, or may be cut: neither is known.
    #[error("not acknowledged in time")]
    Timeout,
    /// This node is no longer the primary of that epoch. The same holds.
    #[error("this node is no longer the primary of that epoch")]
    Deposed,
}

/// Why a node did not become primary.
#[derive(Debug, thiserror::Error)]
pub enum PromotionError {
    /// The rules or the hook said no; the reason says what to do.
    #[error("refused: {0}")]
    Refused(String),
    /// Too few voters could be reached to be sure that nothing is lost.
    #[error("refused: {0}. Start another voter")]
    Unreachable(String),
    /// It is not done in time; it may still succeed.
    #[error("not done in time: {0}")]
    Timeout(String),
}

impl From<Failure> for PromotionError {
    fn from(failure: Failure) -> Self {
        match &failure {
            Failure::TooFew { .. } => Self::Unreachable(failure.to_string()),
            Failure::TooLong(_) => Self::Timeout(failure.to_string()),
            Failure::PrimaryAlive { node, .. } => Self::Refused(format!(
                "{failure}. Stop {node} first, or repeat with force: acknowledged writes are kept"
            )),
            _ => Self::Refused(failure.to_string()),
        }
    }
}

/// A peer that can not be asked right now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no address is configured for {0}")]
    NoAddress(NodeId),
    #[error("{address} of {node} does not resolve: {reason}")]
    Unresolved { node: NodeId, address: String, reason: String },
    #[error("{node} can not be reached: {reason}")]
    Connect { node: NodeId, reason: String },
    #[error("{node} did not answer in time")]
    Silent { node: NodeId },
    #[error("{node}: {source}")]
    Answer { node: NodeId, source: PeerError },
}
