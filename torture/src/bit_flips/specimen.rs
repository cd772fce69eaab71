//! The logs that are damaged: what lies on the disk, and what their writer knows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use towline_protocol::lsn::Lsn;
use towline_wal::simulated::SimDisk;
use towline_wal::{Wal, WalError, cut, found_on};

use crate::log::{append, begin, dir, founding, open, options, payload};
use crate::oracle::{Oracle, Written};

/// The length of a segment.
const SEGMENT: u64 = 64 << 10;

/// The bytes of a file, shared by all that do not change them.
pub(super) type Content = Arc<Vec<u8>>;

/// A log to damage.
pub(super) struct Specimen {
    pub(super) files: BTreeMap<PathBuf, Content>,
    pub(super) records: Vec<Written>,
    /// What its control file says to be durable.
    pub(super) noted: u64,
    /// What its segments held before: at earlier moments, and in files that were cut.
    pub(super) stale: Vec<(PathBuf, Content)>,
}

/// A log that grows, and what is known of it.
struct Growing {
    disk: SimDisk,
    wal: Arc<Wal>,
    oracle: Oracle,
    number: u64,
    stale: Vec<(PathBuf, Content)>,
}

impl Growing {
    fn new() -> Result<Self, WalError> {
        let disk = SimDisk::new(1);
        found_on(&disk, dir(), &founding())?;
        let wal = open(&disk)?;
        let mut growing =
            Self { disk, wal, oracle: Oracle::default(), number: 0, stale: Vec::new() };
        growing.begin(1)?;
        Ok(growing)
    }

    fn begin(&mut self, epoch: u64) -> Result<(), WalError> {
        self.oracle.appended(begin(&self.wal, epoch, self.oracle.durable_end())?);
        Ok(())
    }

    /// Appends records of all lengths until the log is longer than `end`.
    fn append_to(&mut self, end: u64) -> Result<(), WalError> {
        while self.wal.appended().get() < end {
            let len = 8 + usize::try_from(self.number * 37 % 700).unwrap_or_default();
            let payload = payload(self.number, len);
            self.number += 1;
            self.oracle.appended(append(&self.wal, payload, self.oracle.durable_end())?);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WalError> {
        self.wal.flush()?;
        self.oracle.all_durable();
        Ok(())
    }

    /// Keeps what the segments hold now.
    fn keep_stale(&mut self) {
        let files = self.disk.files().into_iter();
        let segments = files.filter(|(path, _)| is_segment(path));
        self.stale.extend(segments.map(|(path, content)| (path, Arc::new(content))));
    }

    fn cut(&mut self, kept: usize) -> Result<(), WalError> {
        self.wal.shutdown()?;
        let to = self.oracle.records()[kept - 1].end;
        self.oracle.cut_begins(kept);
        cut(dir(), Lsn::new(to), &options(&self.disk))?;
        self.oracle.cut_is_done();
        self.wal = open(&self.disk)?;
        Ok(())
    }

    /// Takes everything to the disk, and nothing more: no note is left and nothing promises it.
    fn end(self, noted: u64) -> Result<Specimen, WalError> {
        self.wal.flush()?;
        let here = |(path, content): (PathBuf, Vec<u8>)| {
            (path.parent() == Some(dir())).then(|| (path, Arc::new(content)))
        };
        let files = self.disk.files().into_iter().filter_map(here).collect();
        let records = self.oracle.records().to_vec();
        Ok(Specimen { files, records, noted, stale: self.stale })
    }
}

pub(super) fn is_segment(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

impl Specimen {
    /// One segment: most of it promised by several records, then some that nothing promises, then
    /// zeros.
    pub(super) fn small() -> Result<Self, WalError> {
        let mut log = Growing::new()?;
        log.append_to(20_000)?;
        log.flush()?;
        log.append_to(50_000)?;
        log.flush()?;
        log.append_to(58_000)?;
        log.end(0)
    }

    /// Several segments and epochs, SEALs, a file that was cut, and a control file that promises a
    /// part of it. Opening need not read the first segments: what is wrong there is its readers'
    /// to notice.
    pub(super) fn large() -> Result<Self, WalError> {
        let mut log = Growing::new()?;
        log.append_to(40_000)?;
        log.flush()?;
        log.keep_stale();
        log.append_to(3 * SEGMENT + 30_000)?;
        log.flush()?;
        log.begin(2)?;
        log.append_to(4 * SEGMENT + 50_000)?;
        log.flush()?;
        log.keep_stale();
        let kept = log.oracle.records();
        let kept = kept.partition_point(|record| record.end < 4 * SEGMENT + 20_000);
        log.cut(kept)?;
        let noted = log.oracle.durable_end();
        log.append_to(4 * SEGMENT + 40_000)?;
        log.flush()?;
        log.append_to(5 * SEGMENT + 20_000)?;
        log.flush()?;
        log.keep_stale();
        log.append_to(5 * SEGMENT + 36_000)?;
        log.end(noted)
    }
}
