//! The log of Towline.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use towline_protocol::id::LogId;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_wal::{Founding, Level, Options, SyncMode, Wal, found};

use crate::peer::{Peer, Shape};

/// How long the next segments may take to be made ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// A folder that did not change for so long, and holds nothing that is still made, holds all that
/// is made in advance.
const STILL: Duration = Duration::from_millis(50);
/// How the name of a file ends that has no name of its own yet.
const FRESH: &str = ".new";
const POLL: Duration = Duration::from_millis(5);

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

    /// The base of the segment after the one that is written.
    fn next_base(&self) -> u64 {
        (self.wal.appended().get() / self.segment + 1) * self.segment
    }

    /// The names in its folder.
    fn names(&self) -> Result<BTreeSet<OsString>> {
        Ok(std::fs::read_dir(&self.dir)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?)
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

    /// Segments are made ready one by one, and each comes as a new name.
    fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let (mut names, mut since) = (self.names()?, Instant::now());
        while since.elapsed() < STILL {
            std::thread::sleep(POLL);
            let now = self.names()?;
            let ready = format!("{:020}.wal", self.next_base());
            let is_made = |name: &OsString| name.to_string_lossy().ends_with(FRESH);
            if now != names || now.iter().any(is_made) || !now.contains(OsStr::new(&ready)) {
                (names, since) = (now, Instant::now());
            }
            if Instant::now() > deadline {
                bail!("its folder still changes after {READY_TIMEOUT:?}, or there is no {ready}");
            }
        }
        Ok(())
    }
}
