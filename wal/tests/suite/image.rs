//! A disk that can be had again and again, and what is done on it with every call refused once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use towline_wal::simulated::SimDisk;
use towline_wal::{Access, Disk, Options, Report, Wal, WalError, found_on};

use crate::meddled::MeddledDisk;
use crate::support::*;

pub(crate) const DIR: &str = "/node/log";

pub(crate) fn dir() -> &'static Path {
    Path::new(DIR)
}

pub(crate) fn options(disk: &SimDisk) -> Options {
    Options { disk: Arc::new(disk.clone()), threads: false, ..Options::default() }
}

pub(crate) fn open_on(disk: &SimDisk) -> Result<(Arc<Wal>, Report), WalError> {
    Wal::open(dir(), options(disk))
}

/// What a disk holds for certain.
#[derive(Clone, Default)]
pub(crate) struct Image(Vec<(PathBuf, Arc<Vec<u8>>)>);

impl Image {
    pub(crate) fn of(disk: &SimDisk) -> Self {
        Self(disk.files().into_iter().map(|(path, bytes)| (path, Arc::new(bytes))).collect())
    }

    /// What is left of a new log after some work on it.
    pub(crate) fn after(seed: u64, work: impl FnOnce(&SimDisk, Arc<Wal>)) -> Self {
        let disk = SimDisk::new(seed);
        found_on(&disk, dir(), &founding("a")).unwrap();
        work(&disk, open_on(&disk).unwrap().0);
        disk.kill();
        Self::of(&disk)
    }

    pub(crate) fn disk(&self) -> SimDisk {
        SimDisk::holding(1, self.0.clone()).unwrap()
    }

    /// The same files in another folder beside these.
    pub(crate) fn and_copied_to(mut self, copy: &Path) -> Self {
        let own = self.0.iter();
        let copies = own
            .map(|(path, bytes)| (copy.join(path.strip_prefix(dir()).unwrap()), Arc::clone(bytes)));
        let copies: Vec<_> = copies.collect();
        self.0.extend(copies);
        self
    }

    /// With a bit of a file flipped.
    pub(crate) fn rotten(mut self, name: &str, offset: u64) -> Self {
        let path = dir().join(name);
        let (_, bytes) = self.0.iter_mut().find(|(it, _)| *it == path).unwrap();
        Arc::make_mut(bytes)[offset as usize] ^= 1;
        self
    }
}

/// Flips a bit of what a segment's file holds.
pub(crate) fn flip_on(disk: &SimDisk, base: u64, offset: u64) {
    let file = disk.open(&segment(dir(), base), Access::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, offset).unwrap();
    file.write_at(&[byte[0] ^ 1], offset).unwrap();
    file.sync().unwrap();
}

/// Whether an error says which file the operating system refused.
fn is_told(error: &WalError) -> bool {
    match error {
        WalError::Io { path, .. } => path.starts_with("/node") || path == Path::new("/"),
        WalError::NoSpace(what) | WalError::Poisoned(what) => what.contains(" /"),
        _ => false,
    }
}

/// Does something as often as it has calls from the moment on that it says it is armed, each time
/// with another one refused. A refusal is met by an error that tells it, or does no harm; what the
/// disk holds then is judged after the process has died, or the power has failed. Returns how often
/// there was an error.
pub(crate) fn at_every_call<T>(
    image: &Image,
    work: impl Fn(&MeddledDisk, &dyn Fn()) -> Result<T, WalError>,
    judge: impl Fn(&SimDisk, Result<T, WalError>),
) -> u64 {
    let mut errors = 0;
    for (errno, dies) in [(Errno::IO, false), (Errno::IO, true), (Errno::NOSPC, true)] {
        for call in 0.. {
            let disk = image.disk();
            let meddled = MeddledDisk::new(&disk);
            let done = work(&meddled, &|| meddled.refuse_after(call, errno));
            let happened = meddled.has_happened();
            if let Err(error) = &done {
                assert!(happened && is_told(error), "call {call}: {error:?}");
                errors += 1;
            }
            if dies {
                disk.kill()
            } else {
                disk.power_cut()
            }
            judge(&disk, done);
            if !happened {
                break;
            }
        }
    }
    errors
}
