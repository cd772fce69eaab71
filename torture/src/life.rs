//! The scripted life of a log on a real file system, in a process that may be killed at any call.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use towline_protocol::lsn::Lsn;
use towline_wal::{Options, Wal, WalError, cut, found, repair_from};

use crate::events::{Event, Reporter};
use crate::kept::base_of;
use crate::log::{SLOT, append, begin, epoch, founding, payload, segment_path};
use crate::oracle::Oracle;
use crate::random::Random;

/// How many things happen to a log.
const STEPS: usize = 16;
/// The longest payload.
const PAYLOAD_MAX: usize = 6_000;
/// Where in a record a byte rots: in its payload.
const ROTS_AT: u64 = 37;

/// Whether something could be done.
type Done = Result<(), Box<dyn Error>>;

/// Lives the life of `seed` in a folder that is empty or absent, and tells of everything.
pub(crate) fn live(dir: &Path, seed: u64, reporter: &Reporter) -> bool {
    let done = Life::new(dir, seed, reporter).map_err(Into::into).and_then(Life::run);
    if let Err(error) = &done {
        reporter.tell(&Event::Refused(error.to_string()));
    }
    done.is_ok()
}

/// Without threads, so that the same life makes the same calls.
pub(crate) fn options() -> Options {
    Options { threads: false, ..Options::default() }
}

pub(crate) fn open(dir: &Path) -> Result<Arc<Wal>, WalError> {
    Wal::open(dir, options()).map(|(wal, _)| wal)
}

/// The folder that a log in `dir` is repaired from: a copy from before it was damaged.
pub(crate) fn peer_of(dir: &Path) -> PathBuf {
    dir.with_extension("peer")
}

struct Life<'a> {
    dir: &'a Path,
    reporter: &'a Reporter,
    random: Random,
    wal: Arc<Wal>,
    /// Knows what was told.
    oracle: Oracle,
    epoch: u64,
    number: u64,
}

impl<'a> Life<'a> {
    fn new(dir: &'a Path, seed: u64, reporter: &'a Reporter) -> Result<Self, WalError> {
        found(dir, &founding())?;
        reporter.tell(&Event::Founded);
        let (random, wal) = (Random::new(seed), open(dir)?);
        let oracle = Oracle::default();
        Ok(Self { dir, reporter, random, wal, oracle, epoch: 0, number: seed << 32 })
    }

    fn run(mut self) -> Done {
        self.begin()?;
        for step in 0..STEPS {
            match step {
                // What any life has; the rest is chance.
                2 | 10 => self.begin()?,
                4 | 12 => self.cut()?,
                3 | 11 => self.slot()?,
                6 | 14 => self.trim()?,
                7 => self.mend()?,
                9 => self.scrub()?,
                _ => self.step()?,
            }
        }
        self.shutdown()
    }

    fn step(&mut self) -> Done {
        match self.random.below(8) {
            0 => self.flush(),
            1 => self.fence(),
            2 => {
                self.shutdown()?;
                self.wal = open(self.dir)?;
                Ok(())
            }
            _ => {
                for _ in 0..1 + self.random.below(8) {
                    self.append()?;
                }
                Ok(())
            }
        }
    }

    fn tell(&mut self, event: Event) {
        self.reporter.tell(&event);
        self.oracle.hear(&event);
    }

    fn append(&mut self) -> Done {
        self.number += 1;
        let payload = payload(self.number, 8 + self.random.below(PAYLOAD_MAX));
        let written = append(&self.wal, payload, 0)?;
        self.tell(Event::Appended(written));
        Ok(())
    }

    fn begin(&mut self) -> Done {
        self.epoch += 1;
        let written = begin(&self.wal, self.epoch, 0)?;
        self.tell(Event::Appended(written));
        Ok(())
    }

    fn flush(&mut self) -> Done {
        self.wal.flush()?;
        self.tell(Event::Durable);
        Ok(())
    }

    fn fence(&mut self) -> Done {
        let fence = self.wal.control().fence.number + 1;
        self.tell(Event::FenceAsked(fence));
        self.wal.update_control(|control| control.fence = epoch(fence))?;
        self.tell(Event::Fenced);
        Ok(())
    }

    fn shutdown(&mut self) -> Done {
        self.wal.shutdown()?;
        self.tell(Event::Durable);
        Ok(())
    }

    /// The first record of the first segment that is kept.
    fn first_kept(&self) -> usize {
        self.oracle.before(self.oracle.kept.base())
    }

    fn cut(&mut self) -> Done {
        self.shutdown()?;
        let (first, all) = (self.first_kept(), self.oracle.records().len());
        let kept = first + 1 + self.random.below(all - first);
        let to = self.oracle.records()[kept - 1].end;
        self.tell(Event::Cutting(kept));
        cut(self.dir, Lsn::new(to), &options())?;
        self.tell(Event::Cut);
        self.wal = open(self.dir)?;
        Ok(())
    }

    /// Makes a slot where the log begins, moves it on to the log's end, or drops it.
    fn slot(&mut self) -> Done {
        if !self.oracle.kept.has_slot() {
            let position = self.oracle.records()[self.first_kept()].lsn;
            self.tell(Event::SlotAsked(position));
            self.wal.create_slot(SLOT, Lsn::new(position), None)?;
            self.tell(Event::SlotMade);
        }
        if self.random.coin() {
            let end = self.oracle.records().last().map_or(0, |last| last.end);
            let before = self.oracle.kept.slot_position();
            self.tell(Event::SlotMoves(end));
            self.wal.advance_slot(SLOT, Lsn::new(end))?;
            self.tell(Event::SlotMoved(before));
        } else if self.random.coin() {
            self.tell(Event::DropAsked);
            self.wal.drop_slot(SLOT)?;
            self.tell(Event::Dropped);
        }
        Ok(())
    }

    /// Trims what lies before the newest segment and before the slot.
    fn trim(&mut self) -> Done {
        // Something has to lie there.
        self.begin()?;
        self.flush()?;
        let to = self.oracle.durable_end();
        self.tell(Event::TrimAsked(to));
        self.wal.trim(Lsn::new(to))?;
        self.tell(Event::Trimmed);
        Ok(())
    }

    /// A byte rots while the log is shut, and is repaired from a copy.
    fn mend(&mut self) -> Done {
        self.append()?;
        let (first, tail) = (self.first_kept(), self.oracle.records().len());
        self.begin()?;
        self.shutdown()?;
        copy(self.dir, &peer_of(self.dir))?;
        // In a segment that is complete, or in the newest one, where only its BARRIER is.
        let at = first + self.random.below(tail + 1 - first);
        let at = self.oracle.records()[at].lsn;
        let (base, offset) = (base_of(at), at - base_of(at) + ROTS_AT);
        self.tell(Event::Mending(base, offset));
        rot(&segment_path(self.dir, base), offset)?;
        repair_from(self.dir, &peer_of(self.dir), &options())?;
        self.tell(Event::Mended);
        self.wal = open(self.dir)?;
        Ok(())
    }

    fn scrub(&mut self) -> Done {
        for check in self.wal.scrub(None) {
            if let Some(damage) = check?.damaged.first() {
                return Err(format!("a scrub finds at {}: {}", damage.from, damage.what).into());
            }
        }
        Ok(())
    }
}

/// Copies the files of a folder, by calls that no fault is put into.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let path = file?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

/// Turns a byte of a file over. Not by `write`, which a fault may be put into.
fn rot(path: &Path, offset: u64) -> std::io::Result<()> {
    let mut file: File = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(offset))?;
    match file.write_vectored(&[IoSlice::new(&[!byte[0]])])? {
        1 => Ok(()),
        _ => Err(std::io::ErrorKind::WriteZero.into()),
    }
}
