//! Records that their writers wait for. Every one that was acknowledged is counted again after the
//! log was opened anew.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};

use crate::meter::cpu_time;
use crate::peer::{Shape, open};
use crate::samples::Metrics;
use crate::size::Size;
use crate::workloads::payload;

const PAYLOAD_LEN: usize = 256;

pub(super) fn measure(who: &str, dir: &Path, threads: usize, size: Size) -> Result<Metrics> {
    let payload = payload(PAYLOAD_LEN);
    let peer = open(who, dir, Shape::new(true))?;
    peer.settle()?;
    peer.commit(&payload)?;
    let (cpu, start) = (cpu_time()?, Instant::now());
    let mut commits = 0_u64;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<u64> {
                    let mut commits = 0;
                    while start.elapsed() < size.window() {
                        peer.commit(&payload)?;
                        commits += 1;
                    }
                    Ok(commits)
                })
            })
            .collect();
        for writer in writers {
            commits += writer.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let (took, cpu) = (start.elapsed().as_secs_f64(), (cpu_time()? - cpu).as_secs_f64());
    drop(peer);
    check_kept(who, dir, commits + 1)?;
    let commits = commits as f64;
    Ok(Metrics::from([("commits/s", commits / took), ("cpu us/commit", cpu * 1e6 / commits)]))
}

/// Opens the log again and counts.
pub(super) fn check_kept(who: &str, dir: &Path, acknowledged: u64) -> Result<()> {
    let peer = open(who, dir, Shape::new(true))?;
    let mut kept = 0;
    peer.read(&mut |payload| kept += u64::from(payload.len() == PAYLOAD_LEN))?;
    ensure!(
        kept == acknowledged,
        "{acknowledged} records were acknowledged, {kept} are there after opening it again"
    );
    Ok(())
}
