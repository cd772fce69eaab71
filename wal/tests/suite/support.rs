//! What the log's tests share: a small log in a folder in memory, and ways to look at it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};
use towline_wal::{Appended, Founding, Level, Options, Report, Role, Wal, WalError, found};

pub(crate) const LOG: LogId = LogId(7);

pub(crate) fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

pub(crate) fn voters() -> Voters {
    let voter = Voter { node: node("a"), incarnation: Incarnation(1), zone: String::new() };
    Voters::new(vec![voter], None).unwrap()
}

pub(crate) fn founding(name: &str) -> Founding {
    Founding {
        cluster: ClusterId(1),
        cluster_name: "test".to_owned(),
        log: LOG,
        node: node(name),
        incarnation: Incarnation(1),
        segment_size: SegmentSize::MIN,
        role: Role::Primary,
        voters: voters(),
    }
}

/// A folder in memory, where a sync costs nothing.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

/// A founded log's folder: the folder that goes away, and the log's in it.
pub(crate) fn founded(name: &str) -> (TempDir, PathBuf) {
    let folder = folder();
    let dir = folder.path().join("log");
    found(&dir, &founding(name)).unwrap();
    (folder, dir)
}

pub(crate) fn open(dir: &Path) -> Result<(Arc<Wal>, Report), WalError> {
    Wal::open(dir, Options::default())
}

pub(crate) fn opened(dir: &Path) -> Arc<Wal> {
    open(dir).unwrap().0
}

pub(crate) fn barrier(wal: &Wal, number: u64) -> Barrier {
    Barrier {
        epoch: Epoch { number, incarnation: Incarnation(1) },
        previous: wal.last_epoch(),
        previous_end: wal.appended(),
        digest: wal.digest(),
        terms: Terms::founding(voters()),
        accepted_loss: false,
    }
}

pub(crate) fn begin(wal: &Wal, number: u64) -> Appended {
    wal.begin_epoch(&barrier(wal, number)).unwrap()
}

pub(crate) fn append(wal: &Wal, payload: &[u8]) -> Appended {
    wal.append(RecordKind::Data, 0, payload).unwrap()
}

/// A payload that says which one it is, of a length that varies.
pub(crate) fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + (number as usize * 37) % 300, number as u8);
    payload
}

/// Appends the records of some numbers; where each ends.
pub(crate) fn append_all(wal: &Wal, records: std::ops::Range<u64>) -> Vec<Lsn> {
    records.map(|number| append(wal, &payload(number)).end).collect()
}

/// The payloads of the log's DATA records, up to its flushed end.
pub(crate) fn contents(wal: &Arc<Wal>) -> Vec<Vec<u8>> {
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    let mut payloads = Vec::new();
    while let Some(record) = cursor.next_record().unwrap() {
        if record.header.kind == RecordKind::Data {
            payloads.push(record.payload.to_vec());
        }
    }
    payloads
}

pub(crate) fn payloads(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers.map(payload).collect()
}

/// Every file below a folder with its bytes.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            // The provisioner of an open log may rename what it has just made ready.
            match std::fs::read(&path) {
                Ok(bytes) => drop(files.insert(path, bytes)),
                Err(error) => assert!(path.extension().is_some_and(|it| it == "new"), "{error}"),
            }
        }
    }
    files
}

pub(crate) fn restore(dir: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    let _ = std::fs::remove_dir_all(dir);
    for (path, bytes) in files {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

pub(crate) fn segment(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.wal"))
}

/// The log's own thread makes the next segment ready, in its own time.
pub(crate) fn wait_for(ready: &Path) {
    for _ in 0..1_000 {
        if ready.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{} does not come", ready.display());
}

/// Changes one byte of a file.
pub(crate) fn flip(path: &Path, offset: u64, mask: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset as usize] ^= mask;
    std::fs::write(path, bytes).unwrap();
}
