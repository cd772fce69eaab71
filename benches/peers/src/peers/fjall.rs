//! fjall's journal: it belongs to a key-value store, and so every record goes into a memtable, too.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::peer::Peer;

pub(crate) struct Fjall {
    database: Database,
    records: Keyspace,
    next: AtomicU64,
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let database = Database::builder(dir.join("log")).open()?;
        let records = database.keyspace("records", KeyspaceCreateOptions::default)?;
        Ok(Self { database, records, next: AtomicU64::new(0) })
    }
}

impl Peer for Fjall {
    fn append(&self, payload: &[u8]) -> Result<()> {
        let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Ok(self.records.insert(key, payload)?)
    }

    fn commit(&self, payload: &[u8]) -> Result<()> {
        self.append(payload)?;
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        for record in self.records.iter() {
            each(&record.value()?);
        }
        Ok(())
    }
}
