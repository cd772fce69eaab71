//! The state that a log's records build, on disk and larger than memory if it must be.
//!
//! One LSM tree that leaves the log to its user: what was not written to disk when a process dies
//! is replayed from the log. Records go into a memtable one after the other, each with the
//! head that says what the state is the state of; memtables are closed only between
//! two records, and written to disk whole. So what a crash leaves is the state as of one record,
//! and says which.

mod background;
mod error;
mod folder;
mod generation;
mod head;
mod snapshot;
mod state;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use lsm_tree::AbstractTree;
use towline::{Engine, EngineError};
use towline_protocol::lsn::Lsn;
use xxhash_rust::xxh3::Xxh3;

pub use self::error::StoreError;
pub use self::state::View;
use crate::effects::Decoded;
use crate::value::Value;
use background::Background;
use folder::Folder;
use generation::Generation;
use head::Head;
use snapshot::{SnapshotReader, SnapshotWriter};
use state::{Published, State};

/// What may be set on a store. None of it changes what is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// A memtable that reaches this size is written to disk, in bytes.
    pub memtable_bytes: u64,
    /// How much of the disk's blocks is kept in memory, in bytes.
    pub cache_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { memtable_bytes: 32 << 20, cache_bytes: 64 << 20 }
    }
}

/// A fingerprint of a state, for comparing nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateDigest {
    /// The end of the newest record in the state.
    pub applied: Lsn,
    /// How many keys it holds.
    pub keys: u64,
    /// A hash of all keys, values and expiries, in key order.
    pub digest: u64,
}

/// The key-value store of one node.
pub struct Store {
    folder: Folder,
    options: StoreOptions,
    state: Arc<State>,
    background: Arc<Background>,
    /// Held by whoever changes the state.
    writer: Mutex<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in `dir`, or makes an empty one there.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open, [`StoreError::Damaged`] if the
    /// folder holds something else than this crate wrote.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, StoreOptions::default())
    }

    /// [`Store::open`] with other than the default options.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let folder = Folder::open(dir)?;
        let found = folder.current()?;
        folder.remove_trees_except(found)?;
        let number = found.unwrap_or(0);
        let generation = Generation::open(number, folder.tree_path(number), options)?;
        if found.is_none() {
            folder.set_current(number)?;
        }
        let head = generation.head(generation.newest())?.unwrap_or_default();
        let state = Arc::new(State::new(generation, head));
        let background = Arc::new(Background::new(head.applied));
        let mut store =
            Self { folder, options, state, background, writer: Mutex::new(()), threads: vec![] };
        store.spawn("engine-flush", Background::run_flushes)?;
        store.spawn("engine-merge", Background::run_merges)?;
        Ok(store)
    }

    fn spawn(&mut self, name: &str, run: fn(&Background, &State)) -> Result<(), StoreError> {
        let state = Arc::clone(&self.state);
        let background = Arc::clone(&self.background);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&background, &state))
            .map_err(StoreError::io(self.folder.path()))?;
        self.threads.push(thread);
        Ok(())
    }

    /// The state as of the newest record, to look at more than once.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        self.state.view()
    }

    /// What `key` holds, expired or not.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails or is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        self.view().get(key)
    }

    /// How many keys there are, expired ones that were not deleted yet included.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.state.published().head.keys
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The end of the newest record that would be found here after a crash. The log must be kept
    /// from here on.
    #[must_use]
    pub fn persisted(&self) -> Lsn {
        self.background.persisted()
    }

    /// Writes everything applied so far to disk, and returns the end of its newest record.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails.
    pub fn persist(&self) -> Result<Lsn, StoreError> {
        self.background.check()?;
        {
            let _writer = lock(&self.writer);
            let applied = self.state.published().head.applied;
            self.state.generation().tree.rotate_memtable();
            self.background.note_rotated(applied);
        }
        self.background.flush(&self.state)?;
        Ok(self.persisted())
    }

    /// A fingerprint of the state as of one record. Reads all of it; writers are not held up.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails or is damaged.
    pub fn digest(&self) -> Result<StateDigest, StoreError> {
        let view = self.view();
        let (entries, head) = (view.entries(), view.head());
        drop(view);
        let mut hash = Xxh3::new();
        let mut keys = 0;
        for entry in entries {
            let (key, stored) = entry?;
            // The stored value begins with its expiry.
            for field in [&key, &stored] {
                hash.update(&(field.len() as u64).to_le_bytes());
                hash.update(field);
            }
            keys += 1;
        }
        Ok(StateDigest { applied: head.applied, keys, digest: hash.digest() })
    }

    fn apply_record(&self, end: Lsn, payload: &[u8]) -> Result<(), StoreError> {
        let record = Decoded::new(payload).map_err(|source| StoreError::Effects { end, source })?;
        let _writer = lock(&self.writer);
        let before = self.state.published().head;
        if end <= before.applied {
            return Err(StoreError::NotNewer { end, applied: before.applied });
        }
        self.background.check()?;
        let delta = record.keys_delta;
        let keys = before.keys.checked_add_signed(delta);
        let head = Head {
            applied: end,
            effect_time_ms: before.effect_time_ms.max(record.effect_time_ms),
            keys: keys.ok_or(StoreError::KeyCount { end, keys: before.keys, delta })?,
        };
        let generation = self.state.generation();
        let (at, memtable_bytes) = generation.write(&record, &head);
        self.state.publish(Published { at, head });
        if memtable_bytes >= self.options.memtable_bytes {
            generation.tree.rotate_memtable();
            self.background.rotated(&generation, end)?;
        }
        Ok(())
    }

    fn write_snapshot(&self, out: &mut dyn Write) -> Result<Lsn, StoreError> {
        let view = self.view();
        let (entries, head) = (view.entries(), view.head());
        drop(view);
        let mut writer = SnapshotWriter::new(out, &head)?;
        for entry in entries {
            let (key, stored) = entry?;
            writer.push(&key, &stored)?;
        }
        writer.finish()?;
        Ok(head.applied)
    }

    /// Builds the snapshot's state beside the present one, and puts it in place once it is whole
    /// and on disk.
    fn read_snapshot(&self, from: &mut dyn Read) -> Result<Lsn, StoreError> {
        self.background.check()?;
        let _writer = lock(&self.writer);
        let _paused = self.background.pause();
        let number = self.state.generation().number + 1;
        let (generation, head) = match self.build_from_snapshot(number, from) {
            Ok(built) => built,
            Err(error) => {
                // What is left of it goes at the next restore or open, if not now.
                let _ = std::fs::remove_dir_all(self.folder.tree_path(number));
                return Err(error);
            }
        };
        if let Err(error) = self.folder.set_current(number) {
            // Which of the two trees the disk now names is not known, so neither may go on.
            self.background.fail(format!("naming the restored tree: {error}"));
            return Err(error);
        }
        drop(self.state.replace(generation, head));
        self.background.reset(head.applied);
        // The tree that was is of no use any more; open removes it if this cannot.
        let _ = self.folder.remove_trees_except(Some(number));
        Ok(head.applied)
    }

    fn build_from_snapshot(
        &self,
        number: u64,
        from: &mut dyn Read,
    ) -> Result<(Generation, Head), StoreError> {
        let current = self.state.generation().number;
        self.folder.remove_trees_except(Some(current))?;
        let generation = Generation::open(number, self.folder.tree_path(number), self.options)?;
        let mut reader = SnapshotReader::new(from)?;
        let head = reader.head();
        generation.fill(&head, || reader.next_entry())?;
        Ok((generation, head))
    }
}

impl Engine for Store {
    fn apply(&self, end: Lsn, payload: &[u8]) -> Result<(), EngineError> {
        Ok(self.apply_record(end, payload)?)
    }

    fn applied(&self) -> Lsn {
        self.state.published().head.applied
    }

    fn durable(&self) -> Lsn {
        self.persisted()
    }

    fn checkpoint(&self) -> Result<(), EngineError> {
        Ok(self.persist().map(drop)?)
    }

    fn snapshot(&self, out: &mut dyn Write) -> Result<Lsn, EngineError> {
        Ok(self.write_snapshot(out)?)
    }

    fn restore(&self, from: &mut dyn Read) -> Result<Lsn, EngineError> {
        Ok(self.read_snapshot(from)?)
    }
}

impl Drop for Store {
    /// Stops the background work. What is only in memory is left to the log.
    fn drop(&mut self) {
        self.background.stop();
        for thread in self.threads.drain(..) {
            // Its panics were caught and kept as a failure.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let published = self.state.published();
        f.debug_struct("Store")
            .field("folder", &self.folder)
            .field("head", &published.head)
            .finish_non_exhaustive()
    }
}

/// Locks are never held over code that leaves what they guard half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
