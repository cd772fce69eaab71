//! The least that verifying records can be: both checksums of each, where they lie in a mapping.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{RECORD_HEADER_LEN, RecordHeader};

use super::skeleton::{fill, mapped, seed};
use crate::samples::{Metrics, median};
use crate::workloads::payload;

/// How often the file is read; the median of that is the figure.
const SCANS: usize = 5;

pub(super) fn measure(dir: &Path, len: usize) -> Result<Metrics> {
    let mut map = mapped(dir)?;
    let records = fill(&mut map, &payload(len))?;
    let seed = seed();
    let mut rates = Vec::new();
    for _ in 0..SCANS {
        let start = Instant::now();
        let mut lsn = Lsn::ZERO;
        let mut rest: &[u8] = &map;
        for _ in 0..records {
            let header = RecordHeader::decode(rest, lsn, seed)?;
            let stored = usize::try_from(header.stored_len())?;
            let (record, behind) = rest.split_at(stored);
            header.check_payload(&record[RECORD_HEADER_LEN..][..header.len as usize])?;
            (lsn, rest) = (header.end(), behind);
        }
        rates.push(records as f64 / start.elapsed().as_secs_f64());
    }
    let rate = median(&rates);
    Ok(Metrics::from([("records/s", rate), ("bytes/s", rate * len as f64)]))
}
