//! What the disk and the page cache can do.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;

use crate::samples::Metrics;
use crate::size::Size;

const PAGE: usize = 4_096;
const BLOCK: usize = 1 << 20;
/// What the overwrites go round in.
const PREALLOCATED: u64 = 16 << 20;
/// What the sequential write of the device is.
const SEQUENTIAL: u64 = 512 << 20;

/// How often a second a page of a file that was filled before can be overwritten and synced.
pub(super) fn fdatasync(dir: &Path, size: Size) -> Result<Metrics> {
    let file = File::create(dir.join("overwritten"))?;
    let page = [7; PAGE];
    for at in (0..PREALLOCATED).step_by(PAGE) {
        file.write_all_at(&page, at)?;
    }
    file.sync_all()?;
    let (start, mut syncs) = (Instant::now(), 0);
    while start.elapsed() < size.window() / 2 {
        file.write_all_at(&page, (syncs * PAGE as u64) % PREALLOCATED)?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(Metrics::from([("syncs/s", syncs as f64 / start.elapsed().as_secs_f64())]))
}

/// How fast a new file grows in the page cache.
pub(super) fn page_cache(dir: &Path, size: Size) -> Result<Metrics> {
    let file = File::create(dir.join("cached"))?;
    let block = vec![7; BLOCK];
    let start = Instant::now();
    for at in (0..size.sustained()).step_by(BLOCK) {
        file.write_all_at(&block, at)?;
    }
    let rate = size.sustained() as f64 / start.elapsed().as_secs_f64();
    Ok(Metrics::from([("bytes/s", rate)]))
}

/// How fast the device takes large writes, past the page cache.
pub(super) fn device(dir: &Path) -> Result<Metrics> {
    let path = dir.join("direct");
    let direct = OFlag::O_DIRECT.bits();
    let mut how = OpenOptions::new();
    how.create(true).write(true).truncate(true).custom_flags(direct);
    let file = how.open(&path).with_context(|| format!("{}: O_DIRECT", path.display()))?;
    // Direct writes come from aligned memory.
    let memory = vec![7_u8; BLOCK + PAGE];
    let skip = memory.as_ptr().align_offset(PAGE);
    let block = &memory[skip..skip + BLOCK];
    // Twice over the same blocks, the second time counts: the first also allocates them.
    let mut rate = 0.0;
    for _ in 0..2 {
        let start = Instant::now();
        for at in (0..SEQUENTIAL).step_by(BLOCK) {
            file.write_all_at(block, at)?;
        }
        file.sync_data()?;
        rate = SEQUENTIAL as f64 / start.elapsed().as_secs_f64();
    }
    Ok(Metrics::from([("bytes/s", rate)]))
}
