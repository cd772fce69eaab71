//! What the device writes for one committed record, deep inside a segment: in its first part even
//! a segment that was prepared the wrong way looks innocent.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::meter::device_written;
use crate::peer::{Shape, open};
use crate::samples::{Metrics, median};
use crate::size::Size;
use crate::workloads::payload;

/// 288 bytes with our header.
const PAYLOAD_LEN: usize = 256;
/// So much is in the segment before, as far as the log can load it in time.
const BEFORE: u64 = 34 << 20;
/// Commits that are counted together, and how often they are: the device writes for others, too,
/// and the median leaves their bursts out.
const COMMITS: u64 = 20;
const COUNTS: usize = 25;

pub(super) fn measure(who: &str, dir: &Path, size: Size) -> Result<Metrics> {
    let payload = payload(PAYLOAD_LEN);
    let peer = open(who, dir, Shape::new(true))?;
    peer.settle()?;
    let (start, mut loaded) = (Instant::now(), 0);
    while loaded < BEFORE && start.elapsed() < 2 * size.window() {
        peer.load(&payload, 1_000)?;
        loaded += 1_000 * PAYLOAD_LEN as u64;
    }
    for _ in 0..COMMITS {
        peer.commit(&payload)?;
    }
    let mut counts = Vec::new();
    for _ in 0..COUNTS {
        let before = device_written(dir)?;
        for _ in 0..COMMITS {
            peer.commit(&payload)?;
        }
        counts.push((device_written(dir)? - before) as f64 / COMMITS as f64);
    }
    Ok(Metrics::from([("bytes/commit", median(&counts))]))
}
