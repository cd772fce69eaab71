//! A file system of its own in a file, which can lose power.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A kind of file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Ext4, Self::Xfs];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// The size of the file: XFS takes no smaller one. It is sparse.
    const fn size(self) -> u64 {
        match self {
            Self::Ext4 => 128 << 20,
            Self::Xfs => 320 << 20,
        }
    }

    fn make(self) -> Command {
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        command.args(match self {
            Self::Ext4 => ["-q", "-F"],
            Self::Xfs => ["-q", "-f"],
        });
        command
    }
}

/// How often an unmount is tried: a process that was just killed may still hold a file.
const UNMOUNTS: u32 = 50;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(20);

/// A mounted file system; gone when it is dropped.
pub(super) struct Volume {
    image: PathBuf,
    mounted: PathBuf,
}

fn run(command: &mut Command) -> Result<(), String> {
    let what = format!("{command:?}");
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let done = done.map_err(|error| format!("{what}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{what}: {}, {}", done.status, String::from_utf8_lossy(&done.stderr).trim()))
}

impl Volume {
    /// Makes a file system of some kind in a folder, and mounts it.
    pub(super) fn new(kind: Kind, folder: &Path) -> Result<Self, String> {
        let (image, mounted) =
            (folder.join(format!("{}.image", kind.name())), folder.join(kind.name()));
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(&mounted).map_err(failed)?;
        let file = std::fs::File::create(&image).map_err(failed)?;
        file.set_len(kind.size()).map_err(failed)?;
        run(kind.make().arg(&image))?;
        let volume = Self { image, mounted };
        volume.mount()?;
        Ok(volume)
    }

    /// The folder of the log on it.
    pub(super) fn dir(&self) -> PathBuf {
        self.mounted.join("log")
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mounted))
    }

    fn unmount(&self) -> Result<(), String> {
        let mut last = Ok(());
        for _ in 0..UNMOUNTS {
            last = run(Command::new("umount").arg(&self.mounted));
            if last.is_ok() {
                break;
            }
            std::thread::sleep(UNMOUNT_PAUSE);
        }
        last
    }

    /// The file system stops at once, its journal as it is on the disk: nothing that was not
    /// synced gets there. Every call that follows fails.
    pub(super) fn fail(&self) -> Result<(), String> {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.mounted))
    }

    /// The power is back: the journal is replayed, and nothing is in the page cache.
    pub(super) fn restore(&self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            println!("left behind: {error}");
        }
        // Sparse, and of no use any more.
        let _ = std::fs::remove_file(&self.image);
    }
}
