//! The log's rare calls to the operating system, as a trait: so that a test can make any of them
//! fail, and a simulator answer them.
//!
//! Only what happens once a segment, once a sync or once a cut goes through here. Records are
//! stored into the mapping and read from it directly.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::header::HEADER_PAGE_LEN;

/// The rare calls of a log. Every one is durable only as far as it says.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a file of `len` bytes: the page `header`, then zeros. Its content is durable on
    /// return, its name is not.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::StorageFull`] if there is no room.
    fn create(&self, path: &Path, header: &[u8], len: u64) -> io::Result<()>;

    /// Makes a small file with this content, durable on return; its name is not.
    ///
    /// # Errors
    /// What the operating system says.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Everything stored in `file` so far is durable on return.
    ///
    /// # Errors
    /// What the operating system says. The caller never tries again.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Gives a file another name, in the place of what had it. Durable once the folder is synced.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name. Durable once the folder is synced.
    ///
    /// # Errors
    /// What the operating system says.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The names in a folder are durable on return.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileDisk;

impl Disk for FileDisk {
    /// Page by page: a larger buffered write makes large folios, and a later store to one dirties,
    /// and a sync then writes, all of it. Direct writes would leave the pages to be read back one
    /// by one.
    fn create(&self, path: &Path, header: &[u8], len: u64) -> io::Result<()> {
        let file = File::create(path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len)?;
        file.write_all_at(header, 0)?;
        let zeros = [0; HEADER_PAGE_LEN];
        for at in (header.len() as u64..len).step_by(HEADER_PAGE_LEN) {
            let left = usize::try_from(len - at).unwrap_or(HEADER_PAGE_LEN).min(HEADER_PAGE_LEN);
            file.write_all_at(&zeros[..left], at)?;
        }
        file.sync_all()
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_data()
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}
