//! Logs on a simulated disk whose files are tampered with, byte by byte as
//! docs/design/wal-format.md describes them and without the log's own code.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{ClusterId, Incarnation, LogId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{Digest, RecordKind};
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};
use towline_wal::simulated::SimDisk;
use towline_wal::{Disk, Founding, Level, Options, Report, Role, Wal, WalError, found_on};

const DIR: &str = "/log";
const LOG: LogId = LogId(7);
/// The segment size of the logs here, in bytes.
pub(crate) const SEGMENT_LEN: u64 = SegmentSize::MIN.bytes();
pub(crate) const HEADER_LEN: usize = 32;

/// A log of one epoch on a disk of its own.
pub(crate) struct Log {
    pub(crate) disk: SimDisk,
    payloads: Vec<Vec<u8>>,
}

/// What a forged record says. By default it is a good one.
#[derive(Clone)]
pub(crate) struct Forged {
    pub(crate) len: Option<u32>,
    pub(crate) lsn: u64,
    pub(crate) promise: u64,
    pub(crate) kind: u8,
    pub(crate) epoch: Epoch,
    pub(crate) base: u64,
    pub(crate) nonce: u64,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const EPOCH: Epoch = Epoch { number: 1, incarnation: Incarnation(1) };

fn voters() -> Voters {
    let node = "a".parse().unwrap();
    let voter = Voter { node, incarnation: Incarnation(1), zone: String::new() };
    Voters::new(vec![voter], None).unwrap()
}

impl Log {
    /// A log that holds a BARRIER and as many records as `len` says, all of it flushed.
    pub(crate) fn of(seed: u64, len: usize) -> Self {
        let disk = SimDisk::new(seed);
        let founding = Founding {
            cluster: ClusterId(1),
            cluster_name: String::new(),
            log: LOG,
            node: "a".parse().unwrap(),
            incarnation: Incarnation(1),
            segment_size: SegmentSize::MIN,
            role: Role::Primary,
            voters: voters(),
        };
        found_on(&disk, Path::new(DIR), &founding).unwrap();
        let mut log = Self { disk, payloads: Vec::new() };
        let (wal, _) = log.open().unwrap();
        let barrier = Barrier {
            epoch: EPOCH,
            previous: Epoch::NONE,
            previous_end: Lsn::ZERO,
            digest: Digest::EMPTY,
            terms: Terms::founding(voters()),
            accepted_loss: false,
        };
        wal.begin_epoch(&barrier).unwrap();
        log.append(&wal, len);
        log
    }

    pub(crate) fn open(&self) -> Result<(Arc<Wal>, Report), WalError> {
        let disk = Arc::new(self.disk.clone());
        Wal::open(Path::new(DIR), Options { disk, threads: false, ..Options::default() })
    }

    /// Appends `len` records, of which the last promises all those before it, and flushes them.
    pub(crate) fn append(&mut self, wal: &Wal, len: usize) -> Lsn {
        for at in 0..len {
            if at + 1 == len {
                wal.flush().unwrap();
            }
            let number = self.payloads.len() as u8;
            let payload = vec![number; 100 + usize::from(number)];
            wal.append(RecordKind::Data, 0, &payload).unwrap();
            self.payloads.push(payload);
        }
        wal.flush().unwrap()
    }

    /// The process that had the log open is dead.
    pub(crate) fn kill(&self) {
        self.disk.kill();
    }

    pub(crate) fn path(&self, base: u64) -> PathBuf {
        Path::new(DIR).join(format!("{base:020}.wal"))
    }

    pub(crate) fn bytes(&self, base: u64) -> Vec<u8> {
        self.disk.read(&self.path(base), SEGMENT_LEN).unwrap()
    }

    /// Writes `bytes` at `offset` of a segment's file, into the kernel's cache as a process would.
    pub(crate) fn overwrite(&self, base: u64, offset: usize, bytes: &[u8]) {
        let mut content = self.bytes(base);
        content[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.disk.write(&self.path(base), &content).unwrap();
    }

    /// A good record that would follow on `lsn` of the first segment.
    pub(crate) fn forged(&self, lsn: Lsn) -> Forged {
        Forged {
            len: None,
            lsn: lsn.get(),
            promise: 0,
            kind: RecordKind::Data as u8,
            epoch: EPOCH,
            base: 0,
            nonce: u64::from_le_bytes(self.bytes(0)[58..66].try_into().unwrap()),
            payload: vec![0xab; 200],
        }
    }

    /// All the payloads of DATA records that the log holds.
    pub(crate) fn contents(wal: &Arc<Wal>) -> Vec<Vec<u8>> {
        let mut cursor = wal.cursor(Lsn::ZERO, Level::Appended).unwrap();
        let next = || cursor.next_record().unwrap();
        let records = std::iter::from_fn(next);
        let of_data = records.filter(|record| record.header.kind == RecordKind::Data);
        of_data.map(|record| record.payload.to_vec()).collect()
    }

    /// Whether the log holds exactly what was appended to it.
    pub(crate) fn holds_its_own(&self, wal: &Arc<Wal>) -> bool {
        Self::contents(wal) == self.payloads
    }
}

impl Forged {
    /// The bytes of the record: header and payload.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut seed = crc32fast::Hasher::new();
        seed.update(&LOG.0.to_le_bytes());
        seed.update(&self.epoch.number.to_le_bytes());
        seed.update(&self.epoch.incarnation.0.to_le_bytes());
        seed.update(&self.base.to_le_bytes());
        seed.update(&self.nonce.to_le_bytes());
        let len = self.len.unwrap_or(self.payload.len() as u32);
        let mut header = vec![0; 4];
        header.extend(len.to_le_bytes());
        header.extend(self.lsn.to_le_bytes());
        header.extend(self.promise.to_le_bytes());
        header.extend(crc32fast::hash(&self.payload).to_le_bytes());
        header.extend([self.kind, 0, 0, 0]);
        let mut crc = crc32fast::Hasher::new_with_initial(seed.finalize());
        crc.update(&header[4..]);
        header[..4].copy_from_slice(&crc.finalize().to_le_bytes());
        header.extend(&self.payload);
        header
    }
}
