//! The scripted life of a log on a real file system, in a process that may be killed at any call.

use std::path::Path;
use std::sync::Arc;

use towline_protocol::lsn::Lsn;
use towline_wal::{Options, Wal, WalError, cut, found};

use crate::events::{Event, Reporter};
use crate::log::{append, begin, epoch, founding, payload};
use crate::oracle::Written;
use crate::random::Random;

/// How many things happen to a log.
const STEPS: usize = 16;
/// The longest payload.
const PAYLOAD_MAX: usize = 6_000;

/// Lives the life of `seed` in a folder that is empty or absent, and tells of everything.
pub(crate) fn live(dir: &Path, seed: u64, reporter: &Reporter) -> bool {
    let done = Life::new(dir, seed, reporter).and_then(Life::run);
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

struct Life<'a> {
    dir: &'a Path,
    reporter: &'a Reporter,
    random: Random,
    wal: Arc<Wal>,
    records: Vec<Written>,
    epoch: u64,
    number: u64,
}

impl<'a> Life<'a> {
    fn new(dir: &'a Path, seed: u64, reporter: &'a Reporter) -> Result<Self, WalError> {
        found(dir, &founding())?;
        reporter.tell(&Event::Founded);
        let (random, wal) = (Random::new(seed), open(dir)?);
        let records = Vec::new();
        Ok(Self { dir, reporter, random, wal, records, epoch: 0, number: seed << 32 })
    }

    fn run(mut self) -> Result<(), WalError> {
        self.begin()?;
        for step in 0..STEPS {
            match step % 8 {
                // What any life has; the rest is chance.
                2 => self.begin()?,
                4 => self.cut()?,
                _ => self.step()?,
            }
        }
        self.shutdown()
    }

    fn step(&mut self) -> Result<(), WalError> {
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

    fn wrote(&mut self, written: Written) {
        self.reporter.tell(&Event::Appended(written.clone()));
        self.records.push(written);
    }

    fn append(&mut self) -> Result<(), WalError> {
        self.number += 1;
        let payload = payload(self.number, 8 + self.random.below(PAYLOAD_MAX));
        let written = append(&self.wal, payload, 0)?;
        self.wrote(written);
        Ok(())
    }

    fn begin(&mut self) -> Result<(), WalError> {
        self.epoch += 1;
        let written = begin(&self.wal, self.epoch, 0)?;
        self.wrote(written);
        Ok(())
    }

    fn flush(&self) -> Result<(), WalError> {
        self.wal.flush()?;
        self.reporter.tell(&Event::Durable);
        Ok(())
    }

    fn fence(&self) -> Result<(), WalError> {
        let fence = self.wal.control().fence.number + 1;
        self.reporter.tell(&Event::FenceAsked(fence));
        self.wal.update_control(|control| control.fence = epoch(fence))?;
        self.reporter.tell(&Event::Fenced);
        Ok(())
    }

    fn shutdown(&self) -> Result<(), WalError> {
        self.wal.shutdown()?;
        self.reporter.tell(&Event::Durable);
        Ok(())
    }

    fn cut(&mut self) -> Result<(), WalError> {
        self.shutdown()?;
        let kept = 1 + self.random.below(self.records.len());
        let to = self.records[kept - 1].end;
        self.reporter.tell(&Event::Cutting(kept));
        cut(self.dir, Lsn::new(to), &options())?;
        self.reporter.tell(&Event::Cut);
        self.records.truncate(kept);
        self.wal = open(self.dir)?;
        Ok(())
    }
}
