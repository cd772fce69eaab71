//! A node's disk, with its log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use towline_protocol::id::LogId;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{Disk, Founding, ReadRecord, WalError};

use crate::cluster::End;
use crate::engine::value_of;

/// Where a node's folder lies on its disk.
const DATA_DIR: &str = "/towline";

/// A record as it lies in a log. How far that log was durable when it was made, which differs from
/// node to node, is left out.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct LoggedRecord {
    end: Lsn,
    kind: RecordKind,
    payload: Vec<u8>,
}

impl LoggedRecord {
    /// Where it ends and the value it holds, if it is an engine's.
    pub(crate) fn value(&self) -> Option<(Lsn, u64)> {
        let value = value_of(&self.payload).filter(|_| self.kind == RecordKind::Data)?;
        Some((self.end, value))
    }
}

/// A node's disk, with its log.
pub(crate) struct HostDisk {
    disk: SimDisk,
    log: LogId,
    /// Whether it was made to fail: then a node may fail, too.
    fails: AtomicBool,
}

impl HostDisk {
    /// A new disk with a log that is founded and empty.
    pub(crate) fn found(seed: u64, founding: &Founding) -> Self {
        let (disk, fails) = (SimDisk::new(seed), AtomicBool::new(false));
        let found = Self { disk, log: founding.log, fails };
        towline_wal::found_on(&found.disk, &found.log_dir(), founding).expect("the disk is empty");
        found
    }

    pub(crate) fn data_dir(&self) -> &'static Path {
        Path::new(DATA_DIR)
    }

    fn log_dir(&self) -> PathBuf {
        self.data_dir().join("logs").join(self.log.to_string())
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    /// The process ends.
    pub(crate) fn end(&self, how: End) {
        match how {
            End::Kill => self.disk.kill(),
            End::PowerCut => self.disk.power_cut(),
        }
    }

    /// The next sync fails.
    pub(crate) fn fail_a_sync(&self) {
        self.fails.store(true, Ordering::Relaxed);
        self.disk.fail_syncs(1);
    }

    /// Whether there is no room for new files.
    pub(crate) fn set_full(&self, full: bool) {
        self.fails.fetch_or(full, Ordering::Relaxed);
        self.disk.set_full(full);
    }

    /// Another disk in its place, with the same on it and no faults.
    pub(crate) fn mend(&self) {
        self.fails.store(false, Ordering::Relaxed);
        self.disk.fail_syncs(0);
        self.disk.set_full(false);
    }

    /// Whether it was made to fail since it was mended last.
    pub(crate) fn fails(&self) -> bool {
        self.fails.load(Ordering::Relaxed)
    }

    /// Every record of the log.
    pub(crate) fn records(&self) -> Result<Vec<LoggedRecord>, WalError> {
        let reader = towline_wal::read_log_on(&self.disk, &self.log_dir())?;
        let record = |read: Result<ReadRecord, WalError>| {
            let record = read?;
            let (end, kind) = (record.header.end(), record.header.kind);
            Ok(LoggedRecord { end, kind, payload: record.payload.to_vec() })
        };
        reader.map(record).collect()
    }
}
