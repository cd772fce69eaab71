//! As the durable writers, but tasks: many of them on two threads, none of which may block.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use tokio::task::JoinSet;
use towline_protocol::record::RecordKind;

use super::durable::check_kept;
use crate::meter::cpu_time;
use crate::peer::{OURS, Peer, Shape};
use crate::peers::towline::Towline;
use crate::samples::Metrics;
use crate::size::Size;
use crate::workloads::payload;

const THREADS: usize = 2;
const PAYLOAD_LEN: usize = 256;

pub(super) fn measure(dir: &Path, tasks: usize, size: Size) -> Result<Metrics> {
    std::fs::create_dir_all(dir)?;
    let log = Towline::open(dir, Shape::new(true))?;
    log.settle()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).build()?;
    let (cpu, start) = (cpu_time()?, Instant::now());
    let commits = runtime.block_on(async {
        let mut running = JoinSet::new();
        for _ in 0..tasks {
            let wal = Arc::clone(&log.wal);
            running.spawn(async move {
                let payload = payload(PAYLOAD_LEN);
                let mut commits = 0_u64;
                while start.elapsed() < size.window() {
                    let appended = wal.append(RecordKind::Data, 0, &payload)?;
                    wal.until_flushed(appended.end).await?;
                    commits += 1;
                }
                anyhow::Ok(commits)
            });
        }
        let mut commits = 0;
        while let Some(done) = running.join_next().await {
            commits += done??;
        }
        anyhow::Ok(commits)
    })?;
    let (took, cpu) = (start.elapsed().as_secs_f64(), (cpu_time()? - cpu).as_secs_f64());
    drop((runtime, log));
    check_kept(OURS, dir, commits)?;
    let commits = commits as f64;
    Ok(Metrics::from([("commits/s", commits / took), ("cpu us/commit", cpu * 1e6 / commits)]))
}
