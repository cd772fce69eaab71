//! A damaged log: a torn tail is cut and kept, a loss below a promise is refused and named, and
//! nothing in between is ever silent.

use std::fs;
use std::path::Path;

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_wal::{Level, Options, Wal, WalError, cut, read_control, read_log};

use crate::support::*;

/// A log whose flushed part ends at the returned Lsn, with `behind` records after it that only
/// the page cache holds, as far as the log knows.
fn log_with_tail(dir: &Path, flushed: u64, behind: u64) -> Lsn {
    let wal = opened(dir);
    begin(&wal, 1);
    for number in 0..flushed {
        append(&wal, &payload(number));
    }
    let end = wal.flush().unwrap();
    for number in flushed..flushed + behind {
        append(&wal, &payload(number));
    }
    end
}

#[test]
fn a_torn_tail_is_set_aside_and_the_log_goes_on() {
    let (_folder, dir) = founded("a");
    let end = log_with_tail(&dir, 20, 1);
    // The last record's sectors did not arrive.
    flip(&segment(&dir, 0), end.get() + 40, 0x10);
    let (wal, report) = open(&dir).unwrap();
    assert_eq!((wal.appended(), report.end), (end, end));
    assert_eq!(report.torn.as_ref().unwrap().0, end);
    let kept = files(report.bundle.as_ref().unwrap());
    assert!(kept.keys().any(|path| path.ends_with(format!("{:020}.wal", 0))));
    assert_eq!(contents(&wal), payloads(0..20));
    append(&wal, &payload(20));
    wal.flush().unwrap();
    drop(wal);
    let (wal, report) = open(&dir).unwrap();
    assert!(report.torn.is_none(), "a cut is done once");
    assert_eq!(contents(&wal), payloads(0..21));
}

#[test]
fn damage_below_a_promise_is_refused_and_nothing_is_changed() {
    let (_folder, dir) = founded("a");
    let end = log_with_tail(&dir, 20, 0);
    let wal = opened(&dir);
    append(&wal, b"promises what is before it");
    drop(wal);
    for offset in [4_096 + 2, 4_096 + 40, end.get() - 20] {
        let whole = files(&dir);
        flip(&segment(&dir, 0), offset, 1);
        let damaged = files(&dir);
        match open(&dir) {
            Err(WalError::Corrupt { path, at, evidence, .. }) => {
                assert_eq!((path, evidence), (segment(&dir, 0), end));
                assert!(at.get() <= offset && at < end);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(files(&dir), damaged, "nothing was changed");
        let mut reader = read_log(&dir).unwrap();
        assert!(reader.by_ref().all(|record| record.is_ok()));
        assert!(reader.verdict().unwrap().is_corrupt());
        restore(&dir, &whole);
    }
    assert_eq!(contents(&opened(&dir)).len(), 21);
}

#[test]
fn every_flipped_bit_is_noticed_or_harmless() {
    let (_folder, dir) = founded("a");
    let promised = log_with_tail(&dir, 250, 0);
    let wal = opened(&dir);
    for number in 250..260 {
        append(&wal, &payload(number));
    }
    wal.flush().unwrap();
    drop(wal);
    let whole = files(&dir);
    let (all, mut harmless, mut torn, mut refused) = (payloads(0..260), 0, 0, 0);
    let names: Vec<_> = whole.keys().filter(|path| path.extension().is_some()).collect();
    for path in names.into_iter().filter(|path| path.to_string_lossy().ends_with(".wal")) {
        let base: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let places = (0..128).step_by(5).chain((4_096..65_536).step_by(211));
        for (turn, offset) in places.enumerate() {
            flip(path, offset, 1 << (turn % 8));
            let at = Lsn::new(base + offset);
            match open(&dir) {
                Ok((wal, report)) => {
                    let found = contents(&wal);
                    assert_eq!(found[..], all[..found.len()], "flip at {at}");
                    if report.torn.is_some() {
                        assert!(at >= promised, "{at} is below {promised}: no torn tail");
                        torn += 1;
                    } else {
                        assert_eq!(found.len(), all.len(), "a silent loss by a flip at {at}");
                        harmless += 1;
                    }
                }
                Err(
                    WalError::Corrupt { .. }
                    | WalError::Foreign { .. }
                    | WalError::NewerVersion { .. }
                    | WalError::MissingSegment { .. },
                ) => {
                    refused += 1;
                    let now = files(&dir);
                    let changed = |path: &&std::path::PathBuf| {
                        path.to_string_lossy().ends_with(".wal")
                            && now.get(*path) != whole.get(*path)
                    };
                    assert_eq!(whole.keys().filter(changed).count(), 1, "only the flip itself");
                }
                Err(other) => panic!("flip at {at}: {other:?}"),
            }
            restore(&dir, &whole);
        }
    }
    assert!(harmless > 0 && torn > 0 && refused > 0, "{harmless} {torn} {refused}");
}

#[test]
fn damage_in_a_cold_segment_is_an_error_of_the_reader() {
    let (_folder, dir) = founded("a");
    log_with_tail(&dir, 1_500, 0);
    opened(&dir).shutdown().unwrap();
    flip(&segment(&dir, 0), 10_000, 1);
    let wal = opened(&dir);
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    let error = loop {
        match cursor.next_record() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("read over the damage"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WalError::Corrupt { .. }));
}

#[test]
fn a_damaged_header_in_a_cold_segment_is_not_taken_for_its_end() {
    let (_folder, dir) = founded("a");
    log_with_tail(&dir, 1_500, 0);
    let wal = opened(&dir);
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    let lsns: Vec<_> =
        (0..100).map(|_| cursor.next_record().unwrap().unwrap().header.lsn).collect();
    wal.shutdown().unwrap();
    drop((cursor, wal));
    let whole = files(&dir);
    for lsn in [lsns[1], lsns[50], lsns[99]] {
        flip(&segment(&dir, 0), lsn.get() + 9, 1);
        let wal = opened(&dir);
        let mut by_record = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
        let error = loop {
            match by_record.next_record() {
                Ok(Some(record)) => assert!(record.header.lsn < lsn, "it skips {lsn}"),
                Ok(None) => panic!("read over the damage at {lsn}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, WalError::Corrupt { at, .. } if at == lsn), "{error}");
        let mut by_chunk = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
        while let Ok(Some(chunk)) = by_chunk.next_chunk(1 << 20) {
            assert!(chunk.end <= lsn, "it skips {lsn}");
        }
        drop((by_record, by_chunk, wal));
        restore(&dir, &whole);
    }
}

#[test]
fn stale_bytes_of_another_life_of_a_file_never_come_back() {
    let (_folder, dir) = founded("a");
    let end = log_with_tail(&dir, 20, 30);
    let stale = fs::read(segment(&dir, 0)).unwrap();
    cut(&dir, end, &Options::default()).unwrap();
    // What lay there before lies there again, byte for byte.
    let mut bytes = fs::read(segment(&dir, 0)).unwrap();
    let from = end.get() as usize;
    bytes[from..].copy_from_slice(&stale[from..]);
    fs::write(segment(&dir, 0), bytes).unwrap();
    let wal = opened(&dir);
    assert_eq!((wal.appended(), contents(&wal)), (end, payloads(0..20)));
}

#[test]
fn files_that_do_not_belong_are_named() {
    let (_folder, dir) = founded("a");
    log_with_tail(&dir, 900, 0);
    let whole = files(&dir);
    let (zero, one, two) = (segment(&dir, 0), segment(&dir, 65_536), segment(&dir, 131_072));
    assert!(two.exists());
    fs::remove_file(&one).unwrap();
    assert!(
        matches!(open(&dir), Err(WalError::MissingSegment { base, .. }) if base.get() == 65_536)
    );
    restore(&dir, &whole);
    fs::remove_file(&zero).unwrap();
    assert!(matches!(open(&dir), Err(WalError::MissingSegment { .. })));
    restore(&dir, &whole);
    let (a, b) = (fs::read(&zero).unwrap(), fs::read(&one).unwrap());
    fs::write(&zero, &b).unwrap();
    fs::write(&one, &a).unwrap();
    assert!(matches!(open(&dir), Err(WalError::Foreign { .. })), "swapped");
    fs::write(&zero, &a).unwrap();
    assert!(matches!(open(&dir), Err(WalError::Foreign { .. })), "duplicated");
    restore(&dir, &whole);
    let mut newer = a.clone();
    newer[8] += 1;
    fs::write(&zero, &newer).unwrap();
    assert!(matches!(open(&dir), Err(WalError::Corrupt { .. })), "rot is no reason to upgrade");
    let crc = crc32fast::hash(&newer[..74]);
    newer[74..78].copy_from_slice(&crc.to_le_bytes());
    fs::write(&zero, newer).unwrap();
    assert!(matches!(open(&dir), Err(WalError::NewerVersion { .. })));
    restore(&dir, &whole);
    let stranger = folder();
    let mut founding = founding("b");
    founding.log.0 += 1;
    towline_wal::found(&stranger.path().join("log"), &founding).unwrap();
    log_with_tail(&stranger.path().join("log"), 900, 0);
    fs::copy(segment(&stranger.path().join("log"), 65_536), &one).unwrap();
    assert!(matches!(open(&dir), Err(WalError::Foreign { .. })), "another log's");
}

#[test]
fn one_damaged_control_copy_is_healed_and_two_are_an_error() {
    let (_folder, dir) = founded("a");
    log_with_tail(&dir, 5, 0);
    let whole = files(&dir);
    for copy in ["control.0", "control.1"] {
        flip(&dir.join(copy), 30, 4);
        drop(opened(&dir));
        let (zero, one) = (fs::read(dir.join("control.0")), fs::read(dir.join("control.1")));
        assert_eq!(zero.unwrap(), one.unwrap(), "healed");
        fs::remove_file(dir.join(copy)).unwrap();
        drop(opened(&dir));
        assert!(dir.join(copy).exists());
        restore(&dir, &whole);
    }
    flip(&dir.join("control.0"), 30, 4);
    flip(&dir.join("control.1"), 31, 4);
    let damaged = files(&dir);
    assert!(matches!(open(&dir), Err(WalError::Control { .. })));
    assert!(matches!(read_control(&dir), Err(WalError::Control { .. })));
    assert_eq!(files(&dir), damaged);
}

#[test]
fn a_log_that_lost_its_newest_segments_is_refused_by_its_control_file() {
    let (_folder, dir) = founded("a");
    log_with_tail(&dir, 900, 0);
    opened(&dir).shutdown().unwrap();
    let last = files(&dir).into_keys().filter(|path| path.to_string_lossy().ends_with(".wal"));
    for path in last.skip(1) {
        fs::remove_file(path).unwrap();
    }
    assert!(matches!(open(&dir), Err(WalError::MissingSegment { .. } | WalError::Corrupt { .. })));
}

#[test]
fn a_ready_segment_is_taken_again_and_leftovers_do_no_harm() {
    let (_folder, dir) = founded("a");
    for turn in 1..6 {
        let wal = opened(&dir);
        begin(&wal, turn);
        append(&wal, b"x");
        wal.flush().unwrap();
        drop(wal);
        fs::write(dir.join("segment.new"), b"half").unwrap();
        fs::write(dir.join("cut.new"), b"half").unwrap();
        fs::write(dir.join("control.0.new"), b"half").unwrap();
    }
    assert_eq!(contents(&opened(&dir)).len(), 5);
    let _ = Wal::open(&dir, Options::default());
    assert_eq!(SegmentSize::MIN.base_of(opened(&dir).appended()).get(), 4 * 65_536);
}

/// A damaged record was skipped over as if the log ended there, and the boundary behind it called
/// none.
#[test]
fn damage_before_a_boundary_is_named_and_nothing_is_cut() {
    let (_folder, dir) = founded("a");
    let end = log_with_tail(&dir, 20, 5);
    flip(&segment(&dir, 0), 4_096 + 400, 1);
    let whole = files(&dir);
    let refused = cut(&dir, end, &Options::default());
    assert!(matches!(refused, Err(WalError::Record { at, .. }) if at < end), "{refused:?}");
    let inside = cut(&dir, Lsn::new(end.get() - 16), &Options::default());
    assert!(inside.is_err(), "{inside:?}");
    assert_eq!(files(&dir), whole);
}

/// A damaged SEAL made every place of the segment behind it no boundary: whoever named one was
/// taken for a liar.
#[test]
fn a_damaged_seal_is_not_the_fault_of_who_asks_for_a_digest_behind_it() {
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    let ends = (0..40).map(|_| {
        append(&wal, &[7; 9_000]);
        // So that the newest segments say that the oldest are durable, and opening leaves them.
        wal.flush().unwrap()
    });
    let ends: Vec<_> = ends.collect();
    let asked = ends.into_iter().find(|end| SegmentSize::MIN.base_of(*end).get() == 65_536);
    drop(wal);
    let mut all = read_log(&dir).unwrap().map(Result::unwrap);
    let seal = all.find(|record| record.header.kind == RecordKind::Seal).unwrap();
    flip(&segment(&dir, 0), seal.header.lsn.get() + 3, 1);
    let wal = opened(&dir);
    let refused = wal.digest_at(asked.unwrap());
    assert!(
        matches!(&refused, Err(WalError::Corrupt { path, .. }) if *path == segment(&dir, 0)),
        "{refused:?}"
    );
}
