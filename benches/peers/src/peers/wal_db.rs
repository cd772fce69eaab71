//! wal-db: one file, or files of a size; pwrite, one sync for all who wait.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use wal_db::{FileStore, Lsn, SegmentedStore, Wal, WalIter, WalStore};

use crate::peer::{Peer, Shape};

/// A log that is to roll over is one of the second kind.
enum Kind {
    File(Wal<FileStore>),
    Segmented(Wal<SegmentedStore>),
}

pub(crate) struct WalDb {
    kind: Kind,
    segment: u64,
    newest: AtomicU64,
}

impl WalDb {
    pub(crate) fn open(dir: &Path, shape: Shape) -> Result<Self> {
        // Its own default is one file. Only the row of the rollovers asks for small segments.
        let kind = if shape.segment < Shape::new(false).segment {
            Kind::Segmented(Wal::open_segmented(dir.join("log"), shape.segment)?)
        } else {
            Kind::File(Wal::open(dir.join("log"))?)
        };
        Ok(Self { kind, segment: shape.segment, newest: AtomicU64::new(0) })
    }
}

fn read<S: WalStore>(records: WalIter<'_, S>, each: &mut dyn FnMut(&[u8])) -> Result<()> {
    for record in records {
        each(record?.data());
    }
    Ok(())
}

impl Peer for WalDb {
    fn append(&self, payload: &[u8]) -> Result<()> {
        let lsn = match &self.kind {
            Kind::File(wal) => wal.append(payload)?,
            Kind::Segmented(wal) => wal.append(payload)?,
        };
        self.newest.store(lsn.get(), Ordering::Relaxed);
        Ok(())
    }

    fn commit(&self, payload: &[u8]) -> Result<()> {
        let _: Lsn = match &self.kind {
            Kind::File(wal) => wal.append_and_sync(payload)?,
            Kind::Segmented(wal) => wal.append_and_sync(payload)?,
        };
        Ok(())
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        match &self.kind {
            Kind::File(wal) => read(wal.iter()?, each),
            Kind::Segmented(wal) => read(wal.iter()?, each),
        }
    }

    fn file(&self) -> Option<u64> {
        Some(self.newest.load(Ordering::Relaxed) / self.segment)
    }
}
