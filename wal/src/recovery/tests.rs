//! Power cuts: of everything written since the last sync, any subset of sectors is on the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

use towline_protocol::epoch::Epoch;
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::SegmentSize;

use super::*;
use crate::copies::found_on;
use crate::header::{HEADER_PAGE_LEN, SegmentHeader};
use crate::simulated::SimDisk;
use crate::support::{
    append, barrier, begin, contents, files, founded, founding, open, payload, payloads, restore,
};
use crate::wal::Wal;

const SECTOR: usize = 512;
const SEEDS: u64 = 300;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// xorshift64*: any sequence will do, as long as a seed gives it again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// What a disk may hold that held `synced`, while the page cache went on to `written`.
fn crash_image(synced: &Files, written: &Files, random: &mut Random) -> Files {
    let mut image = Files::new();
    let newest = random.below(4);
    for (path, new) in written {
        if path.extension().is_none_or(|extension| extension != "wal") {
            image.insert(path.clone(), new.clone());
            continue;
        }
        // A new segment is named once its header and its zeros are on the disk.
        let mut blank = new[..HEADER_PAGE_LEN].to_vec();
        blank.resize(new.len(), 0);
        let mut bytes = synced.get(path).unwrap_or(&blank).clone();
        bytes[..HEADER_PAGE_LEN].copy_from_slice(&new[..HEADER_PAGE_LEN]);
        for at in (HEADER_PAGE_LEN..new.len()).step_by(SECTOR) {
            if random.below(4) < newest {
                bytes[at..at + SECTOR].copy_from_slice(&new[at..at + SECTOR]);
            }
        }
        image.insert(path.clone(), bytes);
    }
    image
}

fn append_some(wal: &Wal, random: &mut Random, next: &mut u64, most: u64) {
    for _ in 0..random.below(most) {
        append(wal, &payload(*next));
        *next += 1;
    }
}

/// One life of a log: flushes some records, writes more, and loses power. Returns how many
/// records were flushed and how many were written.
fn live_and_crash(dir: &Path, epoch: u64, random: &mut Random, next: u64) -> (u64, u64) {
    let (wal, report) = open(dir).unwrap();
    assert_eq!(contents(&wal), payloads(0..next), "{report:?}");
    let mut next = next;
    if epoch == 1 || random.below(2) == 0 {
        wal.begin_epoch(&barrier(&wal, 2 * epoch)).unwrap();
    }
    append_some(&wal, random, &mut next, 300);
    wal.flush().unwrap();
    let flushed = next;
    // Nothing is synced from here on, though the syncer's thread would like to.
    let hold = wal.flushes.hold();
    let synced = files(dir);
    let tail = wal.size.base_of(wal.appended());
    append_some(&wal, random, &mut next, 250);
    // A second segment would be entered only after a sync.
    if random.below(3) == 0 && wal.size.base_of(wal.appended()) == tail {
        wal.begin_epoch(&barrier(&wal, 2 * epoch + 1)).unwrap();
        append_some(&wal, random, &mut next, 100);
    }
    let written = files(dir);
    drop(hold);
    drop(wal);
    restore(dir, &crash_image(&synced, &written, random));
    (flushed, next)
}

#[test]
fn no_power_cut_loses_what_was_flushed_or_makes_up_what_was_not() {
    let (mut cut, mut torn) = (0, 0);
    for seed in 1..=SEEDS {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (_folder, dir) = founded("a");
        let mut next = 0;
        for epoch in 1..=2 {
            let (flushed, written) = live_and_crash(&dir, epoch, &mut random, next);
            let (wal, report) = open(&dir).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let found = contents(&wal);
            next = found.len() as u64;
            assert!((flushed..=written).contains(&next), "seed {seed}: {next} of {flushed}");
            assert_eq!(found, payloads(0..next), "seed {seed}");
            cut += u64::from(next < written);
            torn += u64::from(report.torn.is_some());
        }
    }
    assert!(cut > SEEDS / 2 && torn > SEEDS / 2, "{cut} cut, {torn} torn: the test tests little");
}

#[test]
fn a_header_that_a_failed_sync_kept_from_the_disk_is_written_again() {
    for seed in 0..20 {
        let (sim, dir) = (SimDisk::new(seed), Path::new("/log"));
        found_on(&sim, dir, &founding("a")).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let options = || Options { disk: Arc::clone(&disk), threads: false, ..Options::default() };
        let open = || Wal::open(dir, options()).unwrap().0;
        let wal = open();
        begin(&wal, 1);
        append(&wal, &payload(0));
        wal.flush().unwrap();
        // It does not follow on this log, which is noticed with the segment for it ready.
        let wrong = Barrier { previous_end: Lsn::ZERO, ..barrier(&wal, 2) };
        assert!(wal.begin_epoch(&wrong).is_err());
        drop(wal);
        let path = dir.join(crate::segment::file_name(Lsn::new(SegmentSize::MIN.bytes())));
        let ready = Segment::open(&disk, &path, true).unwrap();
        let epoch = Epoch { number: 2, incarnation: Incarnation(1) };
        sim.fail_syncs(1);
        assert!(ready.with_header(SegmentHeader { epoch, nonce: 9, ..ready.header }).is_err());
        drop(ready);
        sim.kill();
        let wal = open();
        begin(&wal, 2);
        append(&wal, &payload(1));
        wal.flush().unwrap();
        drop(wal);
        sim.power_cut();
        assert_eq!(contents(&open()), payloads(0..2), "seed {seed}");
    }
}
