//! A log among others: what each of them can be asked to do.

use std::path::Path;

use anyhow::{Result, bail};

use crate::peers;

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Where it goes on in another file, in bytes, as far as it lets itself be told.
    pub(crate) segment: u64,
    /// Whether its records are committed, or appended and never synced.
    pub(crate) durable: bool,
    /// Whether it syncs in the background although nobody waits for that.
    pub(crate) eager: bool,
}

impl Shape {
    /// As most rows want it: segments of 64 MiB.
    pub(crate) const fn new(durable: bool) -> Self {
        Self { segment: 64 << 20, durable, eager: durable }
    }
}

/// A log.
pub(crate) trait Peer: Send + Sync {
    /// Puts a record into the log so that the end of the process does not take it. Not synced.
    fn append(&self, payload: &[u8]) -> Result<()>;

    /// Puts a record into the log and returns once it is on the disk.
    fn commit(&self, payload: &[u8]) -> Result<()>;

    /// Puts the same record into the log `count` times, in the way that is fastest.
    fn load(&self, payload: &[u8], count: u64) -> Result<()> {
        (0..count).try_for_each(|_| self.append(payload))
    }

    /// Reads everything that is in the log, checksums included, oldest first.
    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result<()>;

    /// The number of the file that is written now, if it can be told.
    fn file(&self) -> Option<u64> {
        None
    }

    /// Gives up what is further back than `keep` bytes, so that its files can be used again.
    fn trim(&self, _keep: u64) -> Result<()> {
        bail!("it can not be trimmed")
    }

    /// Waits until what it makes ready in advance is ready.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
}

/// Us.
pub(crate) const OURS: &str = "towline";

/// What one would write oneself. They show where the others stand, and are not among them: neither
/// recovers, goes on in another file or hands out what is appended meanwhile.
pub(crate) const BASELINES: [&str; 2] = ["mutex-file", "pwrite"];

/// Opens the log of that name in a folder, which may hold one already.
pub(crate) fn open(name: &str, dir: &Path, shape: Shape) -> Result<Box<dyn Peer>> {
    std::fs::create_dir_all(dir)?;
    Ok(match name {
        OURS => Box::new(peers::towline::Towline::open(dir, shape)?),
        "mutex-file" => Box::new(peers::mutex_file::MutexFile::open(dir)?),
        "pwrite" => Box::new(peers::pwrite::Pwrite::open(dir)?),
        "wal-db" => Box::new(peers::wal_db::WalDb::open(dir, shape)?),
        "open-wal" => Box::new(peers::open_wal::OpenWal::open(dir, shape)?),
        "okaywal" => Box::new(peers::okaywal::OkayWal::open(dir)?),
        "walrus-rust" => Box::new(peers::walrus::Walrus::open(dir, shape)?),
        "raft-engine" => Box::new(peers::raft_engine::RaftEngine::open(dir, shape)?),
        "fjall" => Box::new(peers::fjall::Fjall::open(dir)?),
        "commitlog" => Box::new(peers::commitlog::Commitlog::open(dir, shape)?),
        _ => bail!("no log is called {name}"),
    })
}
