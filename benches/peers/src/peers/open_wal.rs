//! open-wal: one writer, so behind a lock. What is appended stays in the process until a commit
//! writes and syncs it, so it has no unsynced append to compare.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use open_wal::{Lsn, Wal, WalConfig};

use crate::peer::{Peer, Shape};

/// So many records are loaded by one commit.
const LOADED_AT_ONCE: u64 = 1_000;

pub(crate) struct OpenWal {
    wal: Mutex<Wal>,
}

impl OpenWal {
    pub(crate) fn open(dir: &Path, shape: Shape) -> Result<Self> {
        let config = WalConfig { segment_size: shape.segment, ..WalConfig::default() };
        let (wal, _) = Wal::open(dir, config)?;
        Ok(Self { wal: Mutex::new(wal) })
    }
}

impl Peer for OpenWal {
    fn append(&self, _: &[u8]) -> Result<()> {
        bail!("it has no unsynced append")
    }

    fn commit(&self, payload: &[u8]) -> Result<()> {
        let mut wal = self.wal.lock().unwrap_or_else(PoisonError::into_inner);
        wal.append(payload)?;
        wal.commit()?;
        Ok(())
    }

    fn load(&self, payload: &[u8], count: u64) -> Result<()> {
        let mut wal = self.wal.lock().unwrap_or_else(PoisonError::into_inner);
        for record in 1..=count {
            wal.append(payload)?;
            if record % LOADED_AT_ONCE == 0 || record == count {
                wal.commit()?;
            }
        }
        Ok(())
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        let wal = self.wal.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = wal.reader_from(Lsn(0))?;
        while let Some(record) = reader.next() {
            each(record?.1);
        }
        Ok(())
    }
}
