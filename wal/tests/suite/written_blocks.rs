//! What is durable rests on blocks that count already: docs/decisions/0020.

use std::fs;
use std::path::Path;
use std::process::Command;

use towline_protocol::lsn::SegmentSize;
use towline_wal::{Options, SyncMode, Wal, found};

use crate::support::*;

/// How many ranges of a file its file system takes for unwritten; or why that is not known.
fn unwritten(file: &Path) -> Result<usize, String> {
    let shown = Command::new("filefrag").arg("-v").arg(file).output();
    let shown = shown.map_err(|error| format!("filefrag (of e2fsprogs): {error}"))?;
    let text = String::from_utf8_lossy(&shown.stdout);
    if shown.status.success() && text.contains("extent") {
        return Ok(text.lines().filter(|line| line.contains("unwritten")).count());
    }
    Err(format!("{text}{}", String::from_utf8_lossy(&shown.stderr)))
}

#[test]
fn no_block_of_a_ready_segment_is_still_to_be_noted_as_written() {
    // On a real disk: the other tests lie in memory, which has no blocks.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = folder.path().join("log");
    found(&dir, &founding("a")).unwrap();
    // Of a file that is allocated and no more, it has to be seen.
    let bare = dir.join("bare");
    let file = fs::File::create(&bare).unwrap();
    let allocated = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 1 << 16);
    let seen = allocated.map_err(|error| error.to_string()).and_then(|()| unwritten(&bare));
    fs::remove_file(&bare).unwrap();
    match seen {
        Ok(1..) => {}
        seen => return eprintln!("SKIPPED: unwritten blocks can not be seen here: {seen:?}"),
    }
    let options = Options { sync_mode: SyncMode::OnFlush, ..Options::default() };
    let (wal, _) = Wal::open(&dir, options).unwrap();
    begin(&wal, 1);
    // In bulk, with a sync now and then: none of it may change how segments are made ready.
    let end = wal.appended().advance(12 * SegmentSize::MIN.bytes());
    while wal.appended() < end {
        append(&wal, &[7; 9_000]);
        if wal.appended().distance_from(wal.flushed()) > 3 * SegmentSize::MIN.bytes() {
            wal.flush().unwrap();
        }
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "wal") {
                assert_eq!(unwritten(&path), Ok(0), "{}", path.display());
            }
        }
    }
}
