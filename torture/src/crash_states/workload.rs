//! What is done to a log, one letter an operation, and every moment at which the power may fail
//! in the last of them.

mod upkeep;

use std::sync::Arc;

use towline_protocol::lsn::Lsn;
use towline_wal::simulated::{Outage, SimDisk};
use towline_wal::{Level, Wal, WalError, cut, found_on};

use crate::log::{append, begin, dir, epoch, founding, open, options, payload, read_back};
use crate::oracle::{Oracle, Written};
pub(super) use upkeep::Mending;

/// The operations.
///
/// | letter | what is done |
/// |---|---|
/// | a, m, l | appends a record: small, of a few sectors, the longest there may be |
/// | s | appends until the segment has ended and another begun |
/// | f | flushes |
/// | e | begins an epoch |
/// | u | changes the control file: a fence |
/// | c | shuts down, cuts half of the records off, opens |
/// | d | dies, is cut at what is durable, opens |
/// | x | shuts down, opens |
/// | k | dies, opens |
/// | y | a flush fails; dies, opens |
/// | z, v | an epoch is begun and the first, the fourth sync of that fails; dies, opens |
/// | t | flushes, and trims what lies before the newest segment |
/// | o | makes a slot where the log begins; drops it if there is one |
/// | j | moves the slot on to the end of the log |
/// | p | shuts down, a record of the newest segment rots, is repaired; opens |
/// | r | a record of the oldest segment rots and is repaired while the log is open |
/// | b | scrubs |
pub(super) const OPERATIONS: &str = "amlsfeucdxkyzvtojprb";

/// What a workload begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// A log with one epoch and nothing else, flushed.
    Fresh,
    /// A segment that is nearly full, flushed and shut down.
    Full,
    /// As `Fresh`, and what is appended comes from another node.
    Replica,
    /// A segment and some of the next, flushed, and a slot that holds them.
    Held,
}

impl Start {
    pub(super) const ALL: [Self; 4] = [Self::Fresh, Self::Full, Self::Replica, Self::Held];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Full => "full",
            Self::Replica => "replica",
            Self::Held => "held",
        }
    }
}

const SMALL: usize = 24;
const MEDIUM: usize = 1_500;
/// A quarter of the smallest segment.
const LARGE: usize = 16 << 10;
const SPANNING: usize = 9_000;
/// So much is left of a segment that is nearly full: room for a small record and a SEAL.
const LEFT: u64 = 160;

/// A moment at which the power may fail, and what is known then.
pub(super) struct Moment {
    pub(super) outage: Outage,
    pub(super) oracle: Oracle,
    /// Whether the founding was told to be done.
    pub(super) founded: bool,
    /// The repair that is under way.
    pub(super) mending: Option<Arc<Mending>>,
}

impl Moment {
    fn is_same(&self, other: &Self) -> bool {
        self.founded == other.founded
            && self.mending.is_some() == other.mending.is_some()
            && self.oracle == other.oracle
            && self.outage.is_same(&other.outage)
    }
}

/// A log, and what is known of it from outside.
pub(super) struct Run {
    disk: SimDisk,
    wal: Option<Arc<Wal>>,
    /// The log of another node, which this one follows.
    source: Option<(SimDisk, Arc<Wal>)>,
    /// What the source holds.
    sent: Vec<Written>,
    oracle: Oracle,
    /// Counts what was written, so that no two payloads are alike.
    number: u64,
    epoch: u64,
    /// The repair that is under way.
    mending: Option<Arc<Mending>>,
    recorded: Option<Vec<Moment>>,
}

fn failed(error: &WalError) -> String {
    format!("it refuses: {error}")
}

impl Run {
    /// Founds a log and brings it to where the workload starts. The founding itself is recorded
    /// if there is nothing else to record.
    fn new(start: Start, records: bool) -> Result<Self, String> {
        let source = (start == Start::Replica).then(|| SimDisk::new(2));
        let source = source.map(|disk| {
            found_on(&disk, dir(), &founding())?;
            let wal = open(&disk)?;
            Ok((disk, wal))
        });
        let source = source.transpose().map_err(|error| failed(&error))?;
        let (disk, oracle) = (SimDisk::new(1), Oracle::default());
        let mut run = Self {
            disk,
            wal: None,
            source,
            sent: vec![],
            oracle,
            number: 0,
            epoch: 0,
            mending: None,
            recorded: None,
        };
        if records {
            run.record();
        }
        let before = run.oracle.clone();
        found_on(&run.disk, dir(), &founding()).map_err(|error| failed(&error))?;
        run.take_moments(&before, false);
        run.act(|run| run.open().map(drop))?;
        run.act(Self::begin)?;
        run.act(Self::flush)?;
        if start == Start::Full {
            run.fill()?;
            run.operate('x')?;
        }
        if start == Start::Held {
            "sof".chars().try_for_each(|letter| run.operate(letter))?;
        }
        Ok(run)
    }

    fn fill(&mut self) -> Result<(), String> {
        let size = founding().segment_size;
        loop {
            let end = self.wal()?.appended();
            let left = size.next_base(end).distance_from(end) - LEFT;
            if left < 64 {
                return Ok(());
            }
            let len = usize::try_from(left - 48).unwrap_or(LARGE).min(LARGE);
            self.append(len).map_err(|error| failed(&error))?;
        }
    }

    fn record(&mut self) {
        self.disk.record_outages();
        self.recorded = Some(Vec::new());
    }

    fn wal(&self) -> Result<Arc<Wal>, String> {
        self.wal.clone().ok_or_else(|| "the log is not open".to_owned())
    }

    /// Does one thing, and takes the moments in it and behind it.
    fn act<R>(&mut self, act: impl FnOnce(&mut Self) -> Result<R, WalError>) -> Result<R, String> {
        let done = self.try_act(act).map_err(|error| failed(&error))?;
        self.check_unsynced()?;
        Ok(done)
    }

    /// The tail's segment was entered once what is before the last one was durable.
    fn check_unsynced(&self) -> Result<(), String> {
        let Some(wal) = &self.wal else { return Ok(()) };
        let size = founding().segment_size;
        let (flushed, appended) = (wal.flushed(), wal.appended());
        let behind = size.base_of(appended).distance_from(size.base_of(flushed)) / size.bytes();
        if behind <= 2 { Ok(()) } else { Err(format!("only {flushed} of {appended} is flushed")) }
    }

    fn try_act<R>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<R, WalError>,
    ) -> Result<R, WalError> {
        let before = self.oracle.clone();
        let done = act(self);
        self.take_moments(&before, true);
        done
    }

    fn take_moments(&mut self, before: &Oracle, founded: bool) {
        let mending = self.mending.take();
        let Some(recorded) = &mut self.recorded else { return };
        let since = self.oracle.since(before);
        let during = self.disk.take_outages().into_iter().map(|outage| {
            let mending = mending.clone();
            Moment { outage, oracle: since.clone(), founded, mending }
        });
        let (outage, oracle) = (self.disk.outage(), self.oracle.clone());
        for moment in during.chain([Moment { outage, oracle, founded: true, mending: None }]) {
            if !recorded.last().is_some_and(|last| last.is_same(&moment)) {
                recorded.push(moment);
            }
        }
    }

    fn open(&mut self) -> Result<(), WalError> {
        self.wal = Some(open(&self.disk)?);
        Ok(())
    }

    fn append(&mut self, len: usize) -> Result<(), WalError> {
        let payload = payload(self.number, len);
        self.number += 1;
        self.write(|wal, promise| append(wal, payload, promise))
    }

    fn begin(&mut self) -> Result<(), WalError> {
        let writer = self.source.as_ref().map(|(_, source)| source).or(self.wal.as_ref());
        let newest = writer.map_or(0, |wal| wal.last_epoch().number);
        // Never one that was begun before, not even if it was cut off since.
        let number = newest.max(self.epoch) + 1;
        self.write(|wal, promise| begin(wal, number, promise))?;
        self.epoch = number;
        Ok(())
    }

    /// Writes a record, on the source if there is one.
    fn write(
        &mut self,
        write: impl FnOnce(&Wal, u64) -> Result<Written, WalError>,
    ) -> Result<(), WalError> {
        let promise = self.oracle.durable_end();
        if let Some((_, source)) = &self.source {
            self.sent.push(write(source, 0)?);
            return self.ship();
        }
        let Some(wal) = &self.wal else { return Err(WalError::Closed) };
        self.oracle.appended(write(wal, promise)?);
        Ok(())
    }

    /// Sends what the source has and this log has not.
    fn ship(&mut self) -> Result<(), WalError> {
        let (Some((_, source)), Some(wal)) = (&self.source, &self.wal) else { return Ok(()) };
        let promise = self.oracle.durable_end();
        let mut received = Ok(());
        let mut cursor = source.cursor(wal.appended(), Level::Appended)?;
        while let (Ok(()), Some(chunk)) = (&received, cursor.next_chunk(1 << 20)?) {
            received = wal.receive(chunk.segment, chunk.from, &chunk.bytes).map(drop);
        }
        let end = wal.appended().get();
        for written in self.sent.iter().skip(self.oracle.records().len()) {
            if written.end <= end {
                self.oracle.appended(Written { promise, ..written.clone() });
            }
        }
        received
    }

    fn flush(&mut self) -> Result<(), WalError> {
        let Some(wal) = &self.wal else { return Err(WalError::Closed) };
        wal.flush()?;
        self.oracle.all_durable();
        Ok(())
    }

    fn fence(&mut self) -> Result<(), WalError> {
        let Some(wal) = &self.wal else { return Err(WalError::Closed) };
        let fence = wal.control().fence.number + 1;
        self.oracle.fence_asked(fence);
        wal.update_control(|control| control.fence = epoch(fence))?;
        self.oracle.fence_is_durable();
        Ok(())
    }

    fn shutdown(&mut self) -> Result<(), WalError> {
        let Some(wal) = self.wal.take() else { return Err(WalError::Closed) };
        wal.shutdown()?;
        self.oracle.all_durable();
        Ok(())
    }

    /// The process dies. The page cache stays.
    fn die(&mut self) {
        self.disk.kill();
        self.wal = None;
    }

    /// Opens a log of which no power cut took anything.
    fn open_whole(&mut self) -> Result<(), String> {
        self.act(Self::open)?;
        let found = read_back(&self.wal()?).map_err(|error| failed(&error))?;
        self.oracle.judge_whole(&found)?;
        let before = self.oracle.clone();
        self.oracle.settle(&found);
        self.take_moments(&before, true);
        Ok(())
    }

    fn cut(&mut self, kept: usize) -> Result<(), WalError> {
        let to = kept.checked_sub(1).map_or(0, |last| self.oracle.records()[last].end);
        if let Some((disk, wal)) = self.source.take() {
            drop(wal);
            cut(dir(), Lsn::new(to), &options(&disk))?;
            self.source = Some((disk.clone(), open(&disk)?));
            self.sent.truncate(kept);
        }
        self.oracle.cut_begins(kept);
        cut(dir(), Lsn::new(to), &options(&self.disk))?;
        self.oracle.cut_is_done();
        Ok(())
    }

    /// One operation; see [`OPERATIONS`].
    fn operate(&mut self, letter: char) -> Result<(), String> {
        match letter {
            'a' => self.act(|run| run.append(SMALL)),
            'm' => self.act(|run| run.append(MEDIUM)),
            'l' => self.act(|run| run.append(LARGE)),
            's' => self.span(),
            'f' => self.act(Self::flush),
            'e' => self.act(Self::begin),
            'u' => self.act(Self::fence),
            'c' => {
                self.act(Self::shutdown)?;
                let trimmed = self.oracle.before(self.oracle.kept.base());
                let kept = self.oracle.records().len().div_ceil(2).max(trimmed + 1);
                self.act(|run| run.cut(kept))?;
                self.open_whole()
            }
            'd' => {
                self.die();
                let kept = self.oracle.durable();
                self.act(|run| run.cut(kept))?;
                self.open_whole()
            }
            'x' => {
                self.act(Self::shutdown)?;
                self.open_whole()
            }
            'k' => {
                self.die();
                self.open_whole()
            }
            'y' => self.fail(0, Self::flush),
            'z' => self.fail(0, Self::begin),
            // The header of a ready segment that the epoch takes.
            'v' => self.fail(3, Self::begin),
            't' => self.trim(),
            'o' => self.make_or_drop_slot(),
            'j' => self.move_slot(),
            'p' => self.mend_closed(),
            'r' => self.mend_open(),
            'b' => self.scrub(),
            other => Err(format!("{other} is no operation: {OPERATIONS}")),
        }
    }

    fn span(&mut self) -> Result<(), String> {
        let size = founding().segment_size;
        let base = size.base_of(self.wal()?.appended());
        while size.base_of(self.wal()?.appended()) == base {
            self.act(|run| run.append(SPANNING))?;
        }
        Ok(())
    }

    /// Does something while the sync fails that follows on `whole` others, and goes on after the
    /// death that must follow.
    fn fail(
        &mut self,
        whole: u32,
        act: impl FnOnce(&mut Self) -> Result<(), WalError>,
    ) -> Result<(), String> {
        self.disk.fail_sync_behind(whole);
        // It may fail, or need no sync at all.
        let _ = self.try_act(act);
        self.disk.fail_syncs(0);
        let again = self.try_act(Self::flush);
        if again.is_ok() && self.wal()?.poisoned().is_some() {
            return Err("a poisoned log flushes".to_owned());
        }
        self.die();
        self.open_whole()
    }
}

/// Runs a workload and returns the moments of its last operation; of its start, if it has none.
pub(super) fn moments(start: Start, operations: &str) -> Result<Vec<Moment>, String> {
    let mut run = Run::new(start, operations.is_empty())?;
    let last = operations.chars().count();
    for (at, letter) in operations.chars().enumerate() {
        if at + 1 == last {
            run.record();
        }
        run.operate(letter)?;
    }
    Ok(run.recorded.unwrap_or_default())
}
