//! raft-engine: entries of raft groups. Every thread writes a group of its own, as the entries of
//! one come in order.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use protobuf::well_known_types::BytesValue;
use raft_engine::internals::LogQueue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::peer::{Peer, Shape};

/// How many entries one read asks for.
const READ_ENTRIES: u64 = 4_096;

thread_local! {
    /// The group of this thread and its last entry.
    static GROUP: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}
static GROUPS: AtomicU64 = AtomicU64::new(0);

pub(crate) struct RaftEngine {
    engine: Engine,
}

/// A payload whose first bytes say which entry it is.
#[derive(Clone)]
struct Numbered;

impl MessageExt for Numbered {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().copied().map_or(0, u64::from_le_bytes)
    }
}

impl RaftEngine {
    pub(crate) fn open(dir: &Path, shape: Shape) -> Result<Self> {
        let config = Config {
            dir: dir.to_str().context("a folder with a printable name")?.to_owned(),
            target_file_size: ReadableSize(shape.segment),
            // What is measured is the log and not LZ4.
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        };
        Ok(Self { engine: Engine::open(config)? })
    }

    fn write(&self, payload: &[u8], sync: bool) -> Result<()> {
        let (group, last) = GROUP.get();
        let group = if group > 0 { group } else { GROUPS.fetch_add(1, Ordering::Relaxed) + 1 };
        GROUP.set((group, last + 1));
        let mut entry = BytesValue { value: payload.to_vec(), ..BytesValue::default() };
        entry.value[..8].copy_from_slice(&(last + 1).to_le_bytes());
        let mut batch = LogBatch::default();
        batch.add_entries::<Numbered>(group, &[entry])?;
        self.engine.write(&mut batch, sync)?;
        Ok(())
    }
}

impl Peer for RaftEngine {
    fn append(&self, payload: &[u8]) -> Result<()> {
        self.write(payload, false)
    }

    fn commit(&self, payload: &[u8]) -> Result<()> {
        self.write(payload, true)
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        for group in self.engine.raft_groups() {
            let first = self.engine.first_index(group);
            let (Some(mut next), Some(last)) = (first, self.engine.last_index(group)) else {
                continue;
            };
            let mut entries: Vec<BytesValue> = Vec::new();
            while next <= last {
                let end = (next + READ_ENTRIES).min(last + 1);
                entries.clear();
                self.engine.fetch_entries_to::<Numbered>(group, next, end, None, &mut entries)?;
                entries.iter().for_each(|entry| each(&entry.value));
                next = end;
            }
        }
        Ok(())
    }

    fn file(&self) -> Option<u64> {
        Some(self.engine.file_span(LogQueue::Append).1)
    }
}
