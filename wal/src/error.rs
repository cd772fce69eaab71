//! What can go wrong with a log.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use towline_protocol::epoch::{Epoch, HistoryError};
use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordError;

use crate::segments::{COLD_SEGMENTS, MAPPED_SEGMENTS};

/// So many files one log has open at most, while it is open: its older segments, its mapped ones,
/// the ready ones, the lock, and those that a call opens for itself. Cursors add one each.
pub const OPEN_FILES_MAX: usize = COLD_SEGMENTS + MAPPED_SEGMENTS + 9;

/// Why a log can not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The folder holds no log.
    #[error("{} holds no log: found one first", .0.display())]
    NotFounded(PathBuf),
    /// The folder holds something already, so no log is founded in it.
    #[error("{} is not empty: a log is founded once, in a folder of its own", .0.display())]
    NotEmpty(PathBuf),
    /// Another process has the log open.
    #[error("{} is open in another process: stop that one first", .0.display())]
    Locked(PathBuf),
    /// A file of a later version of this software.
    #[error("{} has format version {version}; this software knows up to {known}: upgrade it",
        .path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
        /// The newest known version.
        known: u16,
    },
    /// A file of another log, segment or size lies among this log's.
    #[error("{} does not belong here: {what}. Nothing was changed", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// Both copies of the control file are unreadable.
    #[error("both control files in {} are damaged: {what}. Nothing was changed; restore one of \
        them, or rebuild this node from its primary", .dir.display())]
    Control {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with them.
        what: String,
    },
    /// A segment's file is missing.
    #[error("segment {base} is missing in {}: nothing was changed; restore the file, or rebuild \
        this node from its primary", .dir.display())]
    MissingSegment {
        /// The folder.
        dir: PathBuf,
        /// The segment's base.
        base: Lsn,
    },
    /// Something that was durable is damaged or gone. Nothing was changed.
    #[error("{} is damaged at Lsn {at}: {what}, though everything below {evidence} was durable. \
        Nothing was changed; repair it from a peer's copy, or rebuild this node", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The first position that does not hold what it should.
        at: Lsn,
        /// Everything below this is known to have been on disk.
        evidence: Lsn,
        /// What is wrong there.
        what: String,
    },
    /// A sync failed. The log takes nothing more until it is opened again.
    #[error("the log is poisoned: {0}. Open it again; it recovers from what the disk holds")]
    Poisoned(String),
    /// No segment could be made ready in time, or a control file not be written; nothing that was
    /// written is at risk.
    #[error("no room for more log: {0}. Free space on its file system; writing goes on by itself")]
    NoSpace(String),
    /// The record is longer than the log takes.
    #[error("a record of {len} bytes is over the limit of {max}")]
    TooLarge {
        /// The payload's length in bytes.
        len: usize,
        /// The limit in bytes.
        max: u64,
    },
    /// A claim that was committed before it was full.
    #[error(
        "a claim of {len} bytes was committed with {filled} of them filled: its place is an \
        ABORT record now; fill all of it first"
    )]
    Unfilled {
        /// What was reserved, in bytes.
        len: u32,
        /// How many were filled.
        filled: u32,
    },
    /// Records that do not follow on the end of this log.
    #[error("a record for Lsn {got} does not follow on this log's end; {expected} does")]
    Gap {
        /// Where the record belongs.
        got: Lsn,
        /// Where the next record of this log goes.
        expected: Lsn,
    },
    /// A BARRIER or SEAL that contradicts this log.
    #[error("epoch {epoch} does not follow on this log: {what}")]
    Fork {
        /// The record's epoch.
        epoch: Epoch,
        /// What contradicts.
        what: String,
    },
    /// Bytes that should be a record are none.
    #[error("no record at Lsn {at}: {source}")]
    Record {
        /// Where it should lie.
        at: Lsn,
        /// What is wrong with it.
        source: RecordError,
    },
    /// A position that is not the boundary of a record, or not in the log.
    #[error("Lsn {0} is no record boundary of this log")]
    NoBoundary(Lsn),
    /// A position whose records were trimmed: whoever stands there fell behind.
    #[error(
        "Lsn {at} is trimmed; the log begins at {oldest}. Read on from there if what is \
        between is not needed, or take a snapshot"
    )]
    Lagged {
        /// The position.
        at: Lsn,
        /// The lowest position of the log.
        oldest: Lsn,
    },
    /// A slot that can not be made or moved.
    #[error("slot {name:?}: {what}")]
    Slot {
        /// Its name.
        name: String,
        /// Why not.
        what: String,
    },
    /// Bytes that do not repair a damaged place. Its segment was not changed.
    #[error("no repair at Lsn {at}: {what}. That segment was not changed")]
    Repair {
        /// Where they fail to.
        at: Lsn,
        /// Why.
        what: String,
    },
    /// More epochs than a history holds, or one that does not follow.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The file system is read-only, or this process may not do that there.
    #[error("{what} {}: {source}. Mount it for writing, or give this process the rights to the \
        folder and all files in it", .path.display())]
    NotWritable {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The process, or the system, has as many files open as it may.
    #[error("{what} {}: too many files are open. A log needs up to {OPEN_FILES_MAX} of them, \
        however long it is: raise the limit (ulimit -n)", .path.display())]
    TooManyFiles {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    /// Whether a file is known not to be what it should; it may be whole if anything else keeps
    /// it from being read.
    pub(crate) const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. }
                | Self::Foreign { .. }
                | Self::MissingSegment { .. }
                | Self::Record { .. }
        )
    }
}

fn is_errno(error: &std::io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Names what failed on which file.
pub(crate) trait AtPath<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, WalError>;
}

impl<T, E: Into<std::io::Error>> AtPath<T> for Result<T, E> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, WalError> {
        self.map_err(|source| {
            let source = source.into();
            let path = path.to_owned();
            if [Errno::MFILE, Errno::NFILE].iter().any(|it| is_errno(&source, *it)) {
                return WalError::TooManyFiles { what, path };
            }
            match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    WalError::NoSpace(format!("{what} {}: {source}", path.display()))
                }
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
                    WalError::NotWritable { what, path, source }
                }
                _ => WalError::Io { what, path, source },
            }
        })
    }
}
