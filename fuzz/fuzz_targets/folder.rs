//! What the fuzz targets of a log's files share: a folder in memory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{ClusterId, Incarnation, LogId};
use towline_protocol::lsn::SegmentSize;
use towline_protocol::record::RecordKind;
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};
use towline_wal::simulated::SimDisk;
use towline_wal::{Founding, Options, Role, Wal, WalError, found_on};

pub const DIR: &str = "/node/log";

pub type Files = Vec<(PathBuf, Arc<Vec<u8>>)>;

fn voters() -> Voters {
    let node = "fuzz".parse().expect("a name");
    let voter = Voter { node, incarnation: Incarnation(1), zone: String::new() };
    Voters::new(vec![voter], None).expect("one voter")
}

pub fn founding() -> Founding {
    Founding {
        cluster: ClusterId(1),
        cluster_name: "fuzz".to_owned(),
        log: LogId(7),
        node: "fuzz".parse().expect("a name"),
        incarnation: Incarnation(1),
        segment_size: SegmentSize::MIN,
        role: Role::Primary,
        voters: voters(),
    }
}

pub fn open(disk: &SimDisk) -> Result<Arc<Wal>, WalError> {
    let options = Options { disk: Arc::new(disk.clone()), threads: false, ..Options::default() };
    Wal::open(Path::new(DIR), options).map(|(wal, _)| wal)
}

pub fn begin(wal: &Wal) {
    let barrier = Barrier {
        epoch: Epoch { number: wal.last_epoch().number + 1, incarnation: Incarnation(1) },
        previous: wal.last_epoch(),
        previous_end: wal.appended(),
        digest: wal.digest(),
        terms: Terms::founding(voters()),
        accepted_loss: false,
    };
    wal.begin_epoch(&barrier).expect("an epoch");
}

/// The files of a small log that was closed.
#[allow(dead_code, reason = "not every target begins with one")]
pub fn whole() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimDisk::new(1);
        found_on(&disk, Path::new(DIR), &founding()).expect("founded");
        let wal = open(&disk).expect("opened");
        begin(&wal);
        for number in 0..20 {
            wal.append(RecordKind::Data, 0, &[number; 200]).expect("appended");
        }
        wal.shutdown().expect("closed");
        drop(wal);
        let files = disk.files().into_iter();
        files.map(|(path, content)| (path, Arc::new(content))).collect()
    })
}

/// A disk with the files of the small log, those changed that `change` says.
#[allow(dead_code, reason = "not every target changes files")]
pub fn changed(change: impl Fn(&str, &mut Vec<u8>)) -> SimDisk {
    let files = whole().iter().map(|(path, content)| {
        let mut content = content.to_vec();
        change(&path.file_name().unwrap_or_default().to_string_lossy(), &mut content);
        (path.clone(), Arc::new(content))
    });
    SimDisk::holding(1, files).expect("no file is a folder")
}
