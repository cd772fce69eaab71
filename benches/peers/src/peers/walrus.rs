//! walrus-rust: a topic of a queue. Its committed records are written through O_SYNC.

use std::path::Path;

use anyhow::Result;
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus as Queue};

use crate::peer::{Peer, Shape};

const TOPIC: &str = "log";
/// Bytes that one read asks for.
const READ_BYTES: usize = 1 << 20;
/// How often it persists a reader's position; the reading is not about that.
const PERSIST_EVERY: u32 = u32::MAX;

pub(crate) struct Walrus {
    queue: Queue,
}

impl Walrus {
    /// The folder is where the process was told by its environment to put the queue.
    pub(crate) fn open(_: &Path, shape: Shape) -> Result<Self> {
        let schedule = if shape.durable { FsyncSchedule::SyncEach } else { FsyncSchedule::NoFsync };
        let reads = ReadConsistency::AtLeastOnce { persist_every: PERSIST_EVERY };
        Ok(Self { queue: Queue::with_consistency_and_schedule(reads, schedule)? })
    }
}

impl Peer for Walrus {
    fn append(&self, payload: &[u8]) -> Result<()> {
        Ok(self.queue.append_for_topic(TOPIC, payload)?)
    }

    fn commit(&self, payload: &[u8]) -> Result<()> {
        Ok(self.queue.append_for_topic(TOPIC, payload)?)
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        loop {
            let entries = self.queue.batch_read_for_topic(TOPIC, READ_BYTES, true)?;
            if entries.is_empty() {
                return Ok(());
            }
            entries.iter().for_each(|entry| each(&entry.data));
        }
    }
}
