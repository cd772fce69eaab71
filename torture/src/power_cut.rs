//! Power cuts of real file systems under writers who wait for the disk.
//!
//! A file system in a file is stopped by its shutdown call, without flushing its journal: what was
//! not synced is gone, as when the power fails. It is mounted again, and the log is opened and
//! judged by what its writers were told. Two controls keep this honest: writers who do not sync
//! must lose records, and after a sync that failed what opening shows must be on the disk.

mod ledger;
mod volume;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use ledger::Key;
use ledger::Ledger;
use volume::{Kind, Volume};

use crate::events::Event;
use crate::log::read_back;
use crate::oracle::Found;
use crate::random::Random;
use crate::tally::Tally;

/// What a short run does.
pub(crate) const CUTS: u64 = 12;
/// After so many lives a log begins anew.
const LIVES: u64 = 25;
/// In one life of so many the power fails again as soon as the log is open.
const TWICE: u64 = 3;
/// In one life of so many a sync fails before the power does.
const SYNC_FAILS: u64 = 4;
/// How long writers write once the first record is durable, in milliseconds.
const WRITES_MS: usize = 120;
/// How long the first durable record may take.
const FIRST_LIMIT: Duration = Duration::from_secs(30);
/// So often the control may lose nothing by chance.
const CONTROLS: u64 = 5;

/// Cuts the power `cuts` times, of each kind of file system half.
pub(crate) fn run(cuts: u64, tally: &Tally) {
    let folder = Folder::new();
    for kind in Kind::ALL {
        if let Err(error) = Volume::new(kind, &folder.0) {
            println!("SKIPPED: power cuts of {}: {error}", kind.name());
            continue;
        }
        tally.run(|| format!("{}:control", kind.name()), || control(kind, &folder.0));
        run_lives(kind, 0..cuts.div_ceil(2), &folder.0, tally);
    }
}

/// Tries a life again, as a failure names it, with those of its log before it.
pub(crate) fn run_one(name: &str, tally: &Tally) -> Result<(), String> {
    let unknown = || format!("{name} is no KIND:LIFE");
    let (kind, life) = name.split_once(':').ok_or_else(unknown)?;
    let kind = Kind::ALL.into_iter().find(|it| it.name() == kind).ok_or_else(unknown)?;
    let folder = Folder::new();
    if life == "control" {
        tally.run(|| name.to_owned(), || control(kind, &folder.0));
        return Ok(());
    }
    let life: u64 = life.parse().map_err(|_| unknown())?;
    run_lives(kind, life / LIVES * LIVES..life + 1, &folder.0, tally);
    Ok(())
}

fn run_lives(kind: Kind, lives: std::ops::Range<u64>, folder: &Path, tally: &Tally) {
    let mut log: Option<(Volume, Ledger)> = None;
    let mut acks = 0;
    for life in lives {
        if life % LIVES == 0 {
            // The place is taken until the old one is gone.
            drop(log.take());
        }
        let failed_before = tally.failures();
        tally.run(
            || format!("{}:{life}", kind.name()),
            || {
                if log.is_none() {
                    log = Some((Volume::new(kind, folder)?, Ledger::default()));
                }
                let Some((volume, ledger)) = &mut log else { return Ok(()) };
                acks += live(volume, ledger, life)?;
                Ok(())
            },
        );
        if tally.failures() > failed_before {
            // What is known of this log does not hold any more.
            drop(log.take());
        }
    }
    println!("power-cut: {}: {acks} records were durable before a cut", kind.name());
}

/// The folder the file systems lie in.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("towline-power-cut-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Its volumes are gone; what is left is empty.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writers that do not sync: what they tell must get lost, or the cuts cut nothing.
fn control(kind: Kind, folder: &Path) -> Result<(), String> {
    for life in 0..CONTROLS {
        let volume = Volume::new(kind, folder)?;
        let mut ledger = Ledger::default();
        let mut writers = Writers::start(&volume.dir(), life, Sync::Never, &mut ledger)?;
        writers.write_for(Duration::from_millis(20), &mut ledger)?;
        volume.fail()?;
        writers.end(&mut ledger)?;
        volume.restore()?;
        // A log that can not even be opened has lost as much.
        if read(&volume.dir()).map_or(true, |found| ledger.judge(&found).is_err()) {
            return Ok(());
        }
    }
    Err(format!("writers that never sync lost nothing in {CONTROLS} power cuts"))
}

/// One life, the cut that ends it, and the judgement. Returns how many records were durable.
fn live(volume: &Volume, ledger: &mut Ledger, life: u64) -> Result<usize, String> {
    let dir = volume.dir();
    let mut random = Random::new(life);
    let fails = life % SYNC_FAILS == SYNC_FAILS - 1;
    let sync = if fails { Sync::Fails(3 + random.below(40)) } else { Sync::Works };
    let mut writers = Writers::start(&dir, life, sync, ledger)?;
    let writes = Duration::from_millis(random.below(WRITES_MS) as u64);
    if fails {
        // They stop by themselves. What the log shows then may be in the page cache alone; what
        // opening makes of it must not be.
        writers.end_by_itself(ledger)?;
        let found = read(&dir)?;
        ledger.judge(&found)?;
        let acks = ledger.acks();
        ledger.settle(found);
        volume.fail()?;
        volume.restore()?;
        ledger.judge(&read(&dir)?).map_err(|error| format!("after a failed sync: {error}"))?;
        return Ok(acks);
    }
    writers.write_for(writes, ledger)?;
    volume.fail()?;
    writers.end(ledger)?;
    volume.restore()?;
    let found = read(&dir)?;
    ledger.judge(&found)?;
    let acks = ledger.acks();
    ledger.settle(found);
    if life % TWICE == 0 {
        volume.fail()?;
        volume.restore()?;
        ledger.judge(&read(&dir)?).map_err(|error| format!("cut right after opening: {error}"))?;
    }
    Ok(acks)
}

fn read(dir: &Path) -> Result<Found, String> {
    let refused = |error: towline_wal::WalError| format!("the log does not open: {error}");
    let wal = crate::life::open(dir).map_err(refused)?;
    read_back(&wal).map_err(refused)
}

/// What becomes of the writers' syncs.
#[derive(Clone, Copy)]
enum Sync {
    Works,
    /// There is none.
    Never,
    /// The so-many-th fails.
    Fails(usize),
}

/// The writers' process, and what it tells.
struct Writers {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Writers {
    fn start(dir: &Path, life: u64, sync: Sync, ledger: &mut Ledger) -> Result<Self, String> {
        ledger.begins(life);
        let this = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
        let mut command = Self::command(this, sync);
        command.arg("writers").arg(dir).arg(life.to_string());
        if matches!(sync, Sync::Never) {
            command.arg("--unsynced");
        }
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.map_err(|error| format!("the writers do not start: {error}"))?;
        let out = child.stdout.take().ok_or("the writers have no output")?;
        Ok(Self { child, out: BufReader::new(out) })
    }

    fn command(this: PathBuf, sync: Sync) -> Command {
        let Sync::Fails(when) = sync else { return Command::new(this) };
        let mut strace = Command::new("strace");
        // Of records and nothing else: a thread's calls are counted one by one.
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=msync", "-e"]);
        strace.arg(format!("inject=msync:error=EIO:when={when}+")).arg(this);
        strace
    }

    /// Hears one line; `false` if there is none any more.
    fn hear(&mut self, ledger: &mut Ledger) -> Result<bool, String> {
        let mut line = String::new();
        let read = self.out.read_line(&mut line).map_err(|error| format!("the report: {error}"))?;
        let Some(line) = line.strip_suffix('\n') else { return Ok(read > 0) };
        let words: Vec<&str> = line.split(' ').collect();
        match (words.as_slice(), Event::parse(line)) {
            (["acked", key, lsn, end], _) => {
                let numbers = [key, lsn, end].map(|word| word.parse::<u64>().ok());
                if let [Some(key), Some(lsn), Some(end)] = numbers {
                    ledger.acked(key, lsn, end);
                }
            }
            (_, Some(Event::Appended(barrier))) => ledger.barrier(barrier.payload.to_vec()),
            _ => {}
        }
        Ok(true)
    }

    /// Lets them write for a while once the first record is durable.
    fn write_for(&mut self, time: Duration, ledger: &mut Ledger) -> Result<(), String> {
        let begun = Instant::now();
        let mut until = None;
        while until.is_none_or(|until| Instant::now() < until) {
            if !self.hear(ledger)? {
                return Err("the writers ended by themselves".to_owned());
            }
            if ledger.acks() > 0 {
                until = until.or(Some(Instant::now() + time));
            } else if begun.elapsed() > FIRST_LIMIT {
                return Err(format!("no record was durable within {FIRST_LIMIT:?}"));
            }
        }
        Ok(())
    }

    /// The power is off: what they were told before still counts.
    fn end(&mut self, ledger: &mut Ledger) -> Result<(), String> {
        // It may have ended already.
        let _ = self.child.kill();
        while self.hear(ledger)? {}
        self.child.wait().map(drop).map_err(|error| format!("the writers' end: {error}"))
    }

    /// Hears them to their end.
    fn end_by_itself(&mut self, ledger: &mut Ledger) -> Result<(), String> {
        while self.hear(ledger)? {}
        let ended = self.child.wait().map_err(|error| format!("the writers' end: {error}"))?;
        if ended.success() { Err("their sync did not fail".to_owned()) } else { Ok(()) }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        // Most have ended; none may stay and keep the file system busy.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
