//! The least an append of a record can be: its header, both checksums, and the copy of both into
//! a mapped file that was written before. One thread, no lock, no order, nobody told.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::LogId;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{
    HeaderSeed, RECORD_HEADER_LEN, RecordHeader, RecordKind, stored_len,
};

use crate::samples::{Metrics, median};
use crate::workloads::payload;

/// As large as a segment.
const LEN: usize = 64 << 20;
/// How often the file is filled; the median of that is the figure.
const FILLS: usize = 5;

/// A file of a segment's length, in memory and written once. Also what [`super::checksums`] reads.
#[allow(unsafe_code)]
pub(super) fn mapped(dir: &Path) -> Result<memmap2::MmapMut> {
    let path = dir.join("mapped");
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
    file.set_len(LEN as u64)?;
    // SAFETY: the file is in a folder of our own, has just been made, and nobody else opens it.
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file)? };
    map.fill(1);
    Ok(map)
}

pub(super) fn seed() -> HeaderSeed {
    HeaderSeed::new(LogId(1), Epoch::NONE, Lsn::ZERO, 1)
}

/// Fills the map with records, and says how many there are.
pub(super) fn fill(map: &mut [u8], payload: &[u8]) -> Result<u64> {
    let seed = seed();
    let stored = usize::try_from(stored_len(u32::try_from(payload.len())?))?;
    let mut lsn = Lsn::ZERO;
    let mut records = 0;
    for place in map.chunks_exact_mut(stored) {
        let header = RecordHeader::new(RecordKind::Data, 0, lsn, Lsn::ZERO, payload);
        let (head, rest) = place.split_at_mut(RECORD_HEADER_LEN);
        rest[..payload.len()].copy_from_slice(payload);
        head.copy_from_slice(&header.encode(seed));
        lsn = header.end();
        records += 1;
    }
    Ok(records)
}

pub(super) fn measure(dir: &Path, len: usize) -> Result<Metrics> {
    let mut map = mapped(dir)?;
    let payload = payload(len);
    let mut rates = Vec::new();
    for _ in 0..FILLS {
        let start = Instant::now();
        let records = fill(&mut map, &payload)?;
        rates.push(records as f64 / start.elapsed().as_secs_f64());
    }
    let rate = median(&rates);
    Ok(Metrics::from([("records/s", rate), ("bytes/s", rate * len as f64)]))
}
