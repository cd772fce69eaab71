//! A fault at every system call: the process is killed at it, or it fails, or it takes nothing.
//! strace puts the fault in; another process opens what is left and judges it.

mod point;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use towline_wal::{WalError, found, repair_from};

use crate::events::Event;
use crate::life::{open, options, peer_of};
use crate::log::{append, begin, founding, payload, read_back, segment_path};
use crate::oracle::Oracle;
use crate::tally::{Tally, on_every_core};
use point::Point;

/// What a short run tries.
pub(crate) const POINTS: u64 = 2_500;
/// The calls that a fault is put into. Three of them no log makes now; they wait for one that does.
const CALLS: [&str; 14] = [
    "fdatasync",
    "fsync",
    "msync",
    "write",
    "pwrite64",
    "rename",
    "renameat",
    "fallocate",
    "ftruncate",
    "unlink",
    "link",
    "linkat",
    "mkdir",
    "flock",
];
/// A call that a life makes so often at the most is rare.
const RARE: u64 = 20;
/// Lives whose writes are cut short by a limit on the length of files.
const LIMITS: std::ops::RangeInclusive<u64> = 1..=40;

/// Tries `points` faults, in as many lives as it takes.
pub(crate) fn run(points: u64, tally: &Tally) -> Result<(), String> {
    let folder = Folder::new()?;
    let mut chosen: Vec<Point> = LIMITS.map(Point::limit).collect();
    let mut seed = 0;
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    while (chosen.len() as u64) < points {
        for (call, count) in occurrences(&folder.path(0), seed)? {
            *counted.entry(call.clone()).or_default() += count;
            chosen.extend(Point::all(seed, &call, count));
        }
        seed += 1;
    }
    // Evenly, if the last life has brought too many; nothing is left out of what is rare.
    let is_rare = |point: &Point| point.call().is_none_or(|call| counted[call] <= RARE * seed);
    let (mut chosen, often): (Vec<_>, Vec<_>) = chosen.into_iter().partition(is_rare);
    let (all, points) = (often.len() as u64, points.saturating_sub(chosen.len() as u64));
    let is_next = |at: u64| at * points / all.max(1) != (at + 1) * points / all.max(1);
    chosen.extend((0..).zip(often).filter(|(at, _)| is_next(*at)).map(|it| it.1));
    for (call, count) in &counted {
        println!("syscall-crash: {count} {call} in {seed} lives");
    }
    let never = CALLS.iter().filter(|call| !counted.contains_key(**call));
    let never: Vec<_> = never.copied().collect();
    println!("syscall-crash: never made: {}", never.join(", "));
    let (next, worker) = (AtomicU64::new(0), AtomicU64::new(0));
    on_every_core(|| {
        let dir = folder.path(worker.fetch_add(1, Ordering::Relaxed));
        while let Ok(at) = usize::try_from(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(point) = chosen.get(at).filter(|_| !tally.is_over()) else { return };
            tally.run(|| point.name(), || check(point, &dir));
        }
    });
    Ok(())
}

/// Tries one fault again, as a failure names it.
pub(crate) fn run_one(name: &str, tally: &Tally) -> Result<(), String> {
    let point = Point::parse(name).ok_or_else(|| format!("{name} is no point"))?;
    let folder = Folder::new()?;
    tally.run(|| name.to_owned(), || check(&point, &folder.path(0)));
    Ok(())
}

/// A folder in memory: the process dies here and not the machine, so it does as well as a disk.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = above.join(format!("towline-syscall-crash-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    /// A path for one log at a time.
    fn path(&self, worker: u64) -> PathBuf {
        self.0.join(worker.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A leftover in memory is no harm beyond its size.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn empty(dir: &Path) {
    for dir in [dir, &peer_of(dir)] {
        // It may not be there.
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// The command line of a life.
fn life(dir: &Path, seed: u64) -> Result<Vec<String>, String> {
    let this = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let words = [this.as_path(), Path::new("life"), dir];
    let mut words: Vec<_> = words.iter().map(|word| word.display().to_string()).collect();
    words.push(seed.to_string());
    Ok(words)
}

/// How often each call is made in the life of `seed`.
fn occurrences(dir: &Path, seed: u64) -> Result<BTreeMap<String, u64>, String> {
    empty(dir);
    let log = dir.with_extension("strace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "signal=none", "-o"]).arg(&log);
    strace.arg("-e").arg(format!("trace={}", CALLS.join(","))).args(life(dir, seed)?);
    let ended =
        strace.stdout(Stdio::null()).status().map_err(|error| format!("strace: {error}"))?;
    if !ended.success() {
        return Err(format!("the life of seed {seed} ended with {ended}, without any fault"));
    }
    let text = std::fs::read_to_string(&log).map_err(|error| format!("strace's log: {error}"))?;
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let call = line.split_whitespace().nth(1).and_then(|word| word.split_once('('));
        if let Some((call, _)) = call.filter(|(call, _)| CALLS.contains(call)) {
            *counts.entry(call.to_owned()).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Lives a life with one fault in it, and judges what it leaves.
fn check(point: &Point, dir: &Path) -> Result<(), String> {
    empty(dir);
    let mut command = point.command(life(dir, point.seed())?);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("it does not start: {error}"))?;
    let mut told = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut told).map_err(|error| format!("its report: {error}"))?;
    }
    let ended = child.wait().map_err(|error| format!("its end: {error}"))?;
    if point.is_fatal() && ended.success() {
        return Err(format!("the fault was not met: {} lines", told.lines().count()));
    }
    judge_apart(dir, &told)
}

/// Has another process judge: a child of this one would inherit a lock that this one holds.
fn judge_apart(dir: &Path, told: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the judge: {error}");
    let this = std::env::current_exe().map_err(failed)?;
    let mut judge = Command::new(this);
    judge.arg("judge").arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut judge = judge.spawn().map_err(failed)?;
    if let Some(mut to) = judge.stdin.take() {
        // A judge that has died says so by its status.
        let _ = to.write_all(told.as_bytes());
    }
    let judged = judge.wait_with_output().map_err(failed)?;
    let said = String::from_utf8_lossy(&judged.stdout);
    if judged.status.success() { Ok(()) } else { Err(format!("{} {}", said.trim(), judged.status)) }
}

/// Judges the log in a folder by what a process that is no more told of it.
pub(crate) fn judge_told(dir: &Path, told: &str) -> bool {
    let events: Vec<_> = told.lines().filter_map(Event::parse).collect();
    let judged = judge(dir, &events);
    if let Err(error) = &judged {
        println!("{error}");
    }
    judged.is_ok()
}

/// Opens what is left, judges it, goes on with it, and opens it once more.
fn judge(dir: &Path, events: &[Event]) -> Result<(), String> {
    let mut oracle = Oracle::default();
    events.iter().for_each(|event| oracle.hear(event));
    if !events.contains(&Event::Founded) && matches!(open(dir), Err(WalError::NotFounded(_))) {
        found(dir, &founding()).map_err(|error| format!("it is not founded again: {error}"))?;
    }
    let refused = |error: WalError| format!("after {} events: {error}", events.len());
    let mending = events.iter().rfind(|it| matches!(it, Event::Mending(..) | Event::Mended));
    if let Some(&Event::Mending(base, offset)) = mending {
        mend(dir, base, offset)
            .map_err(|error| format!("after {} events: {error}", events.len()))?;
    }
    let wal = open(dir).map_err(refused)?;
    let now = read_back(&wal).map_err(refused)?;
    // The page cache is still there: nothing at all may be missing.
    if oracle.is_cutting() {
        oracle.judge(&now)?
    } else {
        oracle.judge_whole(&now)?
    }
    oracle.settle(&now);
    let durable = oracle.durable_end();
    let epoch = wal.last_epoch().number.max(now.fence) + 1_000;
    oracle.appended(begin(&wal, epoch, durable).map_err(refused)?);
    oracle.appended(append(&wal, payload(u64::MAX, 900), durable).map_err(refused)?);
    wal.shutdown().map_err(refused)?;
    drop(wal);
    let (wal, report) = towline_wal::Wal::open(dir, options()).map_err(refused)?;
    if let Some((lsn, what)) = report.torn {
        return Err(format!("after a clean shutdown its tail is torn at {lsn}: {what}"));
    }
    oracle.judge_whole(&read_back(&wal).map_err(refused)?)
}

/// Repairs again what a repair that did not end has left: the one record that had rotted, or
/// nothing, and then the damaged file was kept.
fn mend(dir: &Path, base: u64, offset: u64) -> Result<(), String> {
    let peer = peer_of(dir);
    let repaired =
        repair_from(dir, &peer, &options()).map_err(|error| format!("repaired again: {error}"))?;
    if !matches!(repaired.records, 0 | 1) {
        return Err(format!("{} records were repaired again", repaired.records));
    }
    let failed = |error: std::io::Error| format!("looking for the damaged file: {error}");
    let mut damaged = std::fs::read(segment_path(&peer, base)).map_err(failed)?;
    let byte = usize::try_from(offset).ok().and_then(|offset| damaged.get_mut(offset));
    *byte.ok_or("nothing can rot there")? ^= 0xff;
    let kept = files_in(&files_in(&[dir.join("salvage")]));
    let is_kept = kept.iter().any(|path| std::fs::read(path).is_ok_and(|it| it == damaged));
    if is_kept { Ok(()) } else { Err("the damaged file is gone".to_owned()) }
}

/// What lies in folders, as far as they are some.
fn files_in(folders: &[PathBuf]) -> Vec<PathBuf> {
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
}
