//! Who waits for a flush, and who gives it: threads, tasks, and the log's own thread.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{Options, SyncMode, Wal, WalError, found_on};

use crate::support::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

fn open_with(dir: &Path, options: Options) -> Arc<Wal> {
    let (wal, _) = Wal::open(dir, options).unwrap();
    begin(&wal, 1);
    wal
}

fn on_simulated(disk: &SimDisk, options: Options) -> Arc<Wal> {
    let dir = Path::new("/log");
    found_on(disk, dir, &founding("a")).unwrap();
    open_with(dir, Options { disk: Arc::new(disk.clone()), ..options })
}

#[test]
fn threads_and_tasks_are_all_released_in_every_mode() {
    const EACH: u64 = 40;
    let modes = [
        SyncMode::Eager,
        SyncMode::OnFlush,
        SyncMode::Interval(Duration::from_secs(3600)),
        SyncMode::Bytes(u64::MAX),
    ];
    for sync_mode in modes {
        let (_folder, dir) = founded("a");
        let wal = open_with(&dir, Options { sync_mode, ..Options::default() });
        let runtime = runtime();
        let tasks: Vec<_> = (0..50)
            .map(|number| {
                let wal = Arc::clone(&wal);
                runtime.spawn(async move {
                    for _ in 0..EACH {
                        let put = append(&wal, &payload(number));
                        wal.until_flushed(put.end).await.unwrap();
                        assert!(wal.flushed() >= put.end);
                    }
                })
            })
            .collect();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let wal = &wal;
                scope.spawn(move || {
                    for _ in 0..EACH {
                        let put = append(wal, &payload(number));
                        wal.wait_flushed(put.end).unwrap();
                        assert!(wal.flushed() >= put.end);
                    }
                });
            }
        });
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        assert_eq!(contents(&wal).len(), 58 * EACH as usize, "{sync_mode:?}");
    }
}

#[test]
fn what_nobody_waits_for_is_flushed_soon_though_callers_used_to_sync() {
    let (_folder, dir) = founded("a");
    let wal = open_with(&dir, Options::default());
    for number in 0..20 {
        let put = append(&wal, &payload(number));
        wal.wait_flushed(put.end).unwrap();
    }
    for number in 0..20 {
        let put = append(&wal, &payload(number));
        let mut flushed = wal.watch_flushed();
        let waited = runtime().block_on(async {
            let wait = flushed.wait_for(|flushed| *flushed >= put.end);
            tokio::time::timeout(Duration::from_secs(5), wait).await.map(drop)
        });
        assert!(waited.is_ok(), "record {number} was not flushed");
    }
}

#[test]
fn a_wait_that_is_dropped_is_forgotten() {
    let (_folder, dir) = founded("a");
    let options = Options { sync_mode: SyncMode::OnFlush, ..Options::default() };
    let wal = open_with(&dir, options);
    let put = append(&wal, b"x");
    for _ in 0..1_000 {
        let mut wait = pin!(wal.until_flushed(put.end));
        let _ = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    runtime().block_on(wal.until_flushed(put.end)).unwrap();
    let behind = put.end.advance(4_096);
    let nobody = runtime().block_on(wal.until_flushed(behind));
    assert!(matches!(nobody, Err(WalError::NoBoundary(at)) if at == behind));
}

#[test]
fn waits_end_when_the_log_is_poisoned_and_when_it_is_closed() {
    let disk = SimDisk::new(1);
    let options = || Options { sync_mode: SyncMode::OnFlush, ..Options::default() };
    let wal = on_simulated(&disk, options());
    wal.flush().unwrap();
    // Nothing behind a claim is published, so nothing there is flushed.
    let claim = wal.reserve(RecordKind::Data, 0, 10).unwrap();
    let put = append(&wal, b"behind");
    let runtime = runtime();
    let waits: Vec<_> = (0..5)
        .map(|_| {
            let wal = Arc::clone(&wal);
            runtime.spawn(async move { wal.until_flushed(put.end).await })
        })
        .collect();
    let threads: Vec<_> = (0..5)
        .map(|_| {
            let wal = Arc::clone(&wal);
            std::thread::spawn(move || wal.wait_flushed(put.end))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(50));
    assert!(waits.iter().all(|wait| !wait.is_finished()));
    disk.fail_syncs(u32::MAX);
    drop(claim);
    for wait in waits {
        let error = runtime.block_on(wait).unwrap().unwrap_err();
        assert!(matches!(error, WalError::Poisoned(_)), "{error}");
    }
    for thread in threads {
        let error = thread.join().unwrap().unwrap_err();
        assert!(matches!(error, WalError::Poisoned(_)), "{error}");
    }
    let poisoned = wal.append(RecordKind::Data, 0, b"more").unwrap_err();
    assert!(matches!(poisoned, WalError::Poisoned(_)), "{poisoned}");

    let wal = on_simulated(&SimDisk::new(2), options());
    let claim = wal.reserve(RecordKind::Data, 0, 10).unwrap();
    let put = append(&wal, b"behind");
    let wait = {
        let wal = Arc::clone(&wal);
        runtime.spawn(async move { wal.until_flushed(put.end).await })
    };
    std::thread::sleep(Duration::from_millis(20));
    let closer = {
        let wal = Arc::clone(&wal);
        // It flushes first, and for that waits for the claim.
        std::thread::spawn(move || wal.shutdown())
    };
    std::thread::sleep(Duration::from_millis(20));
    drop(claim);
    closer.join().unwrap().unwrap();
    assert!(matches!(runtime.block_on(wait).unwrap(), Ok(()) | Err(WalError::Closed)));
    let late = runtime.block_on(wal.until_flushed(put.end.advance(16)));
    assert!(matches!(late, Err(WalError::Closed)), "{late:?}");
}

#[test]
fn without_threads_whoever_waits_syncs() {
    let wal = on_simulated(&SimDisk::new(3), Options { threads: false, ..Options::default() });
    let put = append(&wal, b"x");
    let mut wait = pin!(wal.until_flushed(put.end));
    let polled = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_ready() && wal.flushed() == put.end);
}

#[test]
fn a_watch_is_told_of_every_growth_and_of_the_end() {
    let (_folder, dir) = founded("a");
    let wal = open_with(&dir, Options::default());
    let mut watch = wal.watch_appended();
    let last = Lsn::new(wal.appended().get() + 500 * 48);
    let watcher = std::thread::spawn(move || {
        runtime().block_on(async move {
            while watch.borrow_and_update() < last {
                watch.changed().await.unwrap();
            }
            watch.changed().await
        })
    });
    for number in 0..500 {
        wal.append(RecordKind::Data, 0, &[7; 10]).unwrap();
        if number % 50 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(wal.appended(), last);
    std::thread::sleep(Duration::from_millis(20));
    drop(wal);
    let _ = watcher.join().unwrap();
}

#[test]
fn more_writers_than_cores_behind_a_claim_wait_and_go_on() {
    let (_folder, dir) = founded("a");
    let wal = open_with(&dir, Options::default());
    let before = wal.appended();
    let claim = wal.reserve(RecordKind::Data, 0, 10).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..3_000 {
                    append(&wal, &payload(number));
                }
            });
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(wal.appended(), before);
        drop(claim);
    });
    wal.flush().unwrap();
    assert_eq!(contents(&wal).len(), 12_000);
}

/// How many bytes of a mapped file the kernel takes for changed.
fn changed_bytes(file: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let of_file = maps.lines().skip_while(|line| !line.ends_with(file.to_str().unwrap()));
    let dirty = of_file.skip(1).take(30).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        ["Private_Dirty", "Shared_Dirty"]
            .contains(&name)
            .then(|| value.trim().split(' ').next()?.parse::<u64>().ok())?
    });
    dirty.sum::<u64>() << 10
}

#[test]
fn a_log_that_is_filled_fast_goes_on_in_a_segment_made_writable_that_no_flush_writes() {
    let (_folder, dir) = founded("a");
    let wal = open_with(&dir, Options::default());
    let size = SegmentSize::MIN;
    for number in 0..4_000 {
        append(&wal, &payload(number));
    }
    let next = dir.join(format!("{:020}.wal", size.next_base(wal.appended()).get()));
    let until = Instant::now() + Duration::from_secs(10);
    while changed_bytes(&next) < size.bytes() {
        assert!(Instant::now() < until, "{} bytes are writable", changed_bytes(&next));
        std::thread::sleep(Duration::from_millis(5));
    }
    append(&wal, b"more");
    wal.flush().unwrap();
    assert_eq!(changed_bytes(&next), size.bytes(), "a flush writes what it has to");
}
