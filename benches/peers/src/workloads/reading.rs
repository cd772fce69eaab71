//! Reading what was just written, and opening a log whose tail was never closed.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use towline_protocol::record::stored_len;

use crate::peer::{Shape, open};
use crate::samples::{Metrics, median};
use crate::workloads::payload;

const PAYLOAD_LEN: usize = 256;
/// Nearly a segment.
const LOADED: u64 = 60 << 20;
/// How often it is read, and opened again; the median of each counts.
const TIMES: usize = 3;

pub(super) fn measure(who: &str, dir: &Path) -> Result<Metrics> {
    let payload = payload(PAYLOAD_LEN);
    let stored = stored_len(u32::try_from(PAYLOAD_LEN)?);
    let records = LOADED / stored;
    let shape = Shape { eager: true, ..Shape::new(false) };
    let peer = open(who, dir, shape)?;
    peer.settle()?;
    peer.load(&payload, records)?;
    let (mut reads, mut opens) = (Vec::new(), Vec::new());
    let mut in_place = 0;
    for round in 0..TIMES {
        // A queue hands out a record once, and one log has its records only after it was opened.
        let reads_once = who == "walrus-rust" && round > 0 || who == "okaywal";
        if !reads_once {
            let (mut read, mut last) = (0, 0);
            let start = Instant::now();
            peer.read(&mut |payload| {
                let at = payload.as_ptr() as usize;
                in_place += u64::from(at == last + stored as usize);
                last = at;
                read += 1;
            })?;
            reads.push(records as f64 / start.elapsed().as_secs_f64());
            ensure!(read == records, "{records} records were written, {read} were read");
        }
    }
    drop(peer);
    // Two read nothing when they are opened.
    let times = if ["mutex-file", "commitlog"].contains(&who) { 0 } else { TIMES };
    for _ in 0..times {
        let start = Instant::now();
        let peer = open(who, dir, shape)?;
        opens.push(records as f64 / start.elapsed().as_secs_f64());
        drop(peer);
    }
    let copied = 1.0 - in_place as f64 / (records * TIMES as u64) as f64;
    let mut metrics = Metrics::from([("share copied", copied)]);
    for (name, rates) in [("read records/s", reads), ("opened records/s", opens)] {
        if !rates.is_empty() {
            metrics.insert(name, median(&rates));
        }
    }
    Ok(metrics)
}
