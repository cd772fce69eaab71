//! Opening a long log and a short one with tails of the same length.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use towline_protocol::record::RecordKind;

use crate::peer::Shape;
use crate::peers::towline::Towline;
use crate::samples::{Metrics, median};
use crate::size::Size;
use crate::workloads::payload;

/// Large records: what is measured is the opening.
const PAYLOAD_LEN: usize = 16 << 10;
/// How far the tail reaches into its segment.
const TAIL: u64 = 32 << 20;
/// How often each is opened; the median counts.
const TIMES: usize = 5;

pub(super) fn measure(dir: &Path, size: Size) -> Result<Metrics> {
    let shape = Shape::new(true);
    let [long, short] = size.opened();
    let names = [(dir.join("long"), long), (dir.join("short"), short)];
    let mut took = [Vec::new(), Vec::new()];
    for (folder, len) in &names {
        std::fs::create_dir_all(folder)?;
        // The first opening also reads what the page cache has lost.
        let log = Towline::open(folder, shape)?;
        if log.wal.appended().get() < len + TAIL {
            build(&log, len + TAIL)?;
        }
    }
    for _ in 0..TIMES {
        for ((folder, _), took) in names.iter().zip(&mut took) {
            let start = Instant::now();
            let log = Towline::open(folder, shape)?;
            took.push(start.elapsed().as_secs_f64() * 1e3);
            drop(log);
        }
    }
    let [long, short] = took.map(|took| median(&took));
    Ok(Metrics::from([("long ms", long), ("short ms", short)]))
}

fn build(log: &Towline, end: u64) -> Result<()> {
    let payload = payload(PAYLOAD_LEN);
    while log.wal.appended().get() < end {
        log.wal.append(RecordKind::Data, 0, &payload)?;
    }
    // The last record is there to promise the others: what nobody promised is written anew by every
    // opening, and how much that is would be chance.
    log.wal.flush()?;
    log.wal.append(RecordKind::Data, 0, &payload)?;
    log.wal.flush()?;
    Ok(())
}
