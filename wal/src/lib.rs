//! A memory-mapped, checksummed write-ahead log.
//!
//! The log is one endless byte space cut into segment files. Records carry a *promise*, how far
//! the log was durable here when they were made, and that is what tells a torn tail, which is
//! nobody's loss, from corruption, which is somebody's. The format and the argument for it are in
//! `docs/design/wal-format.md`.
//!
//! - [`Log::append`] and the write path: `log`; group commit: `sync`; ready segments: `provision`;
//! - [`Log::receive`], for records that another node made: `receive`;
//! - [`Cursor`], which hands out the same bytes again: `cursor`;
//! - opening: `recovery`; [`cut`]: `cut`;
//! - [`Disk`], which every call goes through; [`simulated`], a disk in memory that fails on demand.

#![deny(unsafe_code)]

mod check;
mod claim;
mod control;
mod crash;
mod cursor;
mod cursor_wait;
mod cut;
mod digests;
mod disk;
mod error;
mod header;
mod log;
mod map;
mod newest;
pub mod planted;
mod provision;
mod reader;
mod receive;
mod recovery;
mod repair;
mod report;
mod scan;
mod scrub;
mod segment;
mod segments;
pub mod simulated;
mod slots;
mod state;
mod sync;
mod trim;
mod wal;

#[cfg(test)]
extern crate self as towline_wal;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

pub use check::{DAMAGE_MAX, Damage, SegmentCheck};
pub use claim::Claim;
pub use control::{
    CLUSTER_NAME_LEN_MAX, Control, CutMark, Founding, Role, found, found_on, read_control,
    read_control_on,
};
pub use cursor::{Chunk, Cursor, Level, PINNED_SEGMENTS_MAX, Record};
pub use cut::{CutReport, cut};
pub use disk::{Access, Disk, DiskFile, DiskLock, FileDisk, Mapping};
pub use error::{OPEN_FILES_MAX, WalError};
pub use log::{Appended, Log};
pub use reader::{LogReader, ReadRecord, Verdict, read_log, read_log_on};
pub use repair::{RepairReport, repair};
pub use report::{Report, Witness};
pub use scrub::Scrub;
pub use slots::{SLOT_NAME_LEN_MAX, SLOTS_MAX, Slot};
pub use towline_protocol::frame::SegmentIdentity;
pub use trim::{Oldest, TrimReport};
pub use wal::{Options, SyncMode, Wal};
