//! Writes full memtables to disk and merges tables, on two threads, with bounds on what may wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use lsm_tree::AbstractTree;
use lsm_tree::compaction::Leveled;
use towline_protocol::lsn::Lsn;

use super::generation::Generation;
use super::state::State;
use super::{StoreError, lock};

/// Full memtables that may wait for the disk; past it, records wait.
const SEALED_MEMTABLES_MAX: usize = 3;
/// Tables that may overlap at the top of the tree; past it, memtables wait.
const TOP_RUNS_MAX: usize = 16;
/// Merges in a row before the thread looks again for whether it should stop.
const MERGES_MAX: usize = 32;

#[derive(Debug, Default)]
struct Progress {
    flush_wanted: bool,
    merge_wanted: bool,
    stopping: bool,
    failure: Option<String>,
    /// The newest record in a memtable that takes no more.
    rotated: Lsn,
    /// The newest record that a crash leaves in place.
    persisted: Lsn,
}

#[derive(Debug, Default)]
pub(super) struct Background {
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Held shared while a tree's files are worked on, so that a restore can wait for the end.
    pass: RwLock<()>,
}

impl Background {
    /// A background for a state that is on disk up to `persisted`.
    pub(super) fn new(persisted: Lsn) -> Self {
        let progress = Progress { rotated: persisted, persisted, ..Progress::default() };
        Self { progress: Mutex::new(progress), ..Self::default() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress());
        self.changed.notify_all();
    }

    pub(super) fn persisted(&self) -> Lsn {
        self.progress().persisted
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &self.progress().failure {
            Some(reason) => Err(StoreError::Stopped(reason.clone())),
            None => Ok(()),
        }
    }

    /// Says that a memtable is full, the last record in it ending at `end`, and waits while too
    /// many are.
    pub(super) fn rotated(&self, generation: &Generation, end: Lsn) -> Result<(), StoreError> {
        self.change(|progress| {
            progress.rotated = end;
            progress.flush_wanted = true;
        });
        let mut progress = self.progress();
        while generation.tree.sealed_memtable_count() > SEALED_MEMTABLES_MAX
            && progress.failure.is_none()
        {
            progress = wait(&self.changed, progress);
        }
        drop(progress);
        self.check()
    }

    /// Notes that a memtable is full without asking for anything.
    pub(super) fn note_rotated(&self, end: Lsn) {
        self.change(|progress| progress.rotated = end);
    }

    /// Keeps both threads off the files until the guard is dropped.
    pub(super) fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.pass.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the tree that was, in favour of one that is on disk up to `persisted`.
    pub(super) fn reset(&self, persisted: Lsn) {
        self.change(|progress| {
            progress.rotated = persisted;
            progress.persisted = persisted;
        });
    }

    /// Stops everything for good: the store takes no more records.
    pub(super) fn fail(&self, reason: String) {
        self.change(|progress| progress.failure = Some(reason));
    }

    pub(super) fn stop(&self) {
        self.change(|progress| progress.stopping = true);
    }

    /// Writes every full memtable to disk.
    pub(super) fn flush(&self, state: &State) -> Result<(), StoreError> {
        let _pass = self.pass.read().unwrap_or_else(PoisonError::into_inner);
        let rotated = self.progress().rotated;
        let (generation, watermark) = state.watermark();
        let flush_lock = generation.tree.get_flush_lock();
        generation
            .tree
            .flush(&flush_lock, watermark)
            .map_err(StoreError::tree(generation.path()))?;
        drop(flush_lock);
        self.change(|progress| {
            progress.persisted = progress.persisted.max(rotated);
            progress.merge_wanted = true;
        });
        Ok(())
    }

    fn merge(&self, state: &State) -> Result<(), StoreError> {
        for _ in 0..MERGES_MAX {
            let _pass = self.pass.read().unwrap_or_else(PoisonError::into_inner);
            let (generation, watermark) = state.watermark();
            let tree = &generation.tree;
            let shape = || [0, 1, 2, 3, 4, 5, 6].map(|level| tree.level_table_count(level));
            let before = shape();
            tree.compact(Arc::new(Leveled::default()), watermark)
                .map_err(StoreError::tree(generation.path()))?;
            self.change(|_| ());
            if shape() == before || self.progress().stopping {
                break;
            }
        }
        Ok(())
    }

    /// The flushing thread.
    pub(super) fn run_flushes(&self, state: &State) {
        while self.wait_for(|progress| &mut progress.flush_wanted) {
            if self.wait_for_merges(state) {
                self.guard("writing a memtable", || self.flush(state));
            }
        }
    }

    /// The merging thread.
    pub(super) fn run_merges(&self, state: &State) {
        while self.wait_for(|progress| &mut progress.merge_wanted) {
            self.guard("merging tables", || self.merge(state));
        }
    }

    /// Waits for a wish and takes it; `false` once there is nothing more to do.
    fn wait_for(&self, wish: impl Fn(&mut Progress) -> &mut bool) -> bool {
        let mut progress = self.progress();
        loop {
            if progress.stopping || progress.failure.is_some() {
                return false;
            }
            if std::mem::take(wish(&mut progress)) {
                return true;
            }
            progress = wait(&self.changed, progress);
        }
    }

    fn wait_for_merges(&self, state: &State) -> bool {
        let mut progress = self.progress();
        while state.generation().tree.l0_run_count() >= TOP_RUNS_MAX {
            if progress.stopping || progress.failure.is_some() {
                return false;
            }
            progress.merge_wanted = true;
            self.changed.notify_all();
            progress = wait(&self.changed, progress);
        }
        true
    }

    fn guard(&self, what: &str, work: impl FnOnce() -> Result<(), StoreError>) {
        let failure = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{what}: {error}"),
            Err(_) => format!("{what}: the tree panicked"),
        };
        self.fail(failure);
    }
}

fn wait<'a>(changed: &Condvar, progress: MutexGuard<'a, Progress>) -> MutexGuard<'a, Progress> {
    changed.wait(progress).unwrap_or_else(PoisonError::into_inner)
}
