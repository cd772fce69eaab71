//! The log of Towline.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use towline_protocol::id::LogId;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_wal::{Founding, Level, Options, SyncMode, Wal, found};

use crate::peer::{Peer, Shape};

/// How long the next segment may take to be made ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// An open log. It goes away as with a process that dies: nothing is flushed or noted.
pub(crate) struct Towline {
    pub(crate) wal: Arc<Wal>,
    dir: PathBuf,
    segment: u64,
}

impl Towline {
    pub(crate) fn open(dir: &Path, shape: Shape) -> Result<Self> {
        let dir = dir.join("log");
        let is_new = !dir.exists();
        if is_new {
            let segment_size = SegmentSize::new(shape.segment).context("a segment size")?;
            let alone = Founding::alone(LogId(1), "bench".parse()?);
            found(&dir, &Founding { segment_size, ..alone })?;
        }
        let sync_mode = if shape.eager { SyncMode::Eager } else { SyncMode::OnFlush };
        let (wal, _) = Wal::open(&dir, Options { sync_mode, ..Options::default() })?;
        if is_new {
            wal.begin_epoch(&wal.next_barrier())?;
        }
        Ok(Self { wal, dir, segment: shape.segment })
    }

    fn newest_file(&self) -> Result<u64> {
        let mut newest = 0;
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == "wal") {
                let base = path.file_stem().and_then(|it| it.to_str()).context("a name")?;
                newest = newest.max(base.parse()?);
            }
        }
        Ok(newest)
    }
}

impl Peer for Towline {
    fn append(&self, payload: &[u8]) -> Result<()> {
        self.wal.append(RecordKind::Data, 0, payload)?;
        Ok(())
    }

    fn commit(&self, payload: &[u8]) -> Result<()> {
        let appended = self.wal.append(RecordKind::Data, 0, payload)?;
        Ok(self.wal.wait_flushed(appended.end)?)
    }

    /// The last record is committed once the others are on the disk, so that it promises them: what
    /// nobody promised is no scan but a rewrite for the next opening.
    fn load(&self, payload: &[u8], count: u64) -> Result<()> {
        for _ in 1..count {
            self.append(payload)?;
        }
        self.wal.flush()?;
        self.commit(payload)
    }

    /// Every record is verified and handed out where it lies in the mapping.
    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut cursor = self.wal.cursor(Lsn::ZERO, Level::Appended)?;
        while let Some(record) = cursor.next_record()? {
            if record.header.kind == RecordKind::Data {
                each(&record.payload);
            }
        }
        Ok(())
    }

    fn file(&self) -> Option<u64> {
        Some(self.wal.appended().get() / self.segment)
    }

    fn trim(&self, keep: u64) -> Result<()> {
        let end = self.wal.flushed().get();
        self.wal.trim(Lsn::new(end.saturating_sub(keep)))?;
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while self.newest_file()? <= self.wal.appended().get() {
            if Instant::now() > deadline {
                bail!("no segment is ready after {READY_TIMEOUT:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // It has its name a moment before it is mapped.
        std::thread::sleep(Duration::from_millis(30));
        Ok(())
    }
}
