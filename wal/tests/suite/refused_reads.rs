//! Any one call is refused to who reads, checks or repairs a log: he is told, or gets what is
//! right.

use std::path::Path;
use std::sync::Arc;

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{Digest, RecordKind};
use towline_wal::{Chunk, Level, SegmentCheck, Wal, WalError, read_log_on, repair, repair_from};

use crate::image::*;
use crate::meddled::MeddledDisk;
use crate::support::*;

const RECORDS: u64 = 1_200;

fn fill(wal: &Wal, records: std::ops::Range<u64>) {
    append_all(wal, records);
    wal.flush().unwrap();
}

/// A log that was closed, went on, and was killed then: what is newest is promised by its last
/// record alone.
fn killed_log() -> Image {
    let closed = Image::after(1, |_, wal| {
        begin(&wal, 1);
        fill(&wal, 0..800);
        begin(&wal, 2);
        fill(&wal, 800..1_000);
        wal.shutdown().unwrap();
    });
    let disk = closed.disk();
    let wal = open_on(&disk).unwrap().0;
    fill(&wal, 1_000..RECORDS - 1);
    append(&wal, &payload(RECORDS - 1));
    disk.writeback();
    wal.flush().unwrap();
    drop(wal);
    disk.kill();
    Image::of(&disk)
}

/// Where the records of some numbers lie.
fn places(image: &Image, numbers: &[u64]) -> Vec<Lsn> {
    let records = read_log_on(&image.disk(), dir()).unwrap().map(Result::unwrap);
    let records = records.filter(|record| record.header.kind == RecordKind::Data);
    let all: Vec<_> = records.map(|record| record.header.lsn).collect();
    numbers.iter().map(|&number| all[number as usize]).collect()
}

fn rotten(image: &Image, places: &[Lsn]) -> Image {
    places.iter().fold(image.clone(), |image, place| {
        let base = SegmentSize::MIN.base_of(*place);
        image.rotten(&format!("{:020}.wal", base.get()), place.distance_from(base) + 40)
    })
}

/// All that a log has in some segments.
fn chunks(wal: &Arc<Wal>, segments: &[Lsn]) -> Vec<Chunk> {
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    let all = std::iter::from_fn(|| cursor.next_chunk(10_000).unwrap());
    all.filter(|chunk| segments.contains(&chunk.segment.base)).collect()
}

fn is_whole(wal: &Arc<Wal>, digest: Digest) {
    assert!(contents(wal) == payloads(0..RECORDS), "{} records", contents(wal).len());
    assert_eq!(wal.digest(), digest);
    let damaged = wal.scrub(None).flat_map(|check| check.unwrap().damaged).count();
    assert_eq!(damaged, 0);
}

#[test]
fn a_repair_of_a_closed_log_is_refused_or_leaves_what_can_be_repaired() {
    let whole = killed_log();
    let peer = open_on(&whole.disk()).unwrap().0;
    let digest = peer.digest();
    // In the oldest segment, and in the newest one below and above what the control file says.
    let places = places(&whole, &[10, 990, 1_100]);
    let chunks =
        chunks(&peer, &places.iter().map(|it| SegmentSize::MIN.base_of(*it)).collect::<Vec<_>>());
    let errors = at_every_call(
        &rotten(&whole, &places),
        |disk, armed| {
            armed();
            repair(dir(), &chunks, &disk.options())
        },
        |disk, done| {
            let again = repair(dir(), &chunks, &options(disk)).unwrap();
            let records = done.as_ref().map_or(0, |done| done.records) + again.records;
            assert!(done.is_err() || records == 3, "{done:?}");
            is_whole(&open_on(disk).unwrap().0, digest);
        },
    );
    assert!(errors > 60, "{errors}");
}

#[test]
fn a_repair_from_a_folder_is_refused_or_leaves_what_can_be_repaired() {
    const PEER: &str = "/node/peer";
    let whole = killed_log();
    let digest = open_on(&whole.disk()).unwrap().0.digest();
    let places = places(&whole, &[10, 990, 1_100]);
    let damaged = rotten(&whole.clone().and_copied_to(Path::new(PEER)), &places);
    let errors = at_every_call(
        &damaged,
        |disk, armed| {
            armed();
            repair_from(dir(), Path::new(PEER), &disk.options())
        },
        |disk, _| {
            repair_from(dir(), Path::new(PEER), &options(disk)).unwrap();
            is_whole(&open_on(disk).unwrap().0, digest);
        },
    );
    assert!(errors > 60, "{errors}");
}

#[test]
fn a_repair_of_an_open_log_is_refused_or_done_and_the_log_reads_on() {
    let whole = killed_log();
    let peer = open_on(&whole.disk()).unwrap().0;
    let digest = peer.digest();
    let places = places(&whole, &[10, 500]);
    let chunks =
        chunks(&peer, &places.iter().map(|it| SegmentSize::MIN.base_of(*it)).collect::<Vec<_>>());
    let errors = at_every_call(
        &rotten(&whole, &places),
        |disk, armed| {
            let wal = Wal::open(dir(), disk.options())?.0;
            armed();
            let repaired = wal.repair(&chunks);
            if disk.has_happened() {
                wal.repair(&chunks).unwrap();
                is_whole(&wal, digest);
            }
            repaired
        },
        |disk, _| is_whole(&open_on(disk).unwrap().0, digest),
    );
    assert!(errors > 20, "{errors}");
}

#[test]
fn a_scrub_is_told_what_it_could_not_read_and_goes_on_behind_it() {
    let whole = killed_log();
    let all: Vec<SegmentCheck> =
        open_on(&whole.disk()).unwrap().0.scrub(None).map(Result::unwrap).collect();
    assert!(all.len() >= 3 && all.iter().all(|check| check.damaged.is_empty()));
    let errors = at_every_call(
        &whole,
        |disk, armed| {
            let wal = Wal::open(dir(), disk.options())?.0;
            armed();
            let (mut checks, mut refused) = (Vec::new(), Ok(()));
            for check in wal.scrub(None) {
                match check {
                    Ok(check) => checks.push(check),
                    Err(error) => refused = Err(error),
                }
            }
            assert_eq!(checks.len(), all.len() - usize::from(refused.is_err()));
            assert!(checks.iter().all(|check| all.contains(check)), "{checks:?}");
            refused
        },
        |disk, _| assert_eq!(contents(&open_on(disk).unwrap().0).len() as u64, RECORDS),
    );
    assert!(errors > 9, "{errors}");
}

#[test]
fn a_reader_is_told_and_never_takes_it_for_the_end() {
    let whole = killed_log();
    let errors = at_every_call(
        &whole,
        |disk, armed| {
            armed();
            let mut reader = read_log_on(disk, dir())?;
            let read = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
            assert!(reader.next().is_none(), "it ends once");
            let data = read.iter().filter(|record| record.header.kind == RecordKind::Data);
            assert_eq!(data.count() as u64, RECORDS);
            assert!(!reader.verdict().unwrap().is_corrupt());
            Ok(())
        },
        |_, _| {},
    );
    assert!(errors > 20, "{errors}");
}

#[test]
fn a_digest_and_a_cursor_are_refused_or_right() {
    let whole = killed_log();
    let wal = open_on(&whole.disk()).unwrap().0;
    let ends = places(&whole, &[20, 300, 600, 1_050]);
    let digests: Vec<_> = ends.iter().map(|end| wal.digest_at(*end).unwrap()).collect();
    let errors = at_every_call(
        &whole,
        |disk, armed| {
            let wal = Wal::open(dir(), disk.options())?.0;
            armed();
            for (end, digest) in ends.iter().zip(&digests) {
                assert_eq!(wal.digest_at(*end)?, *digest);
            }
            let mut cursor = wal.cursor(ends[0], Level::Flushed)?;
            let mut next = 20;
            while let Some(record) = cursor.next_record()? {
                if record.header.kind == RecordKind::Data {
                    assert_eq!(record.payload, payload(next));
                    next += 1;
                }
            }
            assert_eq!(next, RECORDS);
            Ok(())
        },
        |_, _| {},
    );
    assert!(errors > 20, "{errors}");
}

/// A bit rots, or the page cache forgets what the disk does not hold, while the log is opened: it
/// is met then or when it is read, and never taken for what was written.
#[test]
fn what_changes_on_the_disk_while_a_log_is_opened_is_met_by_a_checksum() {
    let torn = |seed| {
        Image::after(seed, |disk, wal| {
            begin(&wal, 1);
            fill(&wal, 0..500);
            append_all(&wal, 500..560);
            disk.writeback();
        })
    };
    let is_torn = |it: &Image| open_on(&it.disk()).unwrap().1.torn.is_some();
    let torn = (0..).map(torn).find(is_torn).unwrap();
    let unpromised = Image::after(1, |_, wal| {
        begin(&wal, 1);
        fill(&wal, 0..500);
        fill(&wal, 500..560);
    });
    let (mut refused, mut read) = (0, 0);
    for (image, records, number) in [
        (torn.clone(), 500, 480),
        (torn, 500, 20),
        (killed_log(), RECORDS, 1_150),
        (unpromised, 500, 530),
    ] {
        let place = places(&image, &[number])[0];
        let base = SegmentSize::MIN.base_of(place);
        for call in 0.. {
            let disk = image.disk();
            let meddled = MeddledDisk::new(&disk);
            let rots = disk.clone();
            meddled.after(call, move || {
                flip_on(&rots, base.get(), place.distance_from(base) + 40);
                Ok(())
            });
            let opened = Wal::open(dir(), meddled.options());
            let has_rotted = meddled.has_happened();
            match opened {
                Err(WalError::Corrupt { at, .. } | WalError::Record { at, .. }) => {
                    assert!(at <= place, "{at}");
                    refused += 1;
                }
                Err(error) => panic!("call {call}: {error:?}"),
                Ok((wal, _)) => {
                    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
                    let mut found = Vec::new();
                    let ended = loop {
                        match cursor.next_record() {
                            Ok(Some(it)) if it.header.kind == RecordKind::Data => {
                                found.push(it.payload.to_vec());
                            }
                            Ok(Some(_)) => {}
                            Ok(None) => break None,
                            Err(error) => break Some(error),
                        }
                    };
                    assert_eq!(found, payloads(0..found.len() as u64));
                    assert!(ended.is_some() || found.len() as u64 >= records, "call {call}");
                    read += 1;
                }
            }
            if !has_rotted {
                break;
            }
        }
    }
    assert!(refused > 20 && read > 20, "{refused} refused, {read} read");
}
