//! The state of a simulated disk, and what becomes of it when something fails.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::inode::Inode;
use super::names::{Names, Node, plain};
use super::outage::Outage;
use super::random::Random;

/// Everything on the disk, and the faults it is to have.
#[derive(Debug)]
pub(super) struct State {
    pub(super) random: Random,
    pub(super) names: Names,
    pub(super) locks: BTreeSet<PathBuf>,
    /// Counts the processes: what an earlier one has opened is dead.
    pub(super) life: u64,
    /// So many syncs succeed before those that fail.
    pub(super) whole_syncs: u32,
    pub(super) failing_syncs: u32,
    pub(super) full: bool,
    /// How many changing calls the process has left.
    pub(super) calls_left: Option<u64>,
    /// The process is dying in the call that is being done.
    dying: bool,
    pub(super) dead: bool,
    /// Every moment at which the power might have failed, if they are recorded.
    pub(super) recorded: Option<Vec<Outage>>,
    /// How many bytes calls have read.
    pub(super) bytes_read: u64,
    pub(super) reads: u64,
}

pub(super) fn locked(inode: &Mutex<Inode>) -> MutexGuard<'_, Inode> {
    inode.lock().unwrap_or_else(PoisonError::into_inner)
}

fn death() -> io::Error {
    io::Error::other("the process is dead")
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            names: Names::default(),
            locks: BTreeSet::new(),
            life: 0,
            whole_syncs: 0,
            failing_syncs: 0,
            full: false,
            calls_left: None,
            dying: false,
            dead: false,
            recorded: None,
            bytes_read: 0,
            reads: 0,
        }
    }

    /// Whether the process that opened something, in its `life`, still runs.
    pub(super) fn check_life(&self, life: u64) -> io::Result<()> {
        if self.dead || self.life != life { Err(death()) } else { Ok(()) }
    }

    /// Does a call that changes something, unless the process is dead; it may die in it.
    pub(super) fn change<R>(
        &mut self,
        life: u64,
        call: impl FnOnce(&mut Self) -> io::Result<R>,
    ) -> io::Result<R> {
        self.check_life(life)?;
        self.record();
        match &mut self.calls_left {
            None => return call(self),
            Some(0) => {}
            Some(left) => {
                *left -= 1;
                return call(self);
            }
        }
        if self.random.coin() {
            self.dying = true;
            drop(call(self));
            self.dying = false;
        }
        self.end_life();
        self.dead = true;
        Err(death())
    }

    /// The power might fail now.
    fn record(&mut self) {
        if self.recorded.is_some() {
            let outage = Outage::new(&self.names);
            self.recorded.get_or_insert_default().push(outage);
        }
    }

    /// Syncs a file, as far as the faults let it.
    pub(super) fn sync(&mut self, inode: &Mutex<Inode>, range: Range<usize>) -> io::Result<()> {
        let mut inode = locked(inode);
        if self.dying {
            inode.write_some_back(&mut self.random);
            return Ok(());
        }
        if self.whole_syncs > 0 {
            self.whole_syncs -= 1;
        } else if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            inode.fail_sync(&range, &mut self.random);
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        inode.sync(&range);
        Ok(())
    }

    /// Gives a file new content, and syncs it.
    pub(super) fn fill(
        &mut self,
        inode: &Mutex<Inode>,
        content: &[u8],
        len: usize,
    ) -> io::Result<()> {
        if self.full {
            locked(inode).fill(&[], 0);
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.dying || self.failing_syncs > 0 || self.recorded.is_some() {
            locked(inode).fill(content, len);
            self.record();
            return self.sync(inode, 0..usize::MAX);
        }
        locked(inode).fill_durable(content, len);
        Ok(())
    }

    fn inodes(&self) -> Vec<Arc<Mutex<Inode>>> {
        self.names.inodes().cloned().collect()
    }

    fn end_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.calls_left = None;
        for inode in self.names.inodes() {
            locked(inode).detach();
        }
    }

    pub(super) fn kill(&mut self) {
        self.end_life();
        self.dead = false;
    }

    pub(super) fn power_cut(&mut self) {
        let random = &mut self.random;
        let kept = random.below(5);
        self.names.power_cut(|_| random.below(4) < kept);
        for inode in self.inodes() {
            locked(&inode).power_cut(&mut self.random);
        }
        self.kill();
    }

    pub(super) fn wipe(&mut self) {
        self.names = Names::default();
        self.kill();
    }

    pub(super) fn writeback(&mut self) {
        for inode in self.inodes() {
            locked(&inode).write_some_back(&mut self.random);
        }
    }

    pub(super) fn rot(&self, suffix: &str, seed: u64) -> Option<(PathBuf, u64)> {
        let mut random = Random::new(seed);
        let fits = |path: &Path| {
            path.extension().is_some_and(|extension| extension == "wal")
                && path.to_string_lossy().ends_with(suffix)
        };
        let files = self.names.durable_files().filter(|(path, _)| fits(path));
        let files: Vec<_> = files.filter(|(_, inode)| locked(inode).len() > 0).collect();
        if files.is_empty() {
            return None;
        }
        let (path, inode) = files[random.pick(files.len())];
        let offset = locked(inode).rot(&mut random)?;
        Some((path.to_owned(), offset as u64))
    }

    /// A file that holds this, under a durable name.
    pub(super) fn place(&mut self, path: &Path, content: Arc<Vec<u8>>) -> io::Result<()> {
        let inode = Arc::new(Mutex::new(Inode::holding(content)));
        self.names.give(&plain(path), Node::File(inode))?;
        self.names.sync_all();
        Ok(())
    }

    pub(super) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.names.durable_files();
        files.map(|(path, inode)| (path.to_owned(), locked(inode).durable().to_vec())).collect()
    }
}
