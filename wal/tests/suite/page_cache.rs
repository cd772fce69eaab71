//! What the page cache has of a log, and what that costs. On a real disk: the other tests lie in
//! memory, which has no pages to write.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_wal::{Founding, Options, SyncMode, Wal, found};

use crate::support::*;

/// A new log with segments of so many MiB that syncs when it is asked to.
fn log_on_disk(mib: u64) -> (TempDir, Arc<Wal>) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = folder.path().join("log");
    let segment_size = SegmentSize::new(mib << 20).unwrap();
    found(&dir, &Founding { segment_size, ..founding("a") }).unwrap();
    let options = Options { sync_mode: SyncMode::OnFlush, ..Options::default() };
    let (wal, _) = Wal::open(&dir, options).unwrap();
    begin(&wal, 1);
    (folder, wal)
}

/// Appends so many MiB and flushes them at once.
fn stream(wal: &Wal, mib: u64) {
    let end = wal.appended().advance(mib << 20);
    while wal.appended() < end {
        append(wal, &[7; 60_000]);
    }
    wal.flush().unwrap();
}

/// How many bytes this thread has made dirty, by the kernel's count.
fn dirtied() -> u64 {
    let counts = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = counts.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    line.parse().unwrap()
}

/// How many bytes ten commits of a few bytes make dirty.
fn dirtied_by_commits(wal: &Wal) -> u64 {
    let before = dirtied();
    for _ in 0..10 {
        append(wal, b"few");
        wal.flush().unwrap();
    }
    dirtied() - before
}

fn wait_until_pages_are_single(wal: &Wal) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while dirtied_by_commits(wal) > 10 * 8_192 {
        assert!(Instant::now() < deadline, "every commit still writes neighbouring pages");
    }
}

#[test]
fn a_stream_that_comes_to_rest_soon_writes_single_pages() {
    let (_folder, wal) = log_on_disk(4);
    wait_until_pages_are_single(&wal);
    stream(&wal, 22);
    let at_first = dirtied_by_commits(&wal);
    if at_first < 10 * 65_536 {
        return eprintln!("SKIPPED: this file system has no large folios ({at_first} bytes)");
    }
    wait_until_pages_are_single(&wal);
    let tail = wal.control().segment_size.base_of(wal.appended());
    assert_eq!(tail, Lsn::new(20 << 20), "a segment that was made for the stream");
}

/// How much of a file the page cache holds; or why that is not known.
fn cached(file: &Path) -> Result<u64, String> {
    let shown = Command::new("fincore").args(["-nbo", "RES"]).arg(file).output();
    let shown = shown.map_err(|error| format!("fincore (of util-linux): {error}"))?;
    let text = String::from_utf8_lossy(&shown.stdout);
    text.trim().parse().map_err(|_| format!("{text}{}", String::from_utf8_lossy(&shown.stderr)))
}

#[test]
fn a_long_log_lies_in_the_page_cache_no_further_than_its_newest_segments() {
    const KEPT: usize = 26;
    let (folder, wal) = log_on_disk(1);
    stream(&wal, 40);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        stream(&wal, 1);
        let mut segments: Vec<PathBuf> = fs::read_dir(folder.path().join("log"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|it| it == "wal"))
            .collect();
        segments.sort();
        let old = &segments[..segments.len() - KEPT];
        match old.iter().map(|path| cached(path)).sum::<Result<u64, _>>() {
            Ok(0) => return,
            Ok(cached) => assert!(Instant::now() < deadline, "{cached} bytes of old ones"),
            Err(why) => return eprintln!("SKIPPED: {why}"),
        }
    }
}
