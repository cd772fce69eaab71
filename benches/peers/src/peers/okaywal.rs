//! okaywal: preallocated files, one writer at a time, a sync shared by all who wait. An entry is
//! always synced, so it has no unsynced append. It reads its entries back while it opens.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

use crate::peer::Peer;

/// As large as the segments of the others, and never checkpointed: what is checkpointed is gone.
const PREALLOCATED: u32 = 64 << 20;

/// So many records are loaded as chunks of one entry.
const LOADED_AT_ONCE: u64 = 1_000;

pub(crate) struct OkayWal {
    wal: WriteAheadLog,
    recovered: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// Keeps what the log hands out while it opens.
#[derive(Debug)]
struct Recovering {
    recovered: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl LogManager for Recovering {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        if let Some(chunks) = entry.read_all_chunks()? {
            self.recovered.lock().unwrap_or_else(PoisonError::into_inner).extend(chunks);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _: EntryId,
        _: &mut SegmentReader,
        _: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

impl OkayWal {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let recovered = Arc::default();
        let wal = Configuration::default_for(dir)
            .preallocate_bytes(PREALLOCATED)
            .checkpoint_after_bytes(u64::MAX)
            .open(Recovering { recovered: Arc::clone(&recovered) })?;
        Ok(Self { wal, recovered })
    }
}

impl Peer for OkayWal {
    fn append(&self, _: &[u8]) -> Result<()> {
        bail!("it has no unsynced append")
    }

    fn commit(&self, payload: &[u8]) -> Result<()> {
        let mut entry = self.wal.begin_entry()?;
        entry.write_chunk(payload)?;
        entry.commit()?;
        Ok(())
    }

    fn load(&self, payload: &[u8], count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let mut entry = self.wal.begin_entry()?;
            for _ in 0..left.min(LOADED_AT_ONCE) {
                entry.write_chunk(payload)?;
            }
            entry.commit()?;
            left = left.saturating_sub(LOADED_AT_ONCE);
        }
        Ok(())
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        let recovered = self.recovered.lock().unwrap_or_else(PoisonError::into_inner);
        recovered.iter().for_each(|payload| each(payload));
        Ok(())
    }
}
