//! The log under test: how it is founded, opened and read back, on a simulated disk or a real one.

use std::path::Path;
use std::sync::Arc;

use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{ClusterId, Incarnation, LogId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};
use towline_wal::simulated::SimDisk;
use towline_wal::{
    Founding, Level, Options, ReadRecord, Role, Wal, WalError, read_control_on, read_log_on,
};

use crate::oracle::{Found, Read, Written};

/// Where a simulated disk has its log.
pub(crate) const DIR: &str = "/node/log";

pub(crate) fn dir() -> &'static Path {
    Path::new(DIR)
}

/// What every log here is founded with: the smallest segments.
pub(crate) fn founding() -> Founding {
    Founding {
        cluster: ClusterId(1),
        cluster_name: "torture".to_owned(),
        log: LogId(7),
        node: "a".parse().expect("it is a name"),
        incarnation: Incarnation(1),
        segment_size: SegmentSize::MIN,
        role: Role::Primary,
        voters: voters(),
    }
}

fn voters() -> Voters {
    let node = "a".parse().expect("it is a name");
    let voter = Voter { node, incarnation: Incarnation(1), zone: String::new() };
    Voters::new(vec![voter], None).expect("one voter is enough")
}

/// Without threads: all that happens, happens in a call.
pub(crate) fn options(disk: &SimDisk) -> Options {
    Options { disk: Arc::new(disk.clone()), threads: false, ..Options::default() }
}

pub(crate) fn open(disk: &SimDisk) -> Result<Arc<Wal>, WalError> {
    Wal::open(dir(), options(disk)).map(|(wal, _)| wal)
}

pub(crate) const fn epoch(number: u64) -> Epoch {
    Epoch { number, incarnation: Incarnation(1) }
}

/// The BARRIER of an epoch that follows on exactly this log.
pub(crate) fn barrier(wal: &Wal, number: u64) -> Barrier {
    Barrier {
        epoch: epoch(number),
        previous: wal.last_epoch(),
        previous_end: wal.appended(),
        digest: wal.digest(),
        terms: Terms::founding(voters()),
        accepted_loss: false,
    }
}

/// Appends a DATA record; `promise` is what is known to be durable.
pub(crate) fn append(wal: &Wal, payload: Vec<u8>, promise: u64) -> Result<Written, WalError> {
    let tag = u16::from(payload.last().copied().unwrap_or_default());
    let appended = wal.append(RecordKind::Data, tag, &payload)?;
    Ok(Written {
        kind: RecordKind::Data as u8,
        tag,
        payload: payload.into(),
        lsn: appended.lsn.get(),
        end: appended.end.get(),
        promise,
        epoch: None,
    })
}

/// Begins an epoch; its BARRIER is a record like others.
pub(crate) fn begin(wal: &Wal, number: u64, promise: u64) -> Result<Written, WalError> {
    let barrier = barrier(wal, number);
    let appended = wal.begin_epoch(&barrier)?;
    Ok(Written {
        kind: RecordKind::Barrier as u8,
        tag: 0,
        payload: barrier.encode().into(),
        lsn: appended.lsn.get(),
        end: appended.end.get(),
        promise,
        epoch: Some(number),
    })
}

/// Everything a reader finds in an open log. The SEALs are the log's own and left out.
pub(crate) fn read_back(wal: &Arc<Wal>) -> Result<Found, WalError> {
    let mut records = Vec::new();
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed)?;
    while let Some(record) = cursor.next_record()? {
        if record.header.kind != RecordKind::Seal {
            records.push(Read {
                kind: record.header.kind as u8,
                tag: record.header.tag,
                payload: record.payload.to_vec(),
                lsn: record.header.lsn.get(),
                end: record.header.end().get(),
            });
        }
    }
    let epochs = wal.history().starts().iter().map(|start| start.epoch.number).collect();
    Ok(Found { records, epochs, fence: wal.control().fence.number })
}

/// What a reader finds in a folder without opening the log, and why it calls it corrupt.
pub(crate) fn verify(disk: &SimDisk) -> Result<Found, String> {
    let refused = |error: WalError| error.to_string();
    let fence = read_control_on(disk, dir()).map_err(refused)?.fence.number;
    let mut found = Found { fence, ..Found::default() };
    let mut reader = read_log_on(disk, dir()).map_err(refused)?;
    for record in reader.by_ref() {
        found.take(&record.map_err(refused)?);
    }
    let verdict = reader.verdict().ok_or("it came to no verdict")?;
    if verdict.is_corrupt() {
        return Err(format!("{} at {}", verdict.what, verdict.stopped));
    }
    Ok(found)
}

impl Found {
    /// One more record, of a reader that knows of nothing else.
    fn take(&mut self, record: &ReadRecord) {
        let header = &record.header;
        if header.kind == RecordKind::Barrier {
            self.epochs.push(record.segment.epoch.number);
        }
        if header.kind != RecordKind::Seal {
            self.records.push(Read {
                kind: header.kind as u8,
                tag: header.tag,
                payload: record.payload.to_vec(),
                lsn: header.lsn.get(),
                end: header.end().get(),
            });
        }
    }
}

/// A payload that no other number has, of `len` bytes.
pub(crate) fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut random = crate::random::Random::new(number);
    let mut payload = number.to_le_bytes().to_vec();
    while payload.len() < len {
        payload.extend_from_slice(&random.next().to_le_bytes());
    }
    payload.truncate(len.max(8));
    payload
}
