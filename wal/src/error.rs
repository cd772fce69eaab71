//! What can go wrong with a log.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use towline_protocol::epoch::{Epoch, HistoryError};
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{RecordError, RecordKind};

use crate::provision::READY_SEGMENTS;
use crate::segments::{COLD_SEGMENTS, MAPPED_SEGMENTS};

/// The most files one open log holds open: its older segments, its mapped ones, the ready ones,
/// the lock, and those that a call opens for itself. Cursors add one each.
pub const OPEN_FILES_MAX: usize =
    COLD_SEGMENTS + MAPPED_SEGMENTS + READY_SEGMENTS + LOCK_FILES + CALL_FILES;

/// The lock on the folder.
const LOCK_FILES: usize = 1;
/// What calls open for themselves, all that run at once together.
const CALL_FILES: usize = 6;

/// Why a log can not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The folder holds no log.
    #[error("{} holds no log: create one with `found`, or `towline init`", .0.display())]
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
    /// Something that was durable is damaged or gone. No valid record was removed.
    #[error("{} is damaged at Lsn {at}: {what}, though everything below {evidence} was durable. \
        No valid record was removed; repair it from a peer's copy, or rebuild this node",
        .path.display())]
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
    #[error(
        "the log is poisoned: {0}. Drop every handle of it and open it again; it recovers \
        from what the disk holds"
    )]
    Poisoned(String),
    /// The file system is full, so that no segment can be made ready, or a file not be written;
    /// nothing that was written is at risk.
    #[error("no room for more log: {0}. Free space on its file system; writing goes on by itself")]
    NoSpace(String),
    /// No segment was ready in time, though the file system is not full; nothing that was written
    /// is at risk.
    #[error("no segment was ready for it within {} s: {why}. It is not in the log: try again once \
        that is seen to", .waited.as_secs())]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// What keeps the next segment from being ready.
        why: String,
    },
    /// A record of a kind that only the log itself makes.
    #[error(
        "a record of kind {0:?} is made by the log itself: append DATA or END; an epoch is \
        begun by `begin_epoch`"
    )]
    ReservedKind(RecordKind),
    /// A record before any epoch: nobody could say whose it is.
    #[error(
        "the log has no epoch yet: begin one first, by `begin_epoch`; a log that no other node \
        shares is opened ready for records by `Wal::open_alone`"
    )]
    NoEpoch,
    /// The record is longer than the log takes.
    #[error(
        "a record of {len} bytes is over the limit of {max}: split it, or found the log with \
        larger segments, of which a record is at most a quarter, and 16 MiB"
    )]
    TooLarge {
        /// The payload's length in bytes.
        len: usize,
        /// The limit in bytes.
        max: u64,
    },
    /// More bytes for a claim than remain to be filled.
    #[error("a claim has room for {left} bytes more, not for {len}: reserve as many as will come")]
    Overfilled {
        /// How many were to be filled.
        len: usize,
        /// How many remain.
        left: usize,
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
    #[error(
        "a record for Lsn {got} does not follow on this log's end: have the sender begin at \
        {expected}"
    )]
    Gap {
        /// Where the record belongs.
        got: Lsn,
        /// Where the next record of this log goes.
        expected: Lsn,
    },
    /// A BARRIER or SEAL that contradicts this log.
    #[error(
        "epoch {epoch} does not follow on this log: {what}. The two logs part here: cut this one \
        back to where they agree, or refuse the sender"
    )]
    Fork {
        /// The record's epoch.
        epoch: Epoch,
        /// What contradicts.
        what: String,
    },
    /// Bytes that should be a record are none.
    #[error(
        "no record at Lsn {at}: {source}. Have the sender send it again; in a folder, repair it \
        from a peer's copy"
    )]
    Record {
        /// Where it should lie.
        at: Lsn,
        /// What is wrong with it.
        source: RecordError,
    },
    /// A position that is not the boundary of a record, or not in the log.
    #[error(
        "Lsn {0} is no record boundary of this log: it is inside a record, or past the end. Use \
        where a record that was appended or read begins or ends"
    )]
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
    #[error("{what} {}: {source}. Nothing that was flushed is at risk; see to the disk, then \
        open the log again", .path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The log is closed.
    #[error("the log is closed: open it again")]
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
