//! A memory-mapped, checksummed write-ahead log that tells a torn tail from corruption.
//!
//! The log is one endless byte space cut into segment files. A position in it is an
//! [`Lsn`], a byte address, and the same record has the same one on
//! every node. Every record carries a *promise*, how far the log was durable here when it was
//! made. Opening weighs what is broken against the promises that are left: what nobody promised is
//! a torn tail, which is cut off and kept aside; what somebody promised is a loss, which is
//! refused, named, and can be repaired from a peer's bytes.
//!
//! ```
//! use towline_wal::{Level, Lsn, Options, RecordKind, Wal};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let dir = folder.path().join("log");
//! let (wal, report) = Wal::open_alone(&dir, Options::default())?;
//! println!("{report}");
//! // What the store had not applied before, from where it was on.
//! let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed)?;
//! while let Some(record) = cursor.next_record()? {
//!     if record.header.kind == RecordKind::Data {
//!         println!("{} holds {:?}", record.header.lsn, record.payload);
//!     }
//! }
//! let appended = wal.append(RecordKind::Data, 0, b"hello")?;
//! wal.wait_flushed(appended.end)?;
//! # let record = cursor.next_record()?.expect("it is flushed");
//! # assert_eq!(&record.payload[..], b"hello");
//! # assert_eq!(wal.flushed(), appended.end);
//! wal.shutdown()?;
//! # Ok(())
//! # }
//! ```
//!
//! With replicas, a log is founded for a cluster and its epochs are begun by whoever leads:
//! [`found`], [`Wal::open`], [`Log::begin_epoch`].
//!
//! # What there is
//!
//! - **Writing**: [`Log::append`]; [`Log::reserve`] for a [`Claim`] that is filled piece by piece;
//!   [`Log::begin_epoch`]; [`Log::receive`] for records that another node made. An append copies
//!   into resident memory; it allocates, syncs and faults nothing in.
//! - **Syncing**: [`Log::flush`] and [`Log::wait_flushed`] lead a sync or join one, and
//!   [`Log::until_flushed`] is for tasks; one sync releases everybody it covers. [`SyncMode`] says
//!   when the log syncs by itself, and [`Log::sync_in_flight_for`] tells a disk that stalls. A
//!   failed sync poisons the log: it takes nothing more until it is opened again.
//! - **Reading**: [`Wal::cursor`], from any position, waiting at the end if asked to, handing out
//!   [`Bytes`](bytes::Bytes) without copying; [`read_log`], of a folder that is not opened.
//! - **Keeping**: [`Log::create_slot`] keeps the log for a named reader, up to a bound;
//!   [`Log::trim`] takes off what nobody needs; who stood there is told [`WalError::Lagged`].
//! - **Healing**: [`Wal::scrub`] finds rot while the log runs; [`Log::repair`] and [`repair()`] put
//!   back what a peer still has, if the checksums and the digest say that it is right.
//! - **Opening**: [`Wal::open`] costs the tail, however long the log is, and its [`Report`] says
//!   what was found and done; [`cut()`] takes a tail off on purpose.
//! - **Testing**: every call goes through a [`Disk`]; [`simulated`] is one in memory that loses
//!   power, fails syncs, fills up and rots when it is told to.
//!
//! # What is promised
//!
//! What [`Log::flushed`] covers is there after any crash, as far as the medium does what
//! `docs/design/recovery.md` of the repository assumes of it. What it does not cover may be there,
//! in order and without a gap, or be gone. The verdict is exact as far as promises reach: a flushed
//! batch whose every trace is gone looks like one that never was, unless
//! [`Options::expect_durable`] or the note of a clean close says otherwise. The format, byte by
//! byte, is in `docs/design/wal-format.md`.
//!
//! # What it costs
//!
//! Linux, 64 bit. A log has a segment in use and two that are ready, 64 MiB each unless
//! [`Founding::segment_size`] says otherwise: 192 MiB before the first record. It has two threads
//! and up to [`OPEN_FILES_MAX`] files open. A record is at most a quarter of a segment, and 16 MiB.
//! One process opens a folder at a time. Nothing is removed unless [`Log::trim`] is called, and
//! salvage bundles never are. [`Log::append`], [`Log::flush`], [`Log::wait_flushed`] and
//! [`Wal::shutdown`] block; [`Log::until_flushed`] and [`Cursor::wait`] do not, under any runtime.

#![deny(unsafe_code)]

mod atomics;
mod block;
mod boundary;
mod check;
mod claim;
mod control;
mod copies;
mod cursor;
mod cursor_wait;
mod cut;
mod digests;
mod disk;
mod error;
mod flushes;
mod header;
mod log;
mod map;
mod newest;
mod pace;
#[cfg_attr(not(towline_planted), doc(hidden))]
pub mod planted;
mod provision;
mod reader;
mod receive;
mod recovery;
mod repair;
mod report;
mod reserve;
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
mod watch_appended;

#[cfg(test)]
extern crate self as towline_wal;
#[cfg(test)]
#[path = "../tests/suite/support.rs"]
#[allow(dead_code, reason = "most of it is for the tests from outside")]
mod support;

pub use check::{DAMAGE_MAX, Damage, SegmentCheck};
pub use claim::Claim;
pub use control::{CLUSTER_NAME_LEN_MAX, Control, CutMark, Founding, Role};
pub use copies::{found, found_on, read_control, read_control_on};
pub use cursor::{Chunk, Cursor, Level, PINNED_SEGMENTS_MAX, Record};
pub use cut::{CutReport, cut};
pub use disk::{Access, Disk, DiskFile, DiskLock, FileDisk, Mapping};
pub use error::{OPEN_FILES_MAX, WalError};
pub use log::{Appended, Log};
pub use reader::{LogReader, ReadRecord, Verdict, read_log, read_log_on};
pub use repair::{RepairReport, repair, repair_from};
pub use report::{Report, Witness};
pub use scrub::Scrub;
pub use slots::{SLOT_NAME_LEN_MAX, SLOTS_MAX, Slot};
pub use sync::UntilFlushed;
pub use towline_protocol::barrier::Barrier;
pub use towline_protocol::frame::SegmentIdentity;
pub use towline_protocol::id::{LogId, NodeId};
pub use towline_protocol::lsn::{Lsn, SegmentSize};
pub use towline_protocol::record::{RecordHeader, RecordKind};
pub use trim::{Oldest, TrimReport};
pub use wal::{Options, SyncMode, Wal};
pub use watch_appended::{AppendedWatch, WatchEnded};
