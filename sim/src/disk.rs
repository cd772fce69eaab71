//! A node's disk: the real log on a simulated disk, and the engine's checkpoint beside it.

use std::path::Path;
use std::sync::Arc;

use towline_protocol::id::{ClusterId, Incarnation, NodeId};
use towline_protocol::lsn::SegmentSize;
use towline_protocol::voters::Voters;
use towline_wal::simulated::SimDisk;
use towline_wal::{CutReport, Disk, Founding, Options, Role, Wal, WalError, cut, found_on};

use crate::engine::Engine;
use crate::node::LOG;

pub(crate) const CLUSTER: ClusterId = ClusterId(1);
pub(crate) const SEGMENT: SegmentSize = SegmentSize::MIN;
const DIR: &str = "/log";

/// A copy of everything on a disk, as a backup has it.
#[derive(Debug)]
pub(crate) struct Copy {
    files: Vec<(std::path::PathBuf, Vec<u8>)>,
    engine: Engine,
}

#[derive(Debug)]
pub(crate) struct Store {
    node: NodeId,
    pub(crate) disk: SimDisk,
    /// What the engine finds after a crash.
    pub(crate) engine: Engine,
    /// Whether a bit of it rotted: from then on its log may refuse to open.
    pub(crate) rotten: bool,
    /// Whether it is full for now.
    pub(crate) full: bool,
}

impl Store {
    /// An empty disk with a new log on it.
    pub(crate) fn founded(
        node: NodeId,
        incarnation: Incarnation,
        role: Role,
        voters: &Voters,
        seed: u64,
    ) -> Self {
        let disk = SimDisk::new(seed);
        let founding = Founding {
            cluster: CLUSTER,
            cluster_name: String::new(),
            log: LOG,
            node,
            incarnation,
            segment_size: SEGMENT,
            role,
            voters: voters.clone(),
        };
        found_on(&disk, Path::new(DIR), &founding).expect("an empty disk takes a log");
        Self { node, disk, engine: Engine::default(), rotten: false, full: false }
    }

    fn options(&self) -> Options {
        Options {
            disk: Arc::new(self.disk.clone()),
            threads: false,
            expect_durable: self.engine.applied,
            ..Options::default()
        }
    }

    pub(crate) fn open(&self) -> Result<Arc<Wal>, WalError> {
        Wal::open(Path::new(DIR), self.options()).map(|(wal, _)| wal)
    }

    pub(crate) fn cut(&self, to: towline_protocol::lsn::Lsn) -> Result<CutReport, WalError> {
        cut(Path::new(DIR), to, &self.options())
    }

    /// What a backup taken now holds.
    pub(crate) fn copy(&self) -> Copy {
        Copy { files: self.disk.files(), engine: self.engine }
    }

    /// Another disk with the content of a backup.
    pub(crate) fn restored(&self, copy: &Copy, seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        for (path, content) in &copy.files {
            let dir = path.parent().unwrap_or(Path::new("/"));
            let put = disk.create_dir_all(dir).and_then(|()| disk.write(path, content));
            put.and_then(|()| disk.sync_dir(dir)).expect("an empty disk takes a file");
        }
        disk.sync_dir(Path::new("/")).expect("a sound disk syncs");
        Self { node: self.node, disk, engine: copy.engine, rotten: false, full: false }
    }
}
