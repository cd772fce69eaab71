//! The handle of an open log: opening, closing, and the threads in between.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use towline_protocol::epoch::Epoch;
use towline_protocol::id::LogId;
use towline_protocol::lsn::Lsn;

use crate::control::Founding;
use crate::cursor::{Cursor, Level};
use crate::disk::{Disk, DiskLock, FileDisk};
use crate::error::{AtPath, WalError};
use crate::log::Log;
use crate::report::Report;

/// The only node of a log that no other one shares.
const ALONE: &str = "alone";

/// How to open a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// A position the caller knows to be durable here; a shorter log is a loss and not a torn tail.
    pub expect_durable: Lsn,
    /// Where what is cut off or repaired is kept, in a folder of its own (a *salvage bundle*) each
    /// time, on the log's file system; nobody removes them. `salvage` in the log's folder if
    /// `None`.
    pub salvage_dir: Option<PathBuf>,
    /// Who answers the log's calls.
    pub disk: Arc<dyn Disk>,
    /// When the log's own thread syncs; whoever waits for a flush never waits for that.
    pub sync_mode: SyncMode,
    /// Whether the log has threads that sync and that make segments ready. Without them, a caller
    /// who waits for either does the work itself, a failure is told at once, and the log reads no
    /// clock.
    pub threads: bool,
}

/// When a log's own thread syncs what is appended. [`Log::flush`] and [`Log::wait_flushed`] sync
/// at once in every mode, and in every mode a segment is synced once the next one is full: no more
/// than two wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncMode {
    /// As soon as there is something, one sync after the other.
    #[default]
    Eager,
    /// Never by itself: only when somebody asks for a flush.
    OnFlush,
    /// Once something has waited for so long. A power cut takes no more than that and a sync.
    Interval(Duration),
    /// Once so many bytes wait. A power cut takes no more than that and what came during a sync.
    Bytes(u64),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            expect_durable: Lsn::ZERO,
            salvage_dir: None,
            disk: Arc::new(FileDisk),
            sync_mode: SyncMode::default(),
            threads: true,
        }
    }
}

/// The handle that owns an open log: it runs the log's threads and holds the lock on its folder.
///
/// Everything a log does is on [`Log`], which this derefs to. Dropping the handle stops the threads
/// and lets go of the folder, without the flush and the note a [`Wal::shutdown`] leaves.
#[derive(Debug)]
pub struct Wal {
    log: Arc<Log>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The lock on the folder; `None` once closed.
    lock: Mutex<Option<Box<dyn DiskLock>>>,
}

impl Deref for Wal {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}

impl Wal {
    /// Opens the log of a folder: takes its lock, recovers, and starts its threads.
    ///
    /// # Errors
    /// [`WalError`]. A log that is refused as damaged loses nothing: no valid record is removed.
    /// Before it is, a cut that a crash interrupted may have been finished, and a torn tail moved
    /// into its salvage bundle.
    pub fn open(dir: &Path, options: Options) -> Result<(Arc<Self>, Report), WalError> {
        let threads = options.threads;
        let started = threads.then(Instant::now);
        let (recovered, lock, mut report) = crate::recovery::recover(dir, &options)?;
        let log = Arc::new(Log::new(dir, options, recovered));
        let wal = Self { log, threads: Mutex::default(), lock: Mutex::new(Some(lock)) };
        if threads {
            wal.spawn("wal-sync", crate::sync::run)?;
            wal.spawn("wal-provision", crate::provision::run)?;
        }
        report.took = started.map_or(Duration::ZERO, |started| started.elapsed());
        Ok((Arc::new(wal), report))
    }

    /// Opens the log of a store that no other node shares, ready for records. In a folder that is
    /// empty or absent it is made first. A log goes on in the epoch it has, however often it is
    /// opened.
    ///
    /// # Errors
    /// As [`Wal::open`] and [`found`](crate::found).
    pub fn open_alone(dir: &Path, options: Options) -> Result<(Arc<Self>, Report), WalError> {
        let disk = Arc::clone(&options.disk);
        match crate::read_control_on(&*disk, dir) {
            Err(WalError::NotFounded(_)) => {
                let log = LogId(u128::from(disk.nonce()) << 64 | u128::from(disk.nonce()));
                let node = ALONE.parse().expect("it is a name");
                crate::found_on(&*disk, dir, &Founding::alone(log, node))?;
            }
            read => drop(read?),
        }
        let (wal, report) = Self::open(dir, options)?;
        if wal.last_epoch() == Epoch::NONE {
            wal.begin_epoch(&wal.next_barrier())?;
            wal.flush()?;
        }
        Ok((wal, report))
    }

    fn spawn(&self, name: &str, run: fn(&Log)) -> Result<(), WalError> {
        let log = Arc::clone(&self.log);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&log));
        let thread = thread.at("starting a thread for", &self.log.dir)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// The log itself, for what outlives the handle.
    pub(crate) fn log(&self) -> Arc<Log> {
        Arc::clone(&self.log)
    }

    /// A cursor that hands out what lies behind `from`, up to the watermark of `level`.
    ///
    /// `from` is where a record begins or ends, or [`Lsn::ZERO`].
    ///
    /// # Errors
    /// [`WalError::Lagged`] if it is trimmed, [`WalError::NoBoundary`] if it is past the end. A
    /// position inside a record is told as `NoBoundary` by the first read.
    pub fn cursor(&self, from: Lsn, level: Level) -> Result<Cursor, WalError> {
        Cursor::new(Arc::clone(&self.log), from, level)
    }

    /// Closes the log: flushes it, notes how far it is durable, stops its threads, and lets go of
    /// the folder. Handles that are still around only read from then on.
    ///
    /// # Errors
    /// The log was not closed cleanly; nothing that was flushed is at risk.
    pub fn shutdown(&self) -> Result<(), WalError> {
        if self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return Ok(());
        }
        let flushed = self.flush();
        self.stop_threads();
        let noted = match &flushed {
            Ok(flushed) => self.note_durable(*flushed),
            Err(_) => Ok(()),
        };
        self.log.close_control();
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        flushed.and(noted)
    }

    fn stop_threads(&self) {
        self.log.stop();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic in one of the log's threads has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.stop_threads();
    }
}
