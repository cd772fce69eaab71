//! A node's disk.

use std::path::PathBuf;
use std::sync::Arc;

use towline_wal::{Disk, FileDisk, Founding};

use crate::cluster::End;
use crate::random::Random;

/// A node's disk.
pub(crate) struct HostDisk {
    folder: tempfile::TempDir,
}

impl HostDisk {
    pub(crate) fn new(_random: &Random) -> Self {
        Self { folder: tempfile::tempdir_in("/dev/shm").expect("tmp") }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn found(&self, founding: &Founding) {
        let dir = self.data_dir().join("logs").join(founding.log.to_string());
        towline_wal::found(&dir, founding).expect("founds");
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(FileDisk)
    }

    pub(crate) fn end(&self, _how: End) {}
}
