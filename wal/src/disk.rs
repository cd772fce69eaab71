//! The log's calls to the operating system, as two traits: so that a test can make any of them
//! fail, and a simulator answer them.
//!
//! Every file is reached through here. Records, though, are stored into a mapping and read from
//! it directly: that is memory, whoever made it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, fadvise, fallocate, flock};

pub use crate::map::Mapping;

/// How much is zeroed at a time, in bytes: the largest folio that a segment has in the page cache.
pub(crate) const FOLIO_MAX: usize = 256 << 10;

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading it, page by page; there may be no right to write.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// The calls of a log. Every one is durable only as far as it says.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a file of `len` bytes: the page `header`, then zeros. They are on the disk on return,
    /// so that a later sync writes data and nothing else: no file system has to note then which
    /// blocks count, and can fail to. Its name is not durable.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::StorageFull`] if there is no room.
    fn create(&self, path: &Path, header: &[u8], len: u64) -> io::Result<()>;

    /// Makes a small file with this content, durable on return; its name is not.
    ///
    /// # Errors
    /// What the operating system says.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// The first `most` bytes of a file, or all if it has fewer.
    ///
    /// # Errors
    /// What the operating system says.
    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>>;

    /// Opens a file that exists.
    ///
    /// # Errors
    /// What the operating system says.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Everything in a folder, in no particular order.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Gives a file another name, in the place of what had it. Durable once both folders are
    /// synced.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name. Durable once the folder is synced.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::AlreadyExists`] if the name is taken.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away. Durable once the folder is synced.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder and those above it that are missing. Each is durable once the folder it
    /// lies in is synced.
    ///
    /// # Errors
    /// What the operating system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names in a folder are durable on return.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a file, which is made if need be, until the returned lock is dropped or the process
    /// is no more.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it is locked already; or what the operating system says.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;

    /// Whether a folder lies in memory, where nothing outlives a power cut.
    ///
    /// # Errors
    /// What the operating system says.
    fn is_in_memory(&self, _dir: &Path) -> io::Result<bool> {
        Ok(false)
    }

    /// A number that no other call returns.
    fn nonce(&self) -> u64 {
        use std::hash::{BuildHasher, Hasher, RandomState};
        // The standard library seeds every `RandomState` from the operating system's randomness.
        RandomState::new().build_hasher().finish()
    }
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Reads some bytes at `offset` into `bytes`, and returns how many; none at the end.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `bytes` with what lies at `offset`.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_exact_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.read_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    bytes = &mut bytes[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`, inside the file. A mapping of it shows them.
    ///
    /// # Errors
    /// What the operating system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Everything written to the file, or stored into a mapping of it, is durable on return.
    ///
    /// # Errors
    /// What the operating system says. The caller never believes a later success.
    fn sync(&self) -> io::Result<()>;

    /// Everything stored into `mapping`, a mapping of this file, in `range` is durable on return.
    /// What lies behind it may be prepared for being written, and is left alone if that can be.
    ///
    /// # Errors
    /// As [`DiskFile::sync`].
    fn sync_range(&self, mapping: &Mapping, range: Range<usize>) -> io::Result<()> {
        let _ = (mapping, range);
        self.sync()
    }

    /// Lets go of what the page cache holds of the file, as far as that can be: the next read is
    /// of the disk.
    fn forget_cached(&self) {}

    /// Has what lies in `range` of `mapping`, a mapping of this file, in memory page by page, so
    /// that a sync of a few bytes writes a page and no more; as far as that can be. What is changed
    /// meanwhile may stay as it lies.
    ///
    /// # Errors
    /// What the operating system says: it is synced first, and read. An error that a sync of this
    /// file would have told is told by that as well.
    fn read_back(&self, mapping: &Mapping, range: Range<usize>) -> io::Result<()> {
        let _ = (mapping, range);
        Ok(())
    }

    /// Maps the first `len` bytes. The file must keep that length.
    ///
    /// # Errors
    /// What the operating system says.
    fn map(&self, len: usize) -> io::Result<Arc<Mapping>>;
}

/// A lock, held until it is dropped.
pub trait DiskLock: fmt::Debug + Send + Sync + 'static {}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileDisk;

impl Disk for FileDisk {
    /// By large steps, at a third of what single pages cost. They lie in the page cache as large
    /// folios then, and a store to one dirties, and a sync writes, all of it: who means to sync
    /// less than that calls [`DiskFile::read_back`].
    fn create(&self, path: &Path, header: &[u8], len: u64) -> io::Result<()> {
        let file = File::create(path)?;
        fallocate(&file, FallocateFlags::empty(), 0, len)?;
        let mut bytes = vec![0; FOLIO_MAX];
        bytes[..header.len()].copy_from_slice(header);
        for at in (0..len).step_by(FOLIO_MAX) {
            let left = usize::try_from(len - at).unwrap_or(FOLIO_MAX).min(FOLIO_MAX);
            file.write_all_at(&bytes[..left], at)?;
            bytes[..header.len()].fill(0);
        }
        file.sync_all()
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_data()
    }

    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(path)?.take(most).read_to_end(&mut content)?;
        Ok(content)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = match access {
            Access::ReadWrite => OpenOptions::new().read(true).write(true).open(path)?,
            Access::Read => {
                let file = File::open(path)?;
                // Readahead would fill the cache with large folios, and if the file is a segment
                // that is written again, each store would dirty a whole one.
                let _ = fadvise(&file, 0, None, Advice::Random);
                file
            }
        };
        Ok(Arc::new(OpenFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(LockedFile { file }))
    }

    fn is_in_memory(&self, dir: &Path) -> io::Result<bool> {
        const TMPFS_MAGIC: i64 = 0x0102_1994;
        const RAMFS_MAGIC: i64 = 0x8584_58f6;
        let kind = rustix::fs::statfs(dir)?.f_type as i64;
        Ok([TMPFS_MAGIC, RAMFS_MAGIC].contains(&kind))
    }
}

/// The lock goes with the open file.
#[derive(Debug)]
struct LockedFile {
    file: File,
}

impl DiskLock for LockedFile {}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // A process that is being started holds every open file of this one for a moment. Closing
        // ours would leave the lock with it.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// An open file of the real disk.
#[derive(Debug)]
struct OpenFile(File);

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_range(&self, mapping: &Mapping, range: Range<usize>) -> io::Result<()> {
        mapping.sync(range)
    }

    fn read_back(&self, mapping: &Mapping, range: Range<usize>) -> io::Result<()> {
        // An error of writing is told once to every opening of a file. What this one is told of,
        // the sync of the records has to hear, too.
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let Ok(again) = OpenOptions::new().read(true).write(true).open(path) else {
            return Ok(());
        };
        again.sync_data()?;
        mapping.unmap_pages(&range);
        // Neither mapped nor dirty: they go, unless somebody stored to one just now.
        let len = NonZeroU64::new(range.len() as u64);
        let _ = fadvise(&self.0, range.start as u64, len, Advice::DontNeed);
        mapping.make_resident(range)
    }

    fn forget_cached(&self) {
        // Pages that are mapped or dirty stay; a scrub then sees what readers see.
        let _ = fadvise(&self.0, 0, None, Advice::DontNeed);
    }

    fn map(&self, len: usize) -> io::Result<Arc<Mapping>> {
        // As for the mapping's own advice: before the first page is read.
        let _ = fadvise(&self.0, 0, None, Advice::Random);
        Mapping::of_file(&self.0, len).map(Arc::new)
    }
}
