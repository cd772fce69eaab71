//! How long an append takes while the log goes on in another file, and how long elsewhere.
//!
//! Segments are small and appends come at a pace that a disk can follow: what is asked is whether
//! the work of a rollover reaches the caller, not how fast segments can be made.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::peer::{Shape, open};
use crate::samples::Metrics;
use crate::size::Size;
use crate::workloads::payload;

const SEGMENT: u64 = 1 << 20;
const PAYLOAD_LEN: usize = 256;
/// Between two appends: a segment lasts for about 11 ms.
const PACE: Duration = Duration::from_micros(3);
/// The appends before and after a rollover that count as around it.
const AROUND: usize = 500;
/// The share of the appends that is faster than the figure.
const SHARE: f64 = 0.999;

pub(super) fn measure(who: &str, dir: &Path, size: Size) -> Result<Metrics> {
    let payload = payload(PAYLOAD_LEN);
    let peer = open(who, dir, Shape { segment: SEGMENT, durable: false, eager: true })?;
    peer.settle()?;
    let mut file = peer.file().context("it does not tell when it goes on in another file")?;
    let (mut took, mut rollovers) = (Vec::<u32>::new(), Vec::new());
    let mut due = Instant::now();
    // The last one needs its appends behind it, too.
    let mut until = usize::MAX;
    while took.len() < until {
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        peer.append(&payload)?;
        let end = Instant::now();
        took.push(u32::try_from((end - start).as_nanos()).unwrap_or(u32::MAX));
        due = end.max(due + PACE);
        let now = peer.file().unwrap_or(file);
        if now != file {
            file = now;
            rollovers.push(took.len() - 1);
            if rollovers.len() as u64 == size.rollovers() {
                until = took.len() + AROUND;
            }
        }
    }
    let mut is_near = vec![false; took.len()];
    for &at in &rollovers {
        is_near[at.saturating_sub(AROUND)..(at + AROUND).min(took.len())].fill(true);
    }
    let of = |near: bool| -> Vec<u32> {
        took.iter().zip(&is_near).filter(|(_, is)| **is == near).map(|(took, _)| *took).collect()
    };
    Ok(Metrics::from([
        ("near us", slowest(of(true))),
        ("far us", slowest(of(false))),
        ("rollovers", rollovers.len() as f64),
    ]))
}

/// The time, in microseconds, that all but the slowest take at the most.
fn slowest(mut took: Vec<u32>) -> f64 {
    took.sort_unstable();
    let at = (took.len() as f64 * SHARE) as usize;
    took.get(at).map_or(f64::NAN, |took| f64::from(*took) / 1e3)
}
