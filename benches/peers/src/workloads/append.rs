//! Appends that nobody syncs, into segments that are ready, of a log that is in use.

use std::path::Path;
use std::sync::Barrier;
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use towline_protocol::record::stored_len;

use crate::peer::{Peer, Shape, open};
use crate::samples::{Metrics, median};
use crate::size::Size;
use crate::workloads::payload;

/// So much a log took before, three segments and a little: a log that makes ready what comes next
/// by how it is used has done so.
const BEFORE: u64 = 192 << 20;
/// In records of this length.
const BEFORE_LEN: usize = 16 << 10;
/// A log is filled by this: less than a segment, so that only appends are measured.
const FILL: u64 = 60 << 20;
/// So often the clock is looked at: between that many records.
const CLOCK: u64 = 256;

pub(super) fn measure(
    who: &str,
    dir: &Path,
    len: usize,
    writers: usize,
    size: Size,
) -> Result<Metrics> {
    let record = payload(len);
    let each = FILL / stored_len(u32::try_from(len)?) / writers as u64;
    let mut rates = Vec::new();
    for fill in 0..size.fills() {
        let dir = dir.join(fill.to_string());
        let peer = open(who, &dir, Shape::new(false))?;
        peer.load(&payload(BEFORE_LEN), BEFORE / BEFORE_LEN as u64)?;
        peer.settle()?;
        rates.push(rate(&*peer, &record, each, writers, size)?);
        drop(peer);
        std::fs::remove_dir_all(&dir)?;
    }
    let rate = median(&rates);
    Ok(Metrics::from([("records/s", rate), ("bytes/s", rate * len as f64)]))
}

/// Records per second of all writers together, from their common start to the end of the last.
fn rate(peer: &dyn Peer, payload: &[u8], each: u64, writers: usize, size: Size) -> Result<f64> {
    let ready = Barrier::new(writers);
    let write = || {
        ready.wait();
        let start = Instant::now();
        run(peer, payload, each, start, size).map(|records| (records, start, Instant::now()))
    };
    let written = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
        let join = |thread: ScopedJoinHandle<'_, _>| {
            thread.join().map_err(|_| anyhow!("a writer panicked"))?
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    // By the writers' own clocks: whoever only watches them may get a core after the first of them.
    let records: u64 = written.iter().map(|(records, ..)| records).sum();
    let start = written.iter().map(|(_, start, _)| *start).min().context("no writer")?;
    let end = written.iter().map(|(.., end)| *end).max().context("no writer")?;
    Ok(records as f64 / (end - start).as_secs_f64())
}

/// How many records were appended before the time was over.
fn run(peer: &dyn Peer, payload: &[u8], most: u64, start: Instant, size: Size) -> Result<u64> {
    let mut records = 0;
    while records < most {
        for _ in 0..CLOCK.min(most - records) {
            peer.append(payload)?;
            records += 1;
        }
        if start.elapsed() > size.window() {
            break;
        }
    }
    Ok(records)
}
