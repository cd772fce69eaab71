//! The log under test: how it is founded, opened and read back, on a simulated disk or a real one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{ClusterId, Incarnation, LogId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{RecordHeader, RecordKind};
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};
use towline_wal::simulated::SimDisk;
use towline_wal::{
    Chunk, Control, Founding, Level, Options, Role, Wal, WalError, read_control_on, read_log_on,
};

use crate::kept::Slot;
use crate::oracle::{Found, Read, Written};

/// The slot that a log under test may have.
pub(crate) const SLOT: &str = "reader";
/// Where a simulated disk has its log.
pub(crate) const DIR: &str = "/node/log";
/// How much of a log is read at a time where it is read as it is shipped, in bytes.
const CHUNK_LEN: usize = 32 << 10;

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
    let control = wal.control();
    let mut found = Found::of(&control);
    let mut cursor = wal.cursor(control.oldest.end, Level::Flushed)?;
    let mut read = BTreeMap::new();
    while let Some(record) = cursor.next_record()? {
        found.take(&record.header, &record.payload);
        read.insert(record.header.lsn, record.header.end());
    }
    ship(wal, control.oldest.end, &read)?;
    found.epochs = wal.history().starts().iter().map(|start| start.epoch.number).collect();
    Ok(found)
}

/// Reads the log as it is shipped, in chunks: they hold the records that were read, and no other.
fn ship(wal: &Arc<Wal>, from: Lsn, read: &BTreeMap<Lsn, Lsn>) -> Result<(), WalError> {
    let mut cursor = wal.cursor(from, Level::Flushed)?;
    let mut shipped = 0;
    while let Some(chunk) = cursor.next_chunk(CHUNK_LEN)? {
        let mut at = chunk.from;
        while at < chunk.end {
            at = *read.get(&at).ok_or(WalError::NoBoundary(at))?;
            shipped += 1;
        }
    }
    if shipped == read.len() { Ok(()) } else { Err(WalError::NoBoundary(cursor.position())) }
}

/// What a reader finds in a folder without opening the log, and why it calls it corrupt.
pub(crate) fn verify(disk: &SimDisk) -> Result<Found, String> {
    match read_to_damage(disk)? {
        (found, None) => Ok(found),
        (_, Some((at, what))) => Err(format!("{what} at {at}")),
    }
}

/// Why a log is corrupt, and where.
pub(crate) type Corruption = Option<(u64, String)>;

/// What a reader finds in a folder without opening the log, up to where it calls it corrupt.
pub(crate) fn read_to_damage(disk: &SimDisk) -> Result<(Found, Corruption), String> {
    let refused = |error: WalError| error.to_string();
    let control = read_control_on(disk, dir()).map_err(refused)?;
    let mut found = Found::of(&control);
    // Of the epochs that begin where the log no longer is only the control file knows.
    let starts = control.history.starts().iter();
    let trimmed = starts.take_while(|start| start.first.get() < found.base);
    found.epochs = trimmed.map(|start| start.epoch.number).collect();
    let mut reader = read_log_on(disk, dir()).map_err(refused)?;
    for record in reader.by_ref() {
        let record = record.map_err(refused)?;
        if record.header.kind == RecordKind::Barrier {
            found.epochs.push(record.segment.epoch.number);
        }
        found.take(&record.header, &record.payload);
    }
    let verdict = reader.verdict().ok_or("it came to no verdict")?;
    let corruption = (verdict.stopped.get(), verdict.what.clone());
    Ok((found, verdict.is_corrupt().then_some(corruption)))
}

impl Found {
    /// Nothing but what a control file says.
    fn of(control: &Control) -> Self {
        let slot = control.slots().iter().find(|slot| slot.name == SLOT);
        Self {
            base: control.oldest.base.get(),
            fence: control.fence.number,
            slot: slot.map(|it| Slot { position: it.position.get(), lagged: it.lagged }),
            ..Self::default()
        }
    }

    /// One more record.
    fn take(&mut self, header: &RecordHeader, payload: &[u8]) {
        if header.kind != RecordKind::Seal {
            self.records.push(Read {
                kind: header.kind as u8,
                tag: header.tag,
                payload: payload.to_vec(),
                lsn: header.lsn.get(),
                end: header.end().get(),
            });
        }
    }
}

/// The whole segment that begins at `base`, as a peer would ship it.
pub(crate) fn segment_of(wal: &Arc<Wal>, base: u64) -> Result<Vec<Chunk>, WalError> {
    let mut cursor = wal.cursor(SegmentSize::first_record(Lsn::new(base)), Level::Flushed)?;
    let mut chunks = Vec::new();
    while let Some(mut chunk) = cursor.next_chunk(1 << 20)? {
        if chunk.segment.base.get() != base {
            break;
        }
        // A peer's are not the bytes that this log has mapped.
        chunk.bytes = chunk.bytes.to_vec().into();
        chunks.push(chunk);
    }
    Ok(chunks)
}

/// Where the file of the segment lies that begins at `base`, in the log's folder.
pub(crate) fn segment_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.wal"))
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
