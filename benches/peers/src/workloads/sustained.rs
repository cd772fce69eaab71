//! One writer that goes on and on: what a log can take once the segments it had ready are full.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::meter::{Faults, anonymous_memory};
use crate::peer::{OURS, Peer, Shape, open};
use crate::samples::Metrics;
use crate::size::Size;
use crate::workloads::payload;

pub(super) const PAYLOAD_LEN: usize = 1 << 10;
/// So many records between two looks at the clock.
const CLOCK: u64 = 1_000;
/// Between two trims.
const TRIM: Duration = Duration::from_millis(20);
const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;

pub(super) fn measure(who: &str, dir: &Path, trimmed: bool, size: Size) -> Result<Metrics> {
    let peer = open(who, dir, Shape { eager: true, ..Shape::new(false) })?;
    peer.settle()?;
    let (faults, memory) = (Faults::of_thread()?, anonymous_memory()?);
    let done = AtomicBool::new(false);
    let (written, took) = std::thread::scope(|scope| {
        let trimmer = trimmed.then(|| scope.spawn(|| trim(&*peer, size.kept(), &done)));
        let written = write(who, &*peer, size);
        done.store(true, Ordering::Relaxed);
        if let Some(trimmer) = trimmer {
            trimmer.join().map_err(|_| anyhow!("the trimmer panicked"))??;
        }
        written
    })?;
    let now = Faults::of_thread()?;
    let grown = anonymous_memory()?.saturating_sub(memory) as f64;
    let gib = written as f64 / GIB;
    Ok(Metrics::from([
        ("bytes/s", written as f64 / took),
        ("records/s", written as f64 / PAYLOAD_LEN as f64 / took),
        ("major faults", (now.major - faults.major) as f64),
        ("minor faults/GiB", (now.minor - faults.minor) as f64 / gib),
        ("grown MiB", grown / MIB),
    ]))
}

/// How many bytes of payload were written, and the seconds that took.
fn write(who: &str, peer: &dyn Peer, size: Size) -> Result<(u64, f64)> {
    let payload = payload(PAYLOAD_LEN);
    let start = Instant::now();
    let mut written = 0;
    // Ours goes the whole way. A peer is let off early, which does it no harm: it is the later part
    // in which the page cache is full.
    while written < size.sustained() && (who == OURS || start.elapsed() < size.sustained_time()) {
        for _ in 0..CLOCK {
            peer.append(&payload)?;
        }
        written += CLOCK * PAYLOAD_LEN as u64;
    }
    Ok((written, start.elapsed().as_secs_f64()))
}

/// Gives up what is further back than `keep`, again and again.
fn trim(peer: &dyn Peer, keep: u64, done: &AtomicBool) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        peer.trim(keep)?;
        std::thread::sleep(TRIM);
    }
    Ok(())
}
