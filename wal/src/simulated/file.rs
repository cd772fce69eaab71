//! Open files and locks of a simulated disk.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::SimDisk;
use super::inode::Inode;
use super::state::locked;
use crate::disk::{Access, DiskFile, DiskLock};
use crate::map::Mapping;

/// A file that a process has open.
#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) inode: Arc<Mutex<Inode>>,
    pub(super) access: Access,
    pub(super) life: u64,
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.state().check_life(self.life)?;
        Ok(locked(&self.inode).len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.check_life(self.life)?;
        let read = locked(&self.inode).read_at(bytes, index(offset));
        state.bytes_read += read as u64;
        state.reads += 1;
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.state().change(self.life, |_| {
            let mut inode = locked(&self.inode);
            let end = index(offset).checked_add(bytes.len());
            if self.access == Access::Read || end.is_none_or(|end| end > inode.len()) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            inode.write_at(bytes, index(offset));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().change(self.life, |state| state.sync(&self.inode, 0..usize::MAX))
    }

    /// Nothing but the pages of the range: whoever needs more has to ask for more.
    fn sync_range(&self, _mapping: &Mapping, range: Range<usize>) -> io::Result<()> {
        self.disk.state().change(self.life, |state| state.sync(&self.inode, range))
    }

    fn map(&self, len: usize) -> io::Result<Arc<Mapping>> {
        let state = self.disk.state();
        state.check_life(self.life)?;
        let mut inode = locked(&self.inode);
        if len != inode.len() || len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(inode.cached())
    }
}

/// A lock that a process holds.
#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) disk: SimDisk,
    pub(super) path: PathBuf,
    pub(super) life: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}
