use std::io;
use std::path::{Path, PathBuf};

use towline::EngineError;
use towline_protocol::lsn::Lsn;
use towline_protocol::wire::WireError;

/// Why the store could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the folder open.
    #[error("{path}: the store is open in another process; stop that one first")]
    Locked {
        /// The store's folder.
        path: PathBuf,
    },
    /// The folder does not hold what this crate wrote.
    #[error(
        "{path}: the store is damaged: {reason}; move the folder away, and the node takes a \
         snapshot from a peer"
    )]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk or the tree on it failed.
    #[error("{path}: {reason}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// A record's payload holds no effects.
    #[error("the record that ends at {end} holds no valid effects: {source}")]
    Effects {
        /// Where the record ends.
        end: Lsn,
        /// What is wrong.
        source: WireError,
    },
    /// A record came a second time, or out of order.
    #[error("the record that ends at {end} is not newer than {applied}, which is applied")]
    NotNewer {
        /// Where the record ends.
        end: Lsn,
        /// The end of the newest record applied.
        applied: Lsn,
    },
    /// A record would leave less than no keys.
    #[error(
        "the record that ends at {end} changes {keys} keys by {delta}: the state is \
         not the one it was made for"
    )]
    KeyCount {
        /// Where the record ends.
        end: Lsn,
        /// The number of keys before it.
        keys: u64,
        /// The change it asks for.
        delta: i64,
    },
    /// A stream is no whole snapshot.
    #[error("the snapshot is not whole: {0}; fetch it again")]
    Snapshot(String),
    /// Writing memtables to disk failed earlier; the store takes no more records.
    #[error("the store stopped when its background work failed: {0}")]
    Stopped(String),
}

impl StoreError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, reason: error.to_string() }
    }

    pub(super) fn tree(path: &Path) -> impl FnOnce(lsm_tree::Error) -> Self {
        let path = path.to_owned();
        move |error| match error {
            lsm_tree::Error::Io(error) => Self::Io { path, reason: error.to_string() },
            damage => Self::Damaged { path, reason: format!("{damage:?}") },
        }
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        Self::new(error)
    }
}
