//! The end of the log: waiting there, claiming a place, and when it is synced.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{
    Access, Disk, DiskFile, DiskLock, FileDisk, Founding, Level, Mapping, Options,
    PINNED_SEGMENTS_MAX, SyncMode, Wal, WalError, found, found_on,
};

use crate::support::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn open_with(dir: &Path, options: Options) -> Arc<Wal> {
    Wal::open(dir, options).unwrap().0
}

#[test]
fn a_blocking_and_an_async_cursor_get_every_record_once_and_in_order() {
    const COUNT: u64 = 3_000;
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let readers: Vec<_> = [Level::Flushed, Level::Appended]
        .into_iter()
        .flat_map(|level| [(level, true), (level, false)])
        .map(|(level, blocks)| {
            let mut cursor = wal.cursor(Lsn::ZERO, level).unwrap();
            std::thread::spawn(move || {
                let mut found = Vec::new();
                let runtime = runtime();
                while found.len() < COUNT as usize {
                    let record = if blocks {
                        cursor.blocking_record().unwrap()
                    } else {
                        runtime.block_on(cursor.record()).unwrap()
                    };
                    if record.header.kind == RecordKind::Data {
                        found.push(record.payload.to_vec());
                    }
                }
                (found, cursor)
            })
        })
        .collect();
    for number in 0..COUNT {
        append(&wal, &payload(number));
        if number % 500 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    wal.flush().unwrap();
    let mut cursors = Vec::new();
    for reader in readers {
        let (found, cursor) = reader.join().unwrap();
        assert!(found == payloads(0..COUNT));
        cursors.push(cursor);
    }
    // At the end they wait, until the log is closed.
    let mut waiting = cursors.pop().unwrap();
    let nothing = runtime()
        .block_on(async { tokio::time::timeout(Duration::from_millis(50), waiting.wait()).await });
    assert!(nothing.is_err(), "there is nothing to wait for");
    let waits: Vec<_> = cursors
        .into_iter()
        .map(|mut cursor| std::thread::spawn(move || cursor.blocking_wait()))
        .collect();
    wal.shutdown().unwrap();
    for wait in waits {
        assert!(matches!(wait.join().unwrap(), Err(WalError::Closed)));
    }
}

#[test]
fn a_cursor_that_waits_is_told_when_the_log_is_poisoned() {
    let disk = SimDisk::new(1);
    let dir = Path::new("/log");
    found_on(&disk, dir, &founding("a")).unwrap();
    let wal = open_with(dir, Options { disk: Arc::new(disk.clone()), ..Options::default() });
    begin(&wal, 1);
    wal.flush().unwrap();
    let waits: Vec<_> = [Level::Flushed, Level::Appended]
        .into_iter()
        .map(|level| {
            let mut cursor = wal.cursor(Lsn::ZERO, level).unwrap();
            std::thread::spawn(move || {
                loop {
                    if let Err(error) = cursor.blocking_record() {
                        return error;
                    }
                }
            })
        })
        .collect();
    disk.fail_syncs(u32::MAX);
    append(&wal, b"lost");
    for wait in waits {
        let error = wait.join().unwrap();
        assert!(matches!(error, WalError::Poisoned(_)), "{error}");
    }
}

/// The files of a folder that this process has mapped.
fn mapped(dir: &Path) -> BTreeSet<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let of_log = maps.lines().filter(|line| line.contains(dir.to_str().unwrap()));
    of_log.map(|line| line.split_whitespace().nth(5).unwrap().to_owned()).collect()
}

#[test]
fn held_bytes_pin_so_many_mappings_and_no_more() {
    // The newest three, the ready one, and one that is being replaced.
    const OWN: usize = 5;
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    let mut held = Vec::new();
    for number in 0..8_000 {
        append(&wal, &payload(number));
        if number % 50 == 0 {
            wal.flush().unwrap();
            while let Some(record) = cursor.next_record().unwrap() {
                if record.header.kind == RecordKind::Data {
                    held.push(record.payload);
                }
            }
            let most = PINNED_SEGMENTS_MAX + OWN;
            assert!(mapped(&dir).len() <= most, "{:?}", mapped(&dir));
        }
    }
    assert!(wal.appended().get() > 20 * SegmentSize::MIN.bytes());
    assert!(mapped(&dir).len() > PINNED_SEGMENTS_MAX, "some are pinned");
    for (number, bytes) in (0..).zip(&held) {
        assert_eq!(*bytes, payload(number), "copied or not");
    }
    // What was read ahead holds one of them.
    drop((held, cursor));
    assert!(mapped(&dir).len() <= OWN, "{:?}", mapped(&dir));
}

#[test]
fn a_claim_is_one_record_and_a_dropped_one_is_none() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let mut expected = Vec::new();
    for number in 0..1_000 {
        let bytes = payload(number);
        let mut claim = wal.reserve(RecordKind::Data, 7, bytes.len()).unwrap();
        let lsn = claim.lsn();
        for piece in bytes.chunks(19) {
            claim.fill(piece).unwrap();
        }
        let before = wal.appended();
        assert!(before <= lsn, "nothing of it is published yet");
        match number % 5 {
            0 => drop(claim),
            1 => {
                assert_eq!(claim.remaining(), 0);
                assert!(matches!(claim.fill(b"x"), Err(WalError::Overfilled { len: 1, left: 0 })));
                assert_eq!(claim.commit().unwrap().lsn, lsn);
                expected.push(bytes);
            }
            2 => {
                drop(claim);
                let claim = wal.reserve(RecordKind::Data, 7, 40).unwrap();
                let short = claim.commit();
                assert!(matches!(short, Err(WalError::Unfilled { len: 40, filled: 0 })));
            }
            _ => {
                claim.commit().unwrap();
                expected.push(bytes);
            }
        }
        assert!(wal.appended() > lsn, "the place is published either way");
    }
    let most = SegmentSize::MIN.max_payload() as usize;
    let reserve = || wal.reserve(RecordKind::Data, 0, most + 1).map(drop);
    assert!(matches!(reserve(), Err(WalError::TooLarge { .. })));
    wal.flush().unwrap();
    assert_eq!(contents(&wal), expected);
    let (digest, end) = (wal.digest(), wal.appended());
    // A replica takes the given-up places as well.
    let (_other, replica_dir) = founded("b");
    let replica = opened(&replica_dir);
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    while let Some(chunk) = cursor.next_chunk(5_000).unwrap() {
        replica.receive(chunk.segment, chunk.from, &chunk.bytes).unwrap();
    }
    assert_eq!(replica.digest(), digest);
    drop((cursor, wal));
    let (wal, report) = open(&dir).unwrap();
    assert_eq!((wal.digest(), report.end, contents(&wal)), (digest, end, expected));
}

#[test]
fn what_comes_behind_a_claim_waits_for_it_also_when_its_thread_panics() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let before = wal.appended();
    let mut claim = wal.reserve(RecordKind::Data, 0, 100).unwrap();
    claim.fill(&[1; 60]).unwrap();
    let behind = append(&wal, b"behind");
    assert_eq!(wal.appended(), before);
    assert!(behind.lsn > claim.lsn());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _claim = claim;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(wal.appended(), behind.end);
    wal.flush().unwrap();
    assert_eq!(contents(&wal), [b"behind".to_vec()]);
    let aborted = towline_wal::read_log(&dir).unwrap().flatten().nth(1).unwrap();
    assert_eq!((aborted.header.kind, aborted.payload), (RecordKind::Abort, vec![0; 100].into()));
}

#[test]
fn an_open_claim_that_loses_power_is_a_torn_tail_like_any_other() {
    let mut torn = 0;
    for seed in 0..60 {
        let (disk, dir) = (SimDisk::new(seed), Path::new("/log"));
        found_on(&disk, dir, &founding("a")).unwrap();
        let options =
            || Options { disk: Arc::new(disk.clone()), threads: false, ..Options::default() };
        let wal = open_with(dir, options());
        begin(&wal, 1);
        for number in 0..50 {
            append(&wal, &payload(number));
        }
        wal.flush().unwrap();
        let mut claim = wal.reserve(RecordKind::Data, 0, 3_000).unwrap();
        claim.fill(&[7; 2_000]).unwrap();
        append(&wal, b"behind it");
        disk.power_cut();
        std::mem::forget(claim);
        let (wal, report) = Wal::open(dir, options()).unwrap();
        torn += u64::from(report.torn.is_some());
        assert_eq!(contents(&wal), payloads(0..50), "seed {seed}");
        assert_eq!(report.torn_bytes > 0, report.torn.is_some());
    }
    assert!(torn > 20, "only {torn} of 60 were torn");
}

/// The real disk, that holds syncs of files up on demand, and fails to read back.
#[derive(Clone, Debug, Default)]
struct SlowDisk {
    held: Arc<AtomicBool>,
    fails_to_read_back: Arc<AtomicBool>,
}

#[derive(Debug)]
struct SlowFile(Arc<dyn DiskFile>, SlowDisk);

impl DiskFile for SlowFile {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.0.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.1.wait();
        self.0.sync()
    }

    fn sync_range(&self, mapping: &Mapping, range: Range<usize>) -> std::io::Result<()> {
        self.1.wait();
        self.0.sync_range(mapping, range)
    }

    fn read_back(&self, mapping: &Mapping, range: Range<usize>) -> std::io::Result<()> {
        if self.1.fails_to_read_back.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("the disk does not answer"));
        }
        self.0.read_back(mapping, range)
    }

    fn forget_cached(&self) {
        self.0.forget_cached();
    }

    fn map(&self, len: usize) -> std::io::Result<Arc<Mapping>> {
        self.0.map(len)
    }
}

impl SlowDisk {
    fn wait(&self) {
        while self.held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Disk for SlowDisk {
    fn create(&self, path: &Path, header: &[u8], len: u64) -> std::io::Result<()> {
        FileDisk.create(path, header, len)
    }

    fn write(&self, path: &Path, content: &[u8]) -> std::io::Result<()> {
        FileDisk.write(path, content)
    }

    fn read(&self, path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
        FileDisk.read(path, most)
    }

    fn open(&self, path: &Path, access: Access) -> std::io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(FileDisk.open(path, access)?, self.clone())))
    }

    fn list(&self, dir: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
        FileDisk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        FileDisk.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        FileDisk.hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        FileDisk.remove(path)
    }

    fn create_dir_all(&self, dir: &Path) -> std::io::Result<()> {
        FileDisk.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        FileDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> std::io::Result<Box<dyn DiskLock>> {
        FileDisk.lock(path)
    }
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn slow(mode: SyncMode) -> (tempfile::TempDir, SlowDisk, Arc<Wal>) {
    let (folder, dir) = founded("a");
    let disk = SlowDisk::default();
    let options = Options { disk: Arc::new(disk.clone()), sync_mode: mode, ..Options::default() };
    let wal = open_with(&dir, options);
    begin(&wal, 1);
    wal.flush().unwrap();
    (folder, disk, wal)
}

#[test]
fn a_sync_that_stalls_is_seen_while_it_does() {
    let (_folder, disk, wal) = slow(SyncMode::Eager);
    until("the end of the last sync", || wal.sync_in_flight_for().is_none());
    disk.held.store(true, Ordering::SeqCst);
    append(&wal, b"waits");
    until("a stall", || wal.sync_in_flight_for().is_some_and(|it| it.as_millis() > 30));
    append(&wal, b"goes on");
    disk.held.store(false, Ordering::SeqCst);
    wal.flush().unwrap();
    until("the end", || wal.sync_in_flight_for().is_none());
}

#[test]
fn each_mode_syncs_when_it_says() {
    let (_folder, _, wal) = slow(SyncMode::OnFlush);
    let end = append(&wal, b"by nobody").end;
    std::thread::sleep(Duration::from_millis(100));
    assert!(wal.flushed() < end && wal.flush().unwrap() == end);

    let (_folder, _, wal) = slow(SyncMode::Interval(Duration::from_millis(300)));
    let started = Instant::now();
    let end = append(&wal, b"by the clock").end;
    until("the interval's sync", || wal.flushed() == end);
    assert!(started.elapsed() >= Duration::from_millis(290), "{:?}", started.elapsed());

    let (_folder, _, wal) = slow(SyncMode::Bytes(40_000));
    let before = wal.flushed();
    let mut end = before;
    let until_here = end.advance(39_000);
    while end < until_here {
        end = append(&wal, &[1; 968]).end;
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(wal.flushed(), before, "not enough has come");
    append(&wal, &[1; 968]);
    let end = append(&wal, &[1; 968]).end;
    until("the sync by bytes", || wal.flushed() >= until_here);
    wal.wait_flushed(end).unwrap();

    let (_folder, _, wal) = slow(SyncMode::Eager);
    let end = append(&wal, b"at once").end;
    until("the sync at once", || wal.flushed() == end);
}

#[test]
fn what_can_not_be_read_back_after_a_stream_ends_the_log() {
    let (folder, disk) = (folder(), SlowDisk::default());
    let dir = folder.path().join("log");
    let segment_size = SegmentSize::new(4 << 20).unwrap();
    found(&dir, &Founding { segment_size, ..founding("a") }).unwrap();
    let sync_mode = SyncMode::OnFlush;
    let options = Options { disk: Arc::new(disk.clone()), sync_mode, ..Options::default() };
    let wal = open_with(&dir, options);
    begin(&wal, 1);
    while wal.appended().get() < 22 << 20 {
        append(&wal, &[7; 60_000]);
    }
    wal.flush().unwrap();
    disk.fails_to_read_back.store(true, Ordering::SeqCst);
    let mut flushed = wal.flushed();
    until("the end", || {
        let appended = wal.append(RecordKind::Data, 0, b"a little").map(|it| it.end);
        let told = appended.and_then(|end| wal.wait_flushed(end).map(|()| end));
        flushed = *told.as_ref().unwrap_or(&flushed);
        matches!(told, Err(WalError::Poisoned(_)))
    });
    assert!(wal.poisoned().unwrap().contains("the disk does not answer"));
    assert!(wal.flushed() >= flushed, "what was told stays so");
    assert!(matches!(wal.flush(), Err(WalError::Poisoned(_))) || wal.flushed() == wal.appended());
    drop(wal);
    assert!(opened(&dir).flushed() >= flushed);
}
