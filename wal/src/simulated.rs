//! A disk in memory that fails as real ones do, when it is told to: the log's crash kit.
//!
//! Everything is in memory and follows from a seed: the same calls find the same faults. What is
//! modelled:
//!
//! - A file has a page cache, which calls and mappings see, and what is on the disk. A sync takes
//!   the 512-byte sectors that changed from the one to the other.
//! - A power cut leaves of every sector that was not synced the old bytes or the new ones, each
//!   for itself. Of the changes of a folder's names that were not synced it leaves the oldest, any
//!   number of them, as journalling file systems do; a name moved between two folders moves in
//!   both or in neither.
//! - The death of a process takes its locks and its open files. What it stored stays in the page
//!   cache and is not durable; what it stores from then on reaches nothing.
//! - After a failed sync the page cache shows bytes that the disk does not hold and that no later
//!   sync takes there, unless they are written again.

mod calls;
mod file;
mod inode;
mod names;
mod outage;
mod random;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use outage::Outage;
use state::State;

use crate::disk::Disk;

/// The unit a disk writes whole or not at all, in bytes.
pub const SECTOR_LEN: usize = 512;

/// A disk in memory. A clone is the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty disk. All that it decides at random, and its nonces, follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(seed))) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process dies: its locks are gone and its open files are dead; the page cache stays.
    pub fn kill(&self) {
        self.state().kill();
    }

    /// The power fails: what was not synced is there or is not, at random. Then as
    /// [`SimDisk::kill`].
    pub fn power_cut(&self) {
        self.state().power_cut();
    }

    /// The process dies in the call that follows on `calls` more that change something. That one
    /// is done, half done, or not done; it and every other call fail until [`SimDisk::kill`] or
    /// [`SimDisk::power_cut`].
    pub fn die_after(&self, calls: u64) {
        self.state().calls_left = Some(calls);
    }

    /// Whether the process died in a call, as [`SimDisk::die_after`] told it to.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The next `count` syncs of files fail, those inside `create` and `write` too. Some of what
    /// they should have written is on the disk, and the kernel believes that all of it is.
    pub fn fail_syncs(&self, count: u32) {
        let mut state = self.state();
        (state.whole_syncs, state.failing_syncs) = (0, count);
    }

    /// The sync of a file that follows on `whole` more fails, as in [`SimDisk::fail_syncs`].
    pub fn fail_sync_behind(&self, whole: u32) {
        let mut state = self.state();
        (state.whole_syncs, state.failing_syncs) = (whole, 1);
    }

    /// Whether there is no room for new files.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Flips one bit, on the disk, of a random segment file whose path ends with `suffix`: in a
    /// sector that is not blank, if there is one. Returns the file and the byte's offset; `None`
    /// if there is no such file. A reader meets it once nobody has the file mapped.
    pub fn rot(&self, suffix: &str, seed: u64) -> Option<(PathBuf, u64)> {
        self.state().rot(suffix, seed)
    }

    /// Everything is gone, as on a new disk; the process is killed.
    pub fn wipe(&self) {
        self.state().wipe();
    }

    /// What a power cut would certainly leave: the files whose names are durable, and what of
    /// them is on the disk.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.state().files()
    }

    /// What may be left if the power fails now.
    #[must_use]
    pub fn outage(&self) -> Outage {
        Outage::new(&self.state().names)
    }

    /// From now on every moment at which the power might fail is recorded: before every call that
    /// changes something, and between the writing and the syncing of a new file. What was
    /// recorded before is forgotten.
    pub fn record_outages(&self) {
        self.state().recorded = Some(Vec::new());
    }

    /// What was recorded since the recording began or was last taken, oldest first.
    #[must_use]
    pub fn take_outages(&self) -> Vec<Outage> {
        self.state().recorded.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A disk that holds these files, and their folders, all of it durable.
    ///
    /// # Errors
    /// A file where a folder should be.
    pub fn holding(
        seed: u64,
        files: impl IntoIterator<Item = (PathBuf, Arc<Vec<u8>>)>,
    ) -> std::io::Result<Self> {
        let disk = Self::new(seed);
        for (path, content) in files {
            if let Some(folder) = path.parent() {
                disk.create_dir_all(folder)?;
            }
            disk.state().place(&path, content)?;
        }
        Ok(disk)
    }

    /// How many bytes of files were read by calls so far, mappings aside.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.state().bytes_read
    }

    /// How many calls read bytes of open files so far, mappings aside.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// The kernel writes some sectors back that nobody asked for yet.
    pub fn writeback(&self) {
        self.state().writeback();
    }
}
