//! Logs without threads on disks that fail: whatever happens, what was flushed is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{
    Level, Options, Report, Wal, WalError, cut, found_on, read_control_on, read_log_on,
};

use crate::support::*;

const DIR: &str = "/node/log";
const SEEDS: u64 = 400;

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn founded_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    found_on(&disk, dir(), &founding("a")).unwrap();
    disk
}

fn options(disk: &SimDisk) -> Options {
    Options { disk: Arc::new(disk.clone()), threads: false, ..Options::default() }
}

fn open_on(disk: &SimDisk) -> Result<(Arc<Wal>, Report), WalError> {
    Wal::open(dir(), options(disk))
}

/// The log of that disk, with a hundred records that are flushed.
fn a_hundred_flushed(disk: &SimDisk) -> Arc<Wal> {
    let wal = opened_on(disk);
    begin(&wal, 1);
    for number in 0..100 {
        append(&wal, &payload(number));
    }
    wal.flush().unwrap();
    wal
}

fn opened_on(disk: &SimDisk) -> Arc<Wal> {
    open_on(disk).unwrap().0
}

/// xorshift64*: any sequence will do, as long as a seed gives it again.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// A log, and what is known of it from outside.
struct Life {
    disk: SimDisk,
    random: Random,
    epoch: u64,
    fence: u64,
    /// The ends of the records, the beginning first.
    ends: Vec<Lsn>,
    /// So many records are flushed.
    flushed: usize,
}

impl Life {
    fn new(seed: u64) -> Self {
        let random = Random::new(seed);
        Self {
            disk: founded_disk(seed),
            random,
            epoch: 0,
            fence: 0,
            ends: vec![Lsn::ZERO],
            flushed: 0,
        }
    }

    fn written(&self) -> usize {
        self.ends.len() - 1
    }

    fn begin(&mut self, wal: &Wal) -> Result<(), WalError> {
        self.epoch += 1;
        wal.begin_epoch(&barrier(wal, self.epoch)).map(drop)
    }

    fn step(&mut self, wal: &Wal) -> Result<(), WalError> {
        match self.random.below(8) {
            0 => {
                wal.flush()?;
                self.flushed = self.written();
            }
            1 => self.disk.writeback(),
            2 if self.random.below(3) == 0 => self.begin(wal)?,
            3 => {
                let fence = self.fence + 1;
                let epoch = barrier(wal, fence).epoch;
                wal.update_control(|control| control.fence = epoch.max(control.fence))?;
                self.fence = fence;
            }
            _ => {
                for _ in 0..self.random.below(120) {
                    let payload = payload(self.written() as u64);
                    let appended = wal.append(RecordKind::Data, 0, &payload)?;
                    self.ends.push(appended.end);
                }
            }
        }
        Ok(())
    }

    /// Works on the log until the process dies or has done enough.
    fn work(&mut self) -> Result<(), WalError> {
        let wal = open_on(&self.disk)?.0;
        if wal.last_epoch().number == 0 {
            self.begin(&wal)?;
        }
        for _ in 0..self.random.below(10) {
            self.step(&wal)?;
        }
        if self.random.below(4) == 0 {
            wal.shutdown()?;
            self.flushed = self.written();
            drop(wal);
            self.cut()?;
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<(), WalError> {
        let to = self.random.below(self.ends.len() as u64) as usize;
        // From here on the cut may happen, and it has once the call is back.
        self.flushed = to;
        cut(dir(), self.ends[to], &options(&self.disk))?;
        self.ends.truncate(to + 1);
        Ok(())
    }

    /// Opens the log after whatever end its last life came to, and checks what is in it.
    fn check(&mut self, seed: u64, lossless: bool) {
        let (wal, report) = open_on(&self.disk)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}, flushed {}", self.flushed));
        let found = contents(&wal);
        let least = if lossless { self.written() } else { self.flushed };
        assert!(
            (least..=self.written()).contains(&found.len()),
            "seed {seed}: {} records of {least} to {}, {report:?}",
            found.len(),
            self.written()
        );
        assert_eq!(found, payloads(0..found.len() as u64), "seed {seed}");
        assert!(wal.control().fence.number >= self.fence, "seed {seed}: the fence fell");
        self.ends.truncate(found.len() + 1);
        // What opening has found is durable.
        self.flushed = found.len();
    }
}

/// One disk's story: lives that end in every way there is.
fn live(seed: u64) -> Life {
    let mut life = Life::new(seed);
    for _ in 0..4 {
        let dies = life.random.below(2) == 0;
        if dies {
            life.disk.die_after(life.random.below(60));
        }
        let worked = life.work();
        assert_eq!(worked.is_err(), life.disk.is_dead(), "seed {seed}: {worked:?}");
        let lossless = life.random.below(3) == 0;
        if lossless {
            life.disk.kill();
        } else {
            life.disk.power_cut();
        }
        life.check(seed, lossless && worked.is_ok());
    }
    life
}

#[test]
fn nothing_flushed_is_lost_however_a_life_ends() {
    for seed in 0..SEEDS {
        live(seed);
    }
}

#[test]
fn a_seed_tells_the_whole_story() {
    for seed in 0..10 {
        let (one, two) = (live(seed), live(seed));
        assert_eq!(one.ends, two.ends);
        assert!(one.disk.files() == two.disk.files(), "seed {seed} tells two stories");
    }
    assert!(live(1).disk.files() != live(2).disk.files(), "all seeds tell the same story");
}

/// Whether a salvaged file, that a power cut would leave, holds these bytes.
fn is_salvaged(disk: &SimDisk, bytes: &[u8]) -> bool {
    let salvaged = |(path, content): (PathBuf, Vec<u8>)| {
        path.starts_with(dir().join("salvage"))
            && content.windows(bytes.len()).any(|window| window == bytes)
    };
    disk.files().into_iter().any(salvaged)
}

#[test]
fn a_cut_that_loses_power_anywhere_is_whole_or_not_done_and_keeps_what_it_took_off() {
    let mut finished = 0;
    for (seed, calls) in
        (0..8).flat_map(|turn| (0..30).map(move |calls| (turn * 500 + calls, calls)))
    {
        let disk = founded_disk(seed);
        let wal = opened_on(&disk);
        begin(&wal, 1);
        let ends: Vec<_> = (0..500).map(|number| append(&wal, &payload(number)).end).collect();
        wal.shutdown().unwrap();
        drop(wal);
        disk.die_after(calls);
        let done = cut(dir(), ends[99], &options(&disk));
        disk.power_cut();
        let mut reader = read_log_on(&disk, dir()).unwrap();
        let read = reader.by_ref().map(Result::unwrap);
        let read = read.filter(|record| record.header.kind == RecordKind::Data).count();
        assert!(!reader.verdict().unwrap().is_corrupt(), "seed {seed}");
        let found = contents(&opened_on(&disk));
        assert_eq!(read, found.len(), "seed {seed}: reading shows what opening does");
        if found.len() == 500 {
            assert!(done.is_err(), "seed {seed}: a cut that was done is undone");
        } else {
            assert_eq!(found, payloads(0..100), "seed {seed}");
            for number in [100, 499] {
                assert!(is_salvaged(&disk, &payload(number)), "seed {seed}: {number} is gone");
            }
        }
        finished += u64::from(done.is_ok());
    }
    assert!((20..200).contains(&finished), "{finished} cuts were finished");
}

#[test]
fn a_killed_process_loses_nothing_it_appended() {
    for seed in 0..50 {
        let disk = founded_disk(seed);
        let wal = opened_on(&disk);
        begin(&wal, 1);
        for number in 0..500 {
            append(&wal, &payload(number));
        }
        disk.kill();
        // The dead process writes on, and nobody sees it.
        let _ = wal.append(RecordKind::Data, 0, b"from the grave");
        assert_eq!(contents(&opened_on(&disk)), payloads(0..500));
        assert!(wal.flush().is_err());
        drop(wal);
        assert_eq!(contents(&opened_on(&disk)), payloads(0..500));
    }
}

/// A name that a dead process gave and did not sync is only in the page cache: whoever opens the
/// log next finds the file and would flush into it.
#[test]
fn what_is_flushed_after_a_death_anywhere_outlives_a_power_cut() {
    for (seed, calls) in (0..60).flat_map(|calls| [(calls, calls), (calls + 500, calls)]) {
        let disk = founded_disk(seed);
        let wal = opened_on(&disk);
        begin(&wal, 1);
        disk.die_after(calls);
        let mut appended = 0;
        while appended < 3_000 && wal.append(RecordKind::Data, 0, &payload(appended)).is_ok() {
            appended += 1;
        }
        disk.kill();
        drop(wal);
        let wal = opened_on(&disk);
        for number in appended..appended + 20 {
            append(&wal, &payload(number));
        }
        wal.flush().unwrap();
        disk.power_cut();
        drop(wal);
        let found = contents(&opened_on(&disk));
        assert_eq!(found.len() as u64, appended + 20, "seed {seed}");
        assert!(found == payloads(0..appended + 20), "seed {seed}");
    }
}

#[test]
fn a_replica_that_loses_power_takes_the_rest_again() {
    for seed in 0..SEEDS / 4 {
        let mut random = Random::new(seed);
        let (from, to) = (founded_disk(seed), founded_disk(seed + SEEDS));
        let primary = opened_on(&from);
        let mut replica = opened_on(&to);
        let mut flushed = Lsn::ZERO;
        let mut next = 0;
        for epoch in 1..=3 {
            begin(&primary, epoch);
            for _ in 0..random.below(500) {
                append(&primary, &payload(next));
                next += 1;
            }
            primary.flush().unwrap();
            let mut cursor = primary.cursor(replica.appended(), Level::Flushed).unwrap();
            while let Some(chunk) = cursor.next_chunk(2_000).unwrap() {
                let end = replica.receive(chunk.segment, chunk.from, &chunk.bytes).unwrap();
                match random.below(8) {
                    0 => flushed = replica.flush().unwrap(),
                    1 => to.writeback(),
                    2 => {
                        to.power_cut();
                        drop(replica);
                        replica = opened_on(&to);
                        assert!(replica.appended() >= flushed && replica.appended() <= end);
                        let digest = primary.digest_at(replica.appended()).unwrap();
                        assert_eq!(replica.digest(), digest, "seed {seed}");
                        cursor = primary.cursor(replica.appended(), Level::Flushed).unwrap();
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(replica.flush().unwrap(), primary.flushed());
        assert_eq!((replica.digest(), replica.history()), (primary.digest(), primary.history()));
        assert_eq!(contents(&replica), payloads(0..next));
    }
}

#[test]
fn a_failed_sync_poisons_and_what_the_log_then_opens_with_is_durable() {
    let mut kept = 0;
    for seed in 0..SEEDS / 4 {
        let disk = founded_disk(seed);
        let wal = a_hundred_flushed(&disk);
        for number in 100..500 {
            append(&wal, &payload(number));
        }
        disk.fail_syncs(1);
        assert!(matches!(wal.flush(), Err(WalError::Poisoned(_))));
        assert!(matches!(wal.flush(), Err(WalError::Poisoned(_))), "a later sync was believed");
        assert!(matches!(wal.append(RecordKind::Data, 0, b""), Err(WalError::Poisoned(_))));
        drop(wal);
        if seed % 2 == 0 {
            disk.kill();
        } else {
            disk.power_cut();
        }
        let found = contents(&opened_on(&disk));
        assert!(found.len() >= 100, "seed {seed}: {}", found.len());
        kept += usize::from(found.len() > 100);
        // The kernel takes for written what is not; the log said on opening that it is durable.
        disk.power_cut();
        assert_eq!(contents(&opened_on(&disk)), found, "seed {seed}");
        assert_eq!(found, payloads(0..found.len() as u64));
    }
    assert!(kept >= 50, "only {kept} logs held more than was flushed");
}

#[test]
fn a_full_disk_is_told_at_once_and_the_log_goes_on_when_there_is_room() {
    let disk = founded_disk(1);
    let wal = opened_on(&disk);
    begin(&wal, 1);
    disk.set_full(true);
    let mut next = 0;
    let refused = loop {
        match wal.append(RecordKind::Data, 0, &payload(next)) {
            Ok(_) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, WalError::NoSpace(_)), "{refused}");
    // The last ready segment is the next epoch's; the one after has none.
    begin(&wal, 2);
    append(&wal, &payload(next));
    next += 1;
    let refused = wal.begin_epoch(&barrier(&wal, 3));
    assert!(matches!(refused, Err(WalError::NoSpace(_))), "{refused:?}");
    wal.update_control(|control| control.role = towline_wal::Role::Replica).unwrap();
    wal.flush().unwrap();
    disk.set_full(false);
    for number in next..next + 500 {
        append(&wal, &payload(number));
    }
    begin(&wal, 3);
    wal.flush().unwrap();
    disk.power_cut();
    assert_eq!(contents(&opened_on(&disk)), payloads(0..next + 500));
}

#[test]
fn a_wiped_disk_holds_no_log() {
    let disk = founded_disk(1);
    drop(opened_on(&disk));
    disk.wipe();
    assert!(matches!(open_on(&disk), Err(WalError::NotFounded(_))));
    assert!(matches!(read_control_on(&disk, dir()), Err(WalError::NotFounded(_))));
    found_on(&disk, dir(), &founding("a")).unwrap();
    disk.power_cut();
    drop(opened_on(&disk));
}

#[test]
fn rot_below_what_was_promised_is_corruption_and_never_a_shorter_log() {
    let mut corrupt = 0;
    for seed in 0..SEEDS / 2 {
        let disk = founded_disk(seed);
        let wal = a_hundred_flushed(&disk);
        wal.shutdown().unwrap();
        drop(wal);
        let (path, offset) = disk.rot("00000.wal", seed).unwrap();
        match open_on(&disk) {
            Err(WalError::Corrupt { .. }) => corrupt += 1,
            // The bit lay in the segment's header.
            Err(WalError::Foreign { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
            // A byte that no checksum needs to cover: padding.
            Ok((wal, _)) => {
                assert_eq!(contents(&wal), payloads(0..100), "{} at {offset}", path.display());
            }
        }
    }
    assert!(corrupt > SEEDS / 4, "only {corrupt} were noticed");
}

#[test]
fn a_second_opener_is_told_so_until_the_first_one_is_dead() {
    let disk = founded_disk(1);
    let first = opened_on(&disk);
    assert!(matches!(open_on(&disk), Err(WalError::Locked(_))));
    disk.kill();
    let second = opened_on(&disk);
    // The dead one can not let go of what is no longer its own.
    drop(first);
    assert!(matches!(open_on(&disk), Err(WalError::Locked(_))));
    drop(second);
    drop(opened_on(&disk));
}

#[test]
fn a_founding_that_lost_power_anywhere_is_done_or_can_be_done_again() {
    let mut again = 0;
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        disk.die_after(seed % 9);
        let done = found_on(&disk, dir(), &founding("a"));
        disk.power_cut();
        if let Err(error) = open_on(&disk) {
            assert!(done.is_err() && matches!(error, WalError::NotFounded(_)), "{seed}: {error}");
            disk.kill();
            found_on(&disk, dir(), &founding("a"))
                .unwrap_or_else(|error| panic!("{seed}: {error}"));
            again += 1;
        }
        disk.kill();
        assert_eq!(opened_on(&disk).appended(), Lsn::ZERO);
    }
    assert!((1..SEEDS).contains(&again), "{again} were founded again");
}
