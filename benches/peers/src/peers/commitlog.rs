//! commitlog: one writer, so behind a lock. Its flush does not reach the disk (it calls
//! `File::flush`, which does nothing), so it has no committed records to compare.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow, bail};
use commitlog::message::MessageSet;
use commitlog::{CommitLog, LogOptions, ReadLimit};

use crate::peer::{Peer, Shape};

/// Bytes that one read asks for.
const READ_BYTES: usize = 1 << 20;

/// What it writes before the first message of a file, and before every payload.
const FILE_HEADER_LEN: u64 = 2;
const MESSAGE_HEADER_LEN: u64 = 20;

pub(crate) struct Commitlog {
    log: Mutex<CommitLog>,
    segment: u64,
    /// Which file is written, and how long it is: it does not say so itself.
    file: AtomicU64,
    len: AtomicU64,
}

impl Commitlog {
    pub(crate) fn open(dir: &Path, shape: Shape) -> Result<Self> {
        let mut options = LogOptions::new(dir.join("log"));
        let segment = usize::try_from(shape.segment)?;
        options.segment_max_bytes(segment).index_max_items(segment / 64);
        Ok(Self {
            log: Mutex::new(CommitLog::new(options)?),
            segment: shape.segment,
            file: AtomicU64::new(0),
            len: AtomicU64::new(FILE_HEADER_LEN),
        })
    }
}

impl Peer for Commitlog {
    fn append(&self, payload: &[u8]) -> Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.append_msg(payload).map_err(|error| anyhow!("{error}"))?;
        let stored = MESSAGE_HEADER_LEN + payload.len() as u64;
        let mut len = self.len.load(Ordering::Relaxed) + stored;
        if len > self.segment {
            self.file.fetch_add(1, Ordering::Relaxed);
            len = FILE_HEADER_LEN + stored;
        }
        self.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn commit(&self, _: &[u8]) -> Result<()> {
        bail!("it never syncs")
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = 0;
        while next < log.next_offset() {
            let read = log.read(next, ReadLimit::max_bytes(READ_BYTES));
            let messages = read.map_err(|error| anyhow!("{error}"))?;
            for message in messages.iter() {
                if !message.verify_hash() {
                    bail!("a checksum does not match");
                }
                each(message.payload());
                next = message.offset() + 1;
            }
        }
        Ok(())
    }

    fn file(&self) -> Option<u64> {
        Some(self.file.load(Ordering::Relaxed))
    }
}
