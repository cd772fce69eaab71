//! A scrub of files that are gone, or whose log goes on under its hands.

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use towline_protocol::lsn::SegmentSize;
use towline_wal::{SegmentCheck, Wal, WalError, found_on};

use crate::image::{dir, options};
use crate::meddled::MeddledDisk;
use crate::support::*;

const SIZE: u64 = SegmentSize::MIN.bytes();

/// A log of which opening reads the newest segment only.
fn closed() -> (TempDir, PathBuf) {
    let (folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    append_all(&wal, 0..1_500);
    wal.shutdown().unwrap();
    (folder, dir)
}

/// What a scrub says after something has happened under the hands of the open log.
fn scrubbed(dir: &Path, happens: &dyn Fn()) -> Vec<SegmentCheck> {
    let wal = opened(dir);
    happens();
    wal.scrub(None).map(Result::unwrap).collect()
}

#[test]
fn a_segment_of_which_nothing_can_be_read_is_damaged_as_a_whole() {
    let (_folder, dir) = closed();
    let whole = scrubbed(&dir, &|| {});
    assert!(whole.len() > 3 && whole.iter().all(|check| check.damaged.is_empty()));
    let files = files(&dir);
    let path = segment(&dir, SIZE);
    let page = files[&segment(&dir, 0)][..4_096].to_vec();
    let ways: [(&dyn Fn(), &str); 3] = [
        (&|| fs::remove_file(&path).unwrap(), "it is missing"),
        (&|| flip(&path, 30, 1), "its header: crc"),
        (
            &|| {
                let rest = &files[&path][4_096..];
                fs::write(&path, [&page[..], rest].concat()).unwrap();
            },
            "its header says that it is segment 0",
        ),
    ];
    for (way, says) in ways {
        let checks = scrubbed(&dir, way);
        assert_eq!((&checks[0], &checks[2..]), (&whole[0], &whole[2..]), "the others are whole");
        assert_eq!((checks[1].bytes, checks[1].records, checks[1].damaged.len()), (0, 0, 1));
        let damage = &checks[1].damaged[0];
        assert_eq!((damage.from.get(), damage.to.get(), &damage.path), (SIZE, 2 * SIZE, &path));
        assert!(damage.what.contains(says), "{}", damage.what);
        restore(&dir, &files);
    }
    // Of one that was cut short, what is left is whole.
    let checks = scrubbed(&dir, &|| fs::write(&path, &files[&path][..30_000]).unwrap());
    assert!(checks[1].records > 50 && checks[1].bytes < 30_000 - 4_096, "{:?}", checks[1]);
    let damage = &checks[1].damaged;
    assert_eq!(damage.last().unwrap().to.get(), 2 * SIZE);
    assert!((SIZE + 29_000..SIZE + 30_000).contains(&damage[0].from.get()));
}

#[test]
fn there_is_nothing_to_scrub_of_a_log_without_a_complete_segment() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    assert_eq!(wal.scrub(None).count(), 0, "an empty one");
    begin(&wal, 1);
    append(&wal, b"one");
    wal.flush().unwrap();
    assert_eq!(wal.scrub(None).count(), 0, "what is still written");
}

#[test]
fn what_is_not_flushed_yet_is_not_scrubbed() {
    let disk = towline_wal::simulated::SimDisk::new(1);
    found_on(&disk, dir(), &founding("a")).unwrap();
    let wal = Wal::open(dir(), options(&disk)).unwrap().0;
    begin(&wal, 1);
    append_all(&wal, 0..500);
    assert!(wal.appended().get() > SIZE, "a whole segment waits for a sync");
    assert_eq!(wal.scrub(None).count(), 0);
    wal.flush().unwrap();
    assert_eq!(wal.scrub(None).count(), 1);
}

#[test]
fn a_scrub_ends_with_its_log() {
    let (_folder, dir) = closed();
    let wal = opened(&dir);
    let mut scrub = wal.scrub(None);
    assert!(scrub.next().unwrap().is_ok());
    // While it waits for what its pace allows: that would take hours.
    let mut slow = wal.scrub(NonZeroU64::new(1));
    let waiting = std::thread::spawn(move || slow.next());
    std::thread::sleep(Duration::from_millis(100));
    assert!(!waiting.is_finished());
    wal.shutdown().unwrap();
    assert!(matches!(waiting.join().unwrap(), Some(Err(WalError::Closed))));
    assert!(matches!(scrub.next(), Some(Err(WalError::Closed))));
}

/// A trim removes the file that is being read: that is no damage, and the scrub goes on behind.
#[test]
fn a_scrub_that_is_overtaken_by_a_trim_goes_on_where_the_log_begins() {
    let mut overtaken = 0;
    for calls in 0..12 {
        let sim = towline_wal::simulated::SimDisk::new(1);
        found_on(&sim, dir(), &founding("a")).unwrap();
        let disk = MeddledDisk::new(&sim);
        let wal = Wal::open(dir(), disk.options()).unwrap().0;
        begin(&wal, 1);
        append_all(&wal, 0..2_500);
        let flushed = wal.flush().unwrap();
        let bases: Vec<_> = wal.scrub(None).map(|check| check.unwrap().base).collect();
        let trimmed = Arc::new(Mutex::new(None));
        let (log, told) = (Arc::clone(&wal), Arc::clone(&trimmed));
        disk.after(calls, move || {
            let half = log.oldest().base.advance(flushed.get() / SIZE / 2 * SIZE);
            *told.lock().unwrap() = Some(log.trim(half).unwrap().oldest.base);
            Ok(())
        });
        let checks: Vec<_> = wal.scrub(None).map(Result::unwrap).collect();
        let oldest = trimmed.lock().unwrap().take().expect("a scrub makes more calls");
        assert!(checks.iter().all(|check| check.damaged.is_empty()), "{checks:?}");
        let found: Vec<_> = checks.iter().map(|check| check.base).collect();
        let kept: Vec<_> = bases.iter().copied().filter(|base| *base >= oldest).collect();
        assert!(found.ends_with(&kept), "{found:?}: {kept:?}");
        overtaken += u32::from(found.len() < bases.len());
    }
    assert!(overtaken > 5, "{overtaken}");
}
