//! What the system counts of a process, a thread and a device.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// What a sector is to the kernel's counters, whatever it is to the device.
const SECTOR_LEN: u64 = 512;

/// The processor time of this process so far.
pub(crate) fn cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(micros.try_into()?))
}

/// The page faults of this thread so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) minor: i64,
    pub(crate) major: i64,
}

impl Faults {
    pub(crate) fn of_thread() -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
        Ok(Self { minor: usage.minor_page_faults(), major: usage.major_page_faults() })
    }
}

/// The memory of this process that no file is behind, in bytes.
pub(crate) fn anonymous_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no RssAnon")?;
    Ok(kib.parse::<u64>()? << 10)
}

/// How many bytes the device below a folder has written so far, whoever wanted them.
pub(crate) fn device_written(dir: &Path) -> Result<u64> {
    let (major, minor) = device(dir)?;
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let sectors = stat.split_whitespace().nth(6).with_context(|| format!("{path}: too short"))?;
    Ok(sectors.parse::<u64>()? * SECTOR_LEN)
}

/// The number of the device below a folder.
pub(crate) fn device(dir: &Path) -> Result<(u64, u64)> {
    let device = std::fs::metadata(dir)?.dev();
    // As the C library's major() and minor() take it apart.
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = device & 0xff | (device >> 12) & !0xff;
    Ok((major, minor))
}
