//! What a log is made to do.

mod append;
mod disk_bytes;
mod durable;
mod opening;
mod reading;
mod rollover;
mod sustained;
mod tasks;

use std::path::Path;

use anyhow::{Context, Result};

use crate::limits;
use crate::peer::OURS;
use crate::samples::Metrics;
use crate::size::Size;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Append { len: usize, writers: usize },
    Sustained { trimmed: bool },
    Durable { threads: usize },
    Tasks { tasks: usize },
    DiskBytes,
    Rollover,
    Reading,
    Opening,
}

/// What is done, to which logs, and beside which limits.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) peers: &'static [&'static str],
    /// Measured before and after the logs of each round; it says whether the machine held still.
    pub(crate) floor: (&'static str, &'static str),
    /// Measured once in each round.
    pub(crate) limits: &'static [&'static str],
}

/// All that can append without a sync.
const UNSYNCED: &[&str] =
    &["mutex-file", "pwrite", "wal-db", "walrus-rust", "raft-engine", "fjall", "commitlog"];
/// All that can sync.
const SYNCED: &[&str] = &[
    "mutex-file",
    "pwrite",
    "wal-db",
    "open-wal",
    "okaywal",
    "walrus-rust",
    "raft-engine",
    "fjall",
];
/// All that can tell when they go on in another file.
const ROLLING: &[&str] = &["wal-db", "raft-engine", "commitlog"];
/// All that read what they hold in order. okaywal does while it opens.
const READ: &[&str] = &[
    "mutex-file",
    "pwrite",
    "wal-db",
    "open-wal",
    "okaywal",
    "walrus-rust",
    "raft-engine",
    "fjall",
    "commitlog",
];

const SKELETON: (&str, &str) = ("skeleton", "records/s");
const FDATASYNC: (&str, &str) = ("fdatasync", "syncs/s");
const CHECKSUMS: (&str, &str) = ("checksums", "records/s");

const fn append(name: &'static str, len: usize, writers: usize) -> Workload {
    let kind = Kind::Append { len, writers };
    Workload { name, kind, peers: UNSYNCED, floor: SKELETON, limits: &[] }
}

const fn durable(name: &'static str, threads: usize) -> Workload {
    let kind = Kind::Durable { threads };
    Workload { name, kind, peers: SYNCED, floor: FDATASYNC, limits: &[] }
}

const fn tasks(name: &'static str, tasks: usize) -> Workload {
    Workload { name, kind: Kind::Tasks { tasks }, peers: &[], floor: FDATASYNC, limits: &[] }
}

/// Every workload, in the order in which a round goes through them.
pub(crate) const ALL: [Workload; 18] = [
    append("append-64", 64, 1),
    append("append-256", 256, 1),
    append("append-1k", 1 << 10, 1),
    append("append-4k", 4 << 10, 1),
    append("append-16k", 16 << 10, 1),
    append("writers-4", 256, 4),
    durable("durable-1", 1),
    durable("durable-4", 4),
    durable("durable-16", 16),
    durable("durable-64", 64),
    tasks("tasks-64", 64),
    tasks("tasks-1000", 1_000),
    Workload {
        name: "disk-bytes",
        kind: Kind::DiskBytes,
        peers: SYNCED,
        floor: FDATASYNC,
        limits: &[],
    },
    Workload {
        name: "rollover",
        kind: Kind::Rollover,
        peers: ROLLING,
        floor: SKELETON,
        limits: &[],
    },
    Workload { name: "reading", kind: Kind::Reading, peers: READ, floor: CHECKSUMS, limits: &[] },
    Workload { name: "opening", kind: Kind::Opening, peers: &[], floor: CHECKSUMS, limits: &[] },
    // Last, as they leave the disk with something to do.
    Workload {
        name: "sustained",
        kind: Kind::Sustained { trimmed: false },
        peers: UNSYNCED,
        floor: SKELETON,
        limits: &["page-cache", "device"],
    },
    Workload {
        name: "recycled",
        kind: Kind::Sustained { trimmed: true },
        peers: &[],
        floor: SKELETON,
        limits: &[],
    },
];

impl Workload {
    /// The length of its records' payloads, in bytes.
    pub(crate) const fn payload_len(&self) -> usize {
        match self.kind {
            Kind::Append { len, .. } => len,
            Kind::Sustained { .. } => sustained::PAYLOAD_LEN,
            _ => 256,
        }
    }

    /// Whether it writes gigabytes.
    pub(crate) const fn is_long(&self) -> bool {
        matches!(self.kind, Kind::Sustained { .. })
    }

    /// Whether what it has made stays for the next round.
    pub(crate) const fn keeps_its_folder(&self) -> bool {
        matches!(self.kind, Kind::Opening)
    }
}

/// Measures one log, or one limit, at one workload.
pub(crate) fn measure(workload: &str, who: &str, dir: &Path, size: Size) -> Result<Metrics> {
    let known = ALL.iter().find(|it| it.name == workload);
    let workload = known.with_context(|| format!("no workload is called {workload}"))?;
    let len = workload.payload_len();
    if limits::NAMES.contains(&who) {
        return limits::measure(who, dir, len, size);
    }
    match workload.kind {
        Kind::Append { len, writers } => append::measure(who, dir, len, writers, size),
        Kind::Sustained { trimmed } => sustained::measure(who, dir, trimmed, size),
        Kind::Durable { threads } => durable::measure(who, dir, threads, size),
        Kind::Tasks { tasks } => tasks::measure(dir, tasks, size),
        Kind::DiskBytes => disk_bytes::measure(who, dir, size),
        Kind::Rollover => rollover::measure(who, dir, size),
        Kind::Reading => reading::measure(who, dir),
        Kind::Opening => opening::measure(dir, size),
    }
}

/// Whoever is measured at a workload, us first.
pub(crate) fn contestants(workload: &Workload) -> impl Iterator<Item = &'static str> {
    std::iter::once(OURS).chain(workload.peers.iter().copied())
}

/// Bytes that do not repeat, so that nothing is gained by compressing them.
pub(crate) fn payload(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
