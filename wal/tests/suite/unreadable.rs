//! Files that are gone, cut short or rotten, where opening, reading or repairing needs them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_wal::{Level, Options, Wal, WalError, read_log, repair};

use crate::forged::Forged;
use crate::support::*;

const SIZE: u64 = SegmentSize::MIN.bytes();

/// A log without threads whose records are all in the page cache, as far as it knows.
fn written(epochs: u64) -> (TempDir, PathBuf, BTreeMap<PathBuf, Vec<u8>>) {
    let (folder, dir) = founded("a");
    let wal = Wal::open(&dir, Options { threads: false, ..Options::default() }).unwrap().0;
    for epoch in 1..=epochs {
        begin(&wal, epoch);
        append_all(&wal, 0..700);
    }
    drop(wal);
    let whole = files(&dir);
    (folder, dir, whole)
}

fn newest(dir: &Path) -> PathBuf {
    let all = files(dir).into_keys().filter(|path| path.extension().is_some_and(|it| it == "wal"));
    all.max().unwrap()
}

/// Opening is refused, and nothing is changed.
fn refused(dir: &Path) -> WalError {
    let before = files(dir);
    let error = open(dir).map(drop).unwrap_err();
    assert!(files(dir) == before, "something was changed: {error}");
    error
}

#[test]
fn a_trimmed_log_that_lost_all_of_its_files_is_not_an_empty_one() {
    let (_folder, dir, _) = written(1);
    let wal = opened(&dir);
    wal.flush().unwrap();
    let oldest = wal.trim(wal.appended()).unwrap().oldest.base;
    drop(wal);
    for path in files(&dir).keys().filter(|path| path.extension().is_some_and(|it| it == "wal")) {
        fs::remove_file(path).unwrap();
    }
    let error = refused(&dir);
    assert!(matches!(error, WalError::MissingSegment { base, .. } if base == oldest), "{error}");
    assert!(read_log(&dir).is_err());
}

/// Only a file that holds nothing is made anew under a damaged header.
#[test]
fn a_damaged_header_is_nobodys_loss_only_if_nothing_lies_behind_it() {
    let (_folder, dir, whole) = written(1);
    for base in [0, SIZE, 2 * SIZE] {
        flip(&segment(&dir, base), 40, 1);
        let error = refused(&dir);
        assert!(
            matches!(&error, WalError::Corrupt { path, .. } if *path == segment(&dir, base)),
            "{error}"
        );
        assert!(error.to_string().contains("its header"), "{error}");
        restore(&dir, &whole);
    }
    // One that was ready and was cut short may have held anything.
    let ready = newest(&dir);
    for len in [0, 100, 5_000] {
        fs::write(&ready, &whole[&ready][..len]).unwrap();
        let error = refused(&dir);
        let says = if len < 4_096 { "its header: cut short" } else { "5000 of 65536 bytes" };
        assert!(error.to_string().contains(says), "{error}");
    }
    restore(&dir, &whole);
    flip(&ready, 40, 1);
    let (wal, report) = open(&dir).unwrap();
    assert_eq!((report.discarded, contents(&wal)), (Some(ready), payloads(0..700)));
}

#[test]
fn a_damaged_seal_before_what_opening_reads_is_damage_below_a_promise() {
    let (_folder, dir) = founded("a");
    let wal = Wal::open(&dir, Options { threads: false, ..Options::default() }).unwrap().0;
    begin(&wal, 1);
    append_all(&wal, 0..1_400);
    wal.flush().unwrap();
    append(&wal, b"everything before it is on the disk");
    wal.shutdown().unwrap();
    drop(wal);
    let whole = files(&dir);
    let tail = SegmentSize::MIN.base_of(opened(&dir).appended()).get();
    for base in [tail - SIZE, tail - 2 * SIZE] {
        let mut file = Forged::open(&dir, base);
        let seal = *file.records().last().unwrap();
        assert_eq!(seal.kind, RecordKind::Seal);
        file.damage(&seal);
        file.save();
        match open(&dir) {
            Err(WalError::Corrupt { at, path, .. }) => {
                assert_eq!((at, path), (seal.lsn, segment(&dir, base)));
                assert_eq!(base, tail - SIZE, "opening reads no further back");
            }
            Ok((wal, _)) => {
                let damage: Vec<_> =
                    wal.scrub(None).flat_map(|check| check.unwrap().damaged).collect();
                assert_eq!((damage.len(), damage[0].from), (1, seal.lsn));
                assert_eq!(base, tail - 2 * SIZE);
            }
            Err(error) => panic!("{error}"),
        }
        restore(&dir, &whole);
    }
}

/// A reader opens the files one after another: it is told at the one that it can not read.
#[test]
fn a_reader_is_told_of_a_header_that_is_damaged_when_its_turn_comes() {
    let (_folder, dir, whole) = written(2);
    let bases = (0..).map(|number| number * SIZE).take_while(|base| segment(&dir, *base).exists());
    for base in bases.collect::<Vec<_>>() {
        flip(&segment(&dir, base), 40, 1);
        let mut reader = read_log(&dir).unwrap();
        let mut read = 0;
        let error = loop {
            match reader.next().unwrap() {
                Ok(record) => {
                    assert!(record.header.lsn.get() < base);
                    read += 1;
                }
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&error, WalError::Corrupt { path, .. } if *path == segment(&dir, base)),
            "{base}: {error}"
        );
        assert_eq!((reader.next().is_none(), base == 0), (true, read == 0), "it ends once");
        restore(&dir, &whole);
    }
}

#[test]
fn what_is_trimmed_is_not_repaired() {
    let (_folder, dir, _) = written(2);
    let wal = opened(&dir);
    wal.flush().unwrap();
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    let chunk = cursor.next_chunk(1 << 20).unwrap().unwrap();
    let oldest = wal.trim(wal.appended()).unwrap().oldest;
    let told = [wal.repair(std::slice::from_ref(&chunk)), {
        drop((cursor, wal));
        repair(&dir, std::slice::from_ref(&chunk), &Options::default())
    }];
    for told in told {
        assert!(
            matches!(told, Err(WalError::Lagged { at, oldest: it })
                if at == chunk.from && it == oldest.end),
            "{told:?}"
        );
    }
    assert!(opened(&dir).oldest() == oldest);
}
