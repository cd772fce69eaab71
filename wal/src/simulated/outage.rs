//! A moment at which the power may fail, and everything that this may leave.
//!
//! [`SimDisk::power_cut`] leaves one of these disks at random; here a test chooses which, and so
//! can try them all.

use std::sync::{Arc, Mutex};

use super::inode::Inode;
use super::names::Names;
use super::state::{State, locked};
use super::{SECTOR_LEN, SimDisk};

/// What was on a disk at some moment, and what was not synced then.
#[derive(Debug)]
pub struct Outage {
    /// What is on the disk, and the changes of names that are not.
    names: Names,
    sectors: Vec<Unsynced>,
}

/// A sector that a power cut may take or leave.
#[derive(Debug)]
struct Unsynced {
    inode: File,
    sector: usize,
    bytes: Vec<u8>,
}

type File = Arc<Mutex<Inode>>;

/// One file for every other one, however many names it has.
#[derive(Default)]
struct Copies(Vec<(File, File)>);

impl Copies {
    /// The copy of a file's durable content; the first time it is made.
    fn of(&mut self, inode: &File) -> File {
        if let Some((_, copy)) = self.0.iter().find(|(other, _)| Arc::ptr_eq(other, inode)) {
            return Arc::clone(copy);
        }
        let copy = Inode::holding(Arc::clone(locked(inode).durable()));
        let copy = Arc::new(Mutex::new(copy));
        self.0.push((Arc::clone(inode), Arc::clone(&copy)));
        copy
    }
}

impl Outage {
    pub(super) fn new(names: &Names) -> Self {
        let mut copies = Copies::default();
        let names = names.copied(|inode| copies.of(inode));
        let mut sectors = Vec::new();
        for (inode, copy) in copies.0 {
            let unsynced = locked(&inode).unsynced();
            sectors.extend(unsynced.into_iter().map(|(sector, bytes)| {
                let inode = Arc::clone(&copy);
                Unsynced { inode, sector, bytes }
            }));
        }
        Self { names, sectors }
    }

    /// How many sectors were changed and not synced. They are numbered from 0, file by file, and
    /// in each from its beginning.
    #[must_use]
    pub fn sectors(&self) -> usize {
        self.sectors.len()
    }

    /// How many changes of names were not synced. They are numbered from 0, oldest first.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.names.unsynced()
    }

    /// Which changes of names a power cut leaves that is to leave those of which `keeps` says so:
    /// none behind one of the same folder that is not left.
    #[must_use]
    pub fn kept_changes(&self, keeps: impl Fn(usize) -> bool) -> Vec<bool> {
        self.names.kept(keeps)
    }

    /// Whether a power cut may leave the same at both moments, of the same disk.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same_file = |one: &File, two: &File| {
            Arc::ptr_eq(one, two) || locked(one).durable() == locked(two).durable()
        };
        let mut sectors = self.sectors.iter().zip(&other.sectors);
        self.sectors.len() == other.sectors.len()
            && sectors.all(|(one, two)| {
                (one.sector, &one.bytes) == (two.sector, &two.bytes)
                    && is_same_file(&one.inode, &two.inode)
            })
            && self.names.is_same(&other.names, is_same_file)
    }

    /// The disk that the death of the process at this moment leaves: everything is in the page
    /// cache, and what was not synced is not durable. What failed syncs have made the kernel
    /// believe is forgotten.
    #[must_use]
    pub fn kill(&self, seed: u64) -> SimDisk {
        let mut copies = Copies::default();
        let mut names = self.names.copied(|inode| copies.of(inode));
        names.show_all();
        for unsynced in &self.sectors {
            let copy = copies.of(&unsynced.inode);
            locked(&copy).write_at(&unsynced.bytes, unsynced.sector * SECTOR_LEN);
        }
        let mut state = State::new(seed);
        state.names = names;
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// The disk that a power cut at this moment leaves if these sectors and, as far as
    /// [`Outage::kept_changes`] says, these changes of names have reached it, and nothing else.
    /// What the disk decides at random from then on follows from `seed`.
    #[must_use]
    pub fn leave(
        &self,
        seed: u64,
        sector: impl Fn(usize) -> bool,
        change: impl Fn(usize) -> bool,
    ) -> SimDisk {
        let mut copies = Copies::default();
        let mut names = self.names.copied(|inode| copies.of(inode));
        for (at, unsynced) in self.sectors.iter().enumerate() {
            if sector(at) {
                let copy = copies.of(&unsynced.inode);
                locked(&copy).reach(unsynced.sector, &unsynced.bytes);
            }
        }
        names.power_cut(change);
        let mut state = State::new(seed);
        state.names = names;
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }
}
