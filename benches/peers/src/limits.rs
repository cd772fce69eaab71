//! What the machine can do: the limits that a log is held against.

mod checksums;
mod disk;
mod skeleton;

use std::path::Path;

use anyhow::{Result, bail};

use crate::samples::Metrics;
use crate::size::Size;

/// Every limit, by name.
pub(crate) const NAMES: [&str; 5] = ["skeleton", "fdatasync", "checksums", "page-cache", "device"];

/// Measures a limit. Records carry `len` bytes.
pub(crate) fn measure(name: &str, dir: &Path, len: usize, size: Size) -> Result<Metrics> {
    std::fs::create_dir_all(dir)?;
    match name {
        "skeleton" => skeleton::measure(dir, len),
        "fdatasync" => disk::fdatasync(dir, size),
        "checksums" => checksums::measure(dir, len),
        "page-cache" => disk::page_cache(dir, size),
        "device" => disk::device(dir),
        _ => bail!("no limit is called {name}"),
    }
}
