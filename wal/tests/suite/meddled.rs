//! A disk on which something happens at one call of any kind: it is refused, or what lies on the
//! disk changes behind the caller's back.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use towline_wal::simulated::SimDisk;
use towline_wal::{Access, Disk, DiskFile, DiskLock, Mapping, Options};

/// What happens at a call: it fails with the error, or is done after that.
type Event = Box<dyn FnOnce() -> io::Result<()> + Send>;

#[derive(Default)]
struct Planned {
    event: Option<Event>,
    /// So many calls come before it.
    calls: u64,
}

/// A simulated disk and what is to happen on it. A clone is the same disk.
#[derive(Clone)]
pub(crate) struct MeddledDisk {
    disk: SimDisk,
    planned: Arc<Mutex<Planned>>,
}

impl fmt::Debug for MeddledDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeddledDisk").finish_non_exhaustive()
    }
}

impl MeddledDisk {
    pub(crate) fn new(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), planned: Arc::default() }
    }

    /// The call that follows on `calls` more meets the event.
    pub(crate) fn after(
        &self,
        calls: u64,
        event: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) {
        *self.planned.lock().unwrap() = Planned { event: Some(Box::new(event)), calls };
    }

    /// The call that follows on `calls` more fails.
    pub(crate) fn refuse_after(&self, calls: u64, errno: Errno) {
        self.after(calls, move || Err(io::Error::from_raw_os_error(errno.raw_os_error())));
    }

    /// Whether the call has come for which something was planned.
    pub(crate) fn has_happened(&self) -> bool {
        self.planned.lock().unwrap().event.is_none()
    }

    /// A log without threads on this disk.
    pub(crate) fn options(&self) -> Options {
        Options { disk: Arc::new(self.clone()), threads: false, ..Options::default() }
    }

    fn call(&self) -> io::Result<()> {
        let event = {
            let mut planned = self.planned.lock().unwrap();
            if planned.calls > 0 {
                planned.calls -= 1;
                return Ok(());
            }
            planned.event.take()
        };
        // Without the lock: what happens may itself be a call.
        event.map_or(Ok(()), |event| event())
    }
}

impl Disk for MeddledDisk {
    fn create(&self, path: &Path, header: &[u8], len: u64) -> io::Result<()> {
        self.call()?;
        self.disk.create(path, header, len)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.call()?;
        self.disk.write(path, content)
    }

    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        self.call()?;
        self.disk.read(path, most)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.call()?;
        Ok(Arc::new(MeddledFile { file: self.disk.open(path, access)?, disk: self.clone() }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.call()?;
        self.disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.remove(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.call()?;
        self.disk.lock(path)
    }

    fn is_in_memory(&self, dir: &Path) -> io::Result<bool> {
        self.call()?;
        self.disk.is_in_memory(dir)
    }

    fn nonce(&self) -> u64 {
        self.disk.nonce()
    }
}

#[derive(Debug)]
struct MeddledFile {
    file: Arc<dyn DiskFile>,
    disk: MeddledDisk,
}

impl MeddledFile {
    /// A sync that is refused leaves the kernel in the belief that it was done.
    fn call_of_sync(&self) -> io::Result<()> {
        self.disk.call().inspect_err(|_| {
            self.disk.disk.fail_syncs(1);
            assert!(self.file.sync().is_err());
        })
    }
}

impl DiskFile for MeddledFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.call()?;
        self.file.len()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.call()?;
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.call()?;
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.call_of_sync()?;
        self.file.sync()
    }

    fn sync_range(&self, mapping: &Mapping, range: Range<usize>) -> io::Result<()> {
        self.call_of_sync()?;
        self.file.sync_range(mapping, range)
    }

    fn read_back(&self, mapping: &Mapping, range: Range<usize>) -> io::Result<()> {
        self.disk.call()?;
        self.file.read_back(mapping, range)
    }

    fn forget_cached(&self) {
        self.file.forget_cached();
    }

    fn map(&self, len: usize) -> io::Result<Arc<Mapping>> {
        self.disk.call()?;
        self.file.map(len)
    }
}
