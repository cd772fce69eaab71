//! The calls of a simulated disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::SimDisk;
use super::file::{SimFile, SimLock};
use super::inode::Inode;
use super::names::{Node, plain};
use super::state::{State, locked};
use crate::disk::{Access, Disk, DiskFile, DiskLock};

impl SimDisk {
    /// A call of the process that runs now.
    fn call<R>(&self, call: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.state();
        let life = state.life;
        state.change(life, call)
    }

    fn look<R>(&self, look: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.state();
        state.check_life(state.life)?;
        look(&mut state)
    }

    fn make(&self, path: &Path, content: &[u8], len: usize) -> io::Result<()> {
        let path = plain(path);
        self.call(|state| {
            let inode = made(state, &path)?;
            state.fill(&inode, content, len)
        })
    }
}

/// The file of that name; a new one if there is none.
fn made(state: &mut State, path: &Path) -> io::Result<Arc<Mutex<Inode>>> {
    match state.names.file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let inode = Arc::new(Mutex::new(Inode::default()));
            state.names.give(path, Node::File(Arc::clone(&inode)))?;
            Ok(inode)
        }
        found => found,
    }
}

impl Disk for SimDisk {
    /// What was allocated and what is zero is one to it.
    fn create(&self, path: &Path, header: &[u8], len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::StorageFull)?;
        self.make(path, header, len)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.make(path, content, content.len())
    }

    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let path = plain(path);
        self.look(|state| {
            let inode = state.names.file(&path)?;
            let mut inode = locked(&inode);
            let len = inode.len().min(usize::try_from(most).unwrap_or(usize::MAX));
            let mut content = vec![0; len];
            inode.read_at(&mut content, 0);
            state.bytes_read += len as u64;
            Ok(content)
        })
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let path = plain(path);
        let disk = self.clone();
        self.look(|state| {
            let (inode, life) = (state.names.file(&path)?, state.life);
            Ok(Arc::new(SimFile { disk, inode, access, life }) as Arc<dyn DiskFile>)
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let dir = plain(dir);
        self.look(|state| state.names.list(&dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (plain(from), plain(to));
        self.call(|state| state.names.rename(&from, &to))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (plain(from), plain(to));
        self.call(|state| {
            let node = Node::File(state.names.file(&from)?);
            if state.names.get(&to).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.names.give(&to, node)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = plain(path);
        self.call(|state| state.names.take(&path))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = plain(dir);
        self.call(|state| {
            let mut above: Vec<&Path> = dir.ancestors().collect();
            above.reverse();
            for folder in above {
                match state.names.check_folder(folder) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        state.names.give(folder, Node::Folder)?;
                    }
                    found => found?,
                }
            }
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = plain(dir);
        self.call(|state| state.names.sync(&dir))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let path = plain(path);
        let disk = self.clone();
        self.call(|state| {
            made(state, &path)?;
            if !state.locks.insert(path.to_path_buf()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(state.life)
        })
        .map(|life| Box::new(SimLock { disk, path: path.to_path_buf(), life }) as Box<dyn DiskLock>)
    }

    fn nonce(&self) -> u64 {
        self.state().random.next()
    }
}
