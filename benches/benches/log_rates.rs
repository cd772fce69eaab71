//! How fast the log is next to what no log can be faster than, in rounds that take turns.
//!
//! ```text
//! cargo bench -p towline-benches --bench log_rates -- append|durable|tasks [ROUNDS] [LEN]
//! ```
//!
//! *append*: records per second, not synced, against the skeleton of an append: the header, both
//! checksums and the copy, into memory that was written before. *durable*: 256 B records,
//! each flushed before its writer goes on, against fdatasyncs per second of 4 KiB overwrites.
//! *tasks*: the same, waited for by tasks on two threads.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use rustix::time::{ClockId, clock_gettime};
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{Incarnation, LogId};
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{HeaderSeed, RecordHeader, RecordKind, stored_len};
use towline_wal::{SyncMode, Wal};

const SEGMENT_LEN: usize = 64 << 20;
/// Bytes of one append round: less than a segment, and at times one crosses a boundary.
const ROUND_LEN: u64 = 40 << 20;
/// The length of one durable round.
const ROUND: Duration = Duration::from_millis(700);
/// Between append rounds, so that the next segment is ready.
const PAUSE: Duration = Duration::from_millis(500);

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|it| it != "--bench");
    let what = arguments.next().unwrap_or_else(|| "append".to_owned());
    let rounds = arguments.next().map_or(7, |rounds| rounds.parse().unwrap());
    match what.as_str() {
        "append" => append(rounds, arguments.next().map(|len| len.parse().unwrap())),
        "durable" => durable(rounds),
        "tasks" => tasks(rounds),
        _ => panic!("say append, durable or tasks"),
    }
}

/// Processor time of this thread so far, in seconds.
fn own_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Memory as long as a segment, every page of it written.
fn written_segment() -> MmapMut {
    let mut map = MmapMut::map_anon(SEGMENT_LEN).unwrap();
    map.fill(1);
    map
}

/// Records per second, and per second of processor time.
fn skeleton(map: &mut MmapMut, payload: &[u8], count: u64) -> (f64, f64) {
    let epoch = Epoch::NONE.next(Incarnation(1));
    let seed = HeaderSeed::new(LogId(1), epoch, Lsn::ZERO, 7);
    let stored = stored_len(payload.len() as u32) as usize;
    let mut at = 4096;
    let (start, used) = (Instant::now(), own_cpu());
    for _ in 0..count {
        if at + stored > SEGMENT_LEN {
            at = 4096;
        }
        let lsn = Lsn::new(at as u64);
        let header = RecordHeader::new(RecordKind::Data, 0, lsn, Lsn::ZERO, payload);
        map[at + 32..at + 32 + payload.len()].copy_from_slice(payload);
        map[at..at + 32].copy_from_slice(&header.encode(seed));
        at += stored;
    }
    (count as f64 / start.elapsed().as_secs_f64(), count as f64 / (own_cpu() - used))
}

fn appends(wal: &Arc<Wal>, payload: &[u8], count: u64, writers: u64) -> (f64, f64) {
    wal.flush().unwrap();
    wal.trim(wal.flushed()).unwrap();
    std::thread::sleep(PAUSE);
    let go = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let own = || {
            while !go.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            for _ in 0..count / writers {
                wal.append(RecordKind::Data, 0, payload).unwrap();
            }
        };
        let others: Vec<_> = (1..writers).map(|_| scope.spawn(own)).collect();
        let (start, used) = (Instant::now(), own_cpu());
        go.store(true, Ordering::Release);
        own();
        let used = own_cpu() - used;
        for other in others {
            other.join().unwrap();
        }
        (count as f64 / start.elapsed().as_secs_f64(), (count / writers) as f64 / used)
    })
}

fn append(rounds: usize, only: Option<usize>) {
    let mut map = written_segment();
    for mode in [SyncMode::OnFlush, SyncMode::Eager] {
        let (_folder, wal) = support::log_with(mode);
        println!("{mode:?}: thousands per second, and of the skeleton");
        for len in [64, 256, 1_024, 4_096, 16_384] {
            if only.is_some_and(|only| only != len) {
                continue;
            }
            let payload = vec![7; len];
            let count = ROUND_LEN / stored_len(len as u32);
            let (mut bare, mut one, mut four) = (vec![], vec![], vec![]);
            appends(&wal, &payload, count, 1);
            for _ in 0..rounds {
                bare.push(skeleton(&mut map, &payload, count));
                one.push(appends(&wal, &payload, count, 1));
                four.push(appends(&wal, &payload, count, 4));
            }
            let split = |of: Vec<(f64, f64)>| {
                let (wall, cpu): (Vec<_>, Vec<_>) = of.into_iter().unzip();
                (median(wall), median(cpu))
            };
            let (bare, one, four) = (split(bare), split(one), split(four));
            println!(
                "{len:6} B: skeleton {:8.0}  1 writer {:8.0} {:.2}x (processor time {:.2}x)  \
                 4 writers {:8.0} {:.2}x of 1",
                bare.0 / 1e3,
                one.0 / 1e3,
                one.0 / bare.0,
                one.1 / bare.1,
                four.0 / 1e3,
                four.0 / one.0
            );
        }
    }
}

/// fdatasyncs per second of 4 KiB overwrites.
fn syncs(file: &File) -> f64 {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < ROUND {
        file.write_all_at(&[count as u8; 4096], 4096 * (count % 1_024)).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    count as f64 / start.elapsed().as_secs_f64()
}

fn commits(wal: &Arc<Wal>, writers: u64) -> f64 {
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let count: u64 = std::thread::scope(|scope| {
        let own = || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let put = wal.append(RecordKind::Data, 0, &[7; 256]).unwrap();
                wal.wait_flushed(put.end).unwrap();
                count += 1;
            }
            count
        };
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(own)).collect();
        std::thread::sleep(ROUND);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    count as f64 / start.elapsed().as_secs_f64()
}

/// Processor time of this process so far, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// Bytes written by all disks so far.
fn disk_bytes() -> f64 {
    let stats = std::fs::read_to_string("/proc/diskstats").unwrap();
    let sectors = stats.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[2].starts_with("vda").then(|| fields[9].parse::<f64>().unwrap())
    });
    sectors.sum::<f64>() * 512.0
}

fn old_file() -> (tempfile::TempDir, File) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = File::create_new(folder.path().join("file")).unwrap();
    file.write_all_at(&vec![0; 4 << 20], 0).unwrap();
    file.sync_all().unwrap();
    (folder, file)
}

fn report(name: &str, floor: f64, rates: Vec<f64>, (cpu, disk): (f64, f64), of: u64) {
    let all: f64 = rates.iter().sum::<f64>() * ROUND.as_secs_f64();
    let rate = median(rates);
    println!(
        "{name:>12}: {rate:8.0} commits/s  {:.2}x of {of} x fdatasync  cpu {:.1} us  disk {:.0} B",
        rate / floor / of as f64,
        cpu / all * 1e6,
        disk / all,
    );
}

fn durable(rounds: usize) {
    const WRITERS: [u64; 4] = [1, 4, 16, 64];
    let (_folder, file) = old_file();
    for mode in [SyncMode::Eager, SyncMode::OnFlush] {
        let (_folder, wal) = support::log_with(mode);
        let mut floor = vec![];
        let mut rates = [const { vec![] }; 4];
        let mut costs = [(0.0, 0.0); 4];
        for _ in 0..rounds {
            floor.push(syncs(&file));
            for (at, writers) in WRITERS.into_iter().enumerate() {
                let before = (cpu(), disk_bytes());
                rates[at].push(commits(&wal, writers));
                costs[at].0 += cpu() - before.0;
                costs[at].1 += disk_bytes() - before.1;
            }
        }
        let floor = median(floor);
        println!("{mode:?}: fdatasync {floor:.0}/s");
        for (at, writers) in WRITERS.into_iter().enumerate() {
            let rates = std::mem::take(&mut rates[at]);
            report(&format!("{writers} threads"), floor, rates, costs[at], writers);
        }
    }
}

fn tasks(rounds: usize) {
    let (_folder, file) = old_file();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    for mode in [SyncMode::Eager, SyncMode::OnFlush] {
        let (_folder, wal) = support::log_with(mode);
        let floor = syncs(&file);
        println!("{mode:?}: fdatasync {floor:.0}/s");
        for count in [1, 64, 1_000] {
            let mut rates = vec![];
            let before = (cpu(), disk_bytes());
            for _ in 0..rounds {
                rates.push(runtime.block_on(task_commits(&wal, count)));
            }
            let costs = (cpu() - before.0, disk_bytes() - before.1);
            report(&format!("{count} tasks"), floor, rates, costs, count);
        }
    }
}

async fn task_commits(wal: &Arc<Wal>, count: u64) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (wal, stop) = (Arc::clone(wal), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut count = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let put = wal.append(RecordKind::Data, 0, &[7; 256]).unwrap();
                    wal.until_flushed(put.end).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = 0;
    for task in tasks {
        all += task.await.unwrap();
    }
    all as f64 / start.elapsed().as_secs_f64()
}
