//! What was measured on.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;

use crate::meter::device;
use crate::size::Size;

/// What is kept free, in bytes.
const SPARE: u64 = 2 << 30;
/// A load from which on somebody else is at it.
const BUSY: f64 = 1.0;

/// The machine, the file system of a folder, and the device below it: a line each.
pub(crate) fn describe(dir: &Path) -> Result<String> {
    let cpus = read("/proc/cpuinfo")?;
    let model = field(&cpus, "model name").unwrap_or("unknown");
    let cores = std::thread::available_parallelism()?;
    let memory = read("/proc/meminfo")?;
    let memory = field(&memory, "MemTotal").unwrap_or("unknown");
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let load = read("/proc/loadavg")?;
    let load: f64 = load.split_whitespace().next().unwrap_or("0").parse()?;
    let busy = if load > BUSY { ": it is busy, and the figures mean little" } else { "" };
    let (major, minor) = device(dir)?;
    let path = dir.display();
    ensure!(major > 0, "{path} lies on no device of its own: name a folder on a disk by --dir");
    let (file_system, options) = mount(major, minor)?;
    let block = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))?;
    let name = block.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    let of_block = |what: &str| read(block.join(what).to_str().unwrap_or_default());
    let rotates = of_block("queue/rotational").is_ok_and(|it| it.trim() == "1");
    let cache = of_block("queue/write_cache").unwrap_or_else(|_| "write cache unknown".to_owned());
    Ok(format!(
        "machine: {model}, {cores} cores, {memory} of memory, Linux {}\n\
         disk: {file_system} ({options}) on {name}, {}, {}\n\
         load when it began: {load}{busy}",
        kernel.trim(),
        if rotates { "rotating" } else { "not rotating" },
        cache.trim(),
    ))
}

/// Fails unless a folder has room for what a run writes at a time.
pub(crate) fn check_room(dir: &Path, size: Size) -> Result<()> {
    let free = statvfs(dir)?;
    let free = free.fragment_size() * free.blocks_available();
    let needed = size.opened().iter().sum::<u64>() + 2 * size.sustained() + SPARE;
    let path = dir.display();
    ensure!(free >= needed, "{path} has {} GiB free of {} needed", free >> 30, needed >> 30);
    Ok(())
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.to_owned())
}

/// What stands behind `name:`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// The kind of the file system on a device, and how it is mounted.
fn mount(major: u64, minor: u64) -> Result<(String, String)> {
    let mounts = read("/proc/self/mountinfo")?;
    let number = format!("{major}:{minor}");
    let line = mounts.lines().find(|line| line.split_whitespace().nth(2) == Some(number.as_str()));
    let (_, behind) = line.and_then(|line| line.split_once(" - ")).context("no such mount")?;
    let mut words = behind.split_whitespace();
    let kind = words.next().unwrap_or("unknown").to_owned();
    Ok((kind, words.nth(1).unwrap_or_default().to_owned()))
}
