//! Where a log ends that was not closed: tails as no process writes them, and as a crash leaves
//! them.

use towline_protocol::epoch::Epoch;
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;
use towline_wal::WalError;

use crate::forge::{EPOCH, Forged, HEADER_LEN, Log};

/// How many records the log holds before its tail.
const RECORDS: usize = 20;
const PAGE_LEN: usize = 4_096;

/// A log whose process died, with these bytes behind its last record.
fn with_tail(seed: u64, tail: impl Fn(Forged, &Log) -> Vec<u8>) -> (Log, Lsn) {
    let log = Log::of(seed, RECORDS);
    log.kill();
    let (wal, report) = log.open().unwrap();
    assert_eq!((report.torn, wal.appended()), (None, report.end), "the log ends cleanly");
    drop(wal);
    log.kill();
    log.overwrite(0, report.end.get() as usize, &tail(log.forged(report.end), &log));
    (log, report.end)
}

/// The tail is cut off for this reason and kept aside; the log holds its own records, takes more
/// where the tail was, and the tail does not come back.
fn is_torn(why: &str, tail: impl Fn(Forged, &Log) -> Vec<u8>) {
    for seed in 0..4 {
        let (mut log, end) = with_tail(seed, &tail);
        let bytes = tail(log.forged(end), &log);
        let (wal, report) = log.open().unwrap();
        let (at, said) = report.torn.expect("the tail is noticed");
        assert!(said.contains(why), "{said}");
        assert_eq!((at, wal.appended()), (end, end));
        assert!(log.holds_its_own(&wal));
        let bundle = report.bundle.expect("what is cut is kept");
        let kept = |content: &[u8]| content.windows(bytes.len()).any(|window| window == bytes);
        let files = log.disk.files();
        let mut files = files.iter().filter(|(path, _)| path.starts_with(&bundle));
        assert!(files.any(|(_, content)| kept(content)), "the bundle holds the tail");

        log.append(&wal, 2);
        drop(wal);
        log.disk.power_cut();
        let (wal, report) = log.open().unwrap();
        assert_eq!(report.torn, None);
        assert!(log.holds_its_own(&wal), "what was cut does not come back");
    }
}

/// Without this the tests below would prove nothing: what they forge is good but for one thing.
#[test]
fn a_forged_record_with_nothing_wrong_is_a_record() {
    let (log, end) = with_tail(1, |good, _| good.bytes());
    let (wal, report) = log.open().unwrap();
    assert_eq!(report.torn, None);
    assert!(wal.appended() > end);
    assert_eq!(Log::contents(&wal)[RECORDS], log.forged(end).payload);
}

#[test]
fn a_log_with_nothing_but_zeros_behind_it_goes_on_in_place() {
    let (mut log, end) = with_tail(1, |_, _| vec![0; 500]);
    let (wal, report) = log.open().unwrap();
    assert_eq!((report.torn, report.bundle, wal.appended()), (None, None, end));
    log.append(&wal, 2);
    assert!(log.holds_its_own(&wal));
}

#[test]
fn a_log_with_a_forged_tail_of_no_length_is_cut_there() {
    is_torn("it belongs at 0", |good, _| {
        let mut bytes = good.bytes();
        bytes[..HEADER_LEN].fill(0);
        bytes
    });
}

#[test]
fn a_log_with_a_forged_tail_of_a_length_over_the_limit_is_cut_there() {
    is_torn("over the limit", |good, _| Forged { len: Some(u32::MAX), ..good }.bytes());
}

#[test]
fn a_log_with_a_forged_tail_that_is_longer_than_its_segment_is_cut_there() {
    is_torn("cut short", |good, _| Forged { len: Some(65_536), ..good }.bytes());
}

#[test]
fn a_log_with_a_forged_tail_that_is_shorter_than_it_says_is_cut_there() {
    is_torn("payload's checksum", |good, _| Forged { len: Some(208), ..good }.bytes());
}

#[test]
fn a_log_with_a_forged_tail_of_another_place_is_cut_there() {
    is_torn("belongs at 4096", |_, log| log.bytes(0)[4_096..4_400].to_vec());
}

#[test]
fn a_log_with_a_forged_tail_of_a_bad_header_checksum_is_cut_there() {
    is_torn("header's checksum", |good, _| {
        let mut bytes = good.bytes();
        bytes[0] ^= 1;
        bytes
    });
}

#[test]
fn a_log_with_a_forged_tail_of_a_bad_payload_is_cut_there() {
    is_torn("payload's checksum", |good, _| {
        let mut bytes = good.bytes();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    });
}

#[test]
fn a_log_with_a_forged_tail_of_half_a_header_is_cut_there() {
    for len in [16, 24, 31] {
        is_torn("checksum", |good, _| good.bytes()[..len].to_vec());
    }
}

#[test]
fn a_log_with_a_forged_tail_of_an_unknown_kind_is_cut_there() {
    is_torn("kind 77 is unknown", |good, _| Forged { kind: 77, ..good }.bytes());
}

#[test]
fn a_log_with_a_forged_tail_of_a_recycled_file_is_cut_there() {
    is_torn("header's checksum", |good, _| Forged { nonce: good.nonce ^ 1, ..good }.bytes());
    is_torn("header's checksum", |good, _| Forged { base: 65_536, ..good }.bytes());
}

#[test]
fn a_log_with_a_forged_tail_of_another_epoch_is_cut_there() {
    let other =
        [Epoch { number: 2, ..EPOCH }, Epoch { incarnation: Incarnation(2), ..EPOCH }, Epoch::NONE];
    for epoch in other {
        is_torn("header's checksum", |good, _| Forged { epoch, ..good }.bytes());
    }
}

#[test]
fn a_log_with_a_forged_tail_that_promises_itself_is_cut_there() {
    is_torn("behind itself", |good, _| Forged { promise: good.lsn + 16, ..good }.bytes());
}

#[test]
fn a_log_with_a_forged_seal_is_cut_there() {
    let kind = RecordKind::Seal as u8;
    is_torn("SEAL with another digest", |good, _| {
        Forged { kind, payload: vec![9; 8], ..good }.bytes()
    });
}

#[test]
fn a_log_with_a_forged_barrier_within_a_segment_is_cut_there() {
    let kind = RecordKind::Barrier as u8;
    is_torn("BARRIER", |good, log| {
        let bytes = log.bytes(0);
        let len = u32::from_le_bytes(bytes[4_100..4_104].try_into().unwrap()) as usize;
        let payload = bytes[4_128..4_128 + len].to_vec();
        Forged { kind, payload, ..good }.bytes()
    });
}

/// A whole record behind a hole is no evidence by itself: pages reach a disk in any order.
#[test]
fn a_log_with_a_hole_and_a_record_behind_it_is_cut_at_the_hole() {
    is_torn("belongs at 0", |good, _| {
        let behind = Forged { lsn: good.lsn + 512, ..good };
        [vec![0; 512], behind.bytes()].concat()
    });
}

/// But if it promises that the hole was on the disk, something durable is gone.
#[test]
fn a_log_with_a_hole_below_a_promise_is_refused_and_nothing_is_changed() {
    let (log, end) = with_tail(1, |good, _| {
        let behind = Forged { lsn: good.lsn + 512, promise: good.lsn + 512, ..good };
        [vec![0; 512], behind.bytes()].concat()
    });
    let before = log.disk.files();
    let refused = log.open().map(|(_, report)| report);
    match refused {
        Err(WalError::Corrupt { at, evidence, .. }) => {
            assert_eq!((at, evidence), (end, end.advance(512)));
        }
        other => panic!("{other:?}"),
    }
    let of_log = |files: Vec<(std::path::PathBuf, Vec<u8>)>| -> Vec<_> {
        files.into_iter().filter(|(path, _)| !path.ends_with("lock")).collect()
    };
    assert_eq!(of_log(log.disk.files()), of_log(before));
}

/// A record that lies on several pages is whole or not there.
#[test]
fn a_log_with_a_forged_tail_across_pages_of_which_one_is_blank_is_cut_there() {
    for blank in 1..3 {
        is_torn("payload's checksum", |good, _| {
            let mut bytes = Forged { payload: vec![0xab; 12_000], ..good.clone() }.bytes();
            let page = (good.lsn as usize / PAGE_LEN + blank) * PAGE_LEN - good.lsn as usize;
            bytes[page..page + PAGE_LEN].fill(0);
            bytes
        });
    }
}

/// What a crash in the middle of a long record leaves is no record, whatever came of its end.
#[test]
fn a_log_with_only_the_first_pages_of_a_long_record_is_cut_there() {
    is_torn("payload's checksum", |good, _| {
        let long = Forged { payload: vec![0xab; 12_000], ..good.clone() }.bytes();
        let page = (good.lsn as usize / PAGE_LEN + 1) * PAGE_LEN - good.lsn as usize;
        long[..page].to_vec()
    });
}

#[test]
fn records_that_were_not_flushed_are_there_whole_or_not_at_all_after_a_power_cut() {
    let mut kept = [0; 5];
    for seed in 0..100 {
        let mut log = Log::of(seed, RECORDS);
        log.kill();
        let (wal, _) = log.open().unwrap();
        for _ in 0..4 {
            wal.append(RecordKind::Data, 0, &[0xcd; 6_000]).unwrap();
        }
        log.disk.writeback();
        drop(wal);
        log.disk.power_cut();
        let (wal, report) = log.open().unwrap();
        let contents = Log::contents(&wal);
        let long = contents.len() - RECORDS;
        assert!(contents[RECORDS..].iter().all(|payload| payload == &[0xcd; 6_000]));
        assert!(report.torn.is_some() || long == 4 || contents.len() == RECORDS);
        kept[long] += 1;
        // Cut or not: it goes on, and the next power cut finds what was flushed.
        wal.append(RecordKind::Data, 0, &[0xef; 300]).unwrap();
        let end = wal.flush().unwrap();
        drop(wal);
        log.disk.power_cut();
        let (wal, _) = log.open().unwrap();
        assert_eq!((wal.appended(), Log::contents(&wal).len()), (end, contents.len() + 1));
        log.append(&wal, 1);
    }
    assert!(kept[0] > 0 && kept[1..4].iter().sum::<i32>() > 0, "all kinds of luck: {kept:?}");
}

#[test]
fn a_recovery_that_dies_in_any_of_its_calls_is_done_again() {
    let mut interrupted = 0;
    for calls in 0..60 {
        for power in [false, true] {
            let (mut log, end) = with_tail(calls, |good, _| good.bytes()[..100].to_vec());
            log.disk.die_after(calls);
            let died = log.open().is_err();
            interrupted += u32::from(died);
            if power {
                log.disk.power_cut()
            } else {
                log.kill()
            }
            let (wal, _) = log.open().unwrap();
            assert_eq!(wal.appended(), end, "died in call {calls}, power cut: {power}");
            assert!(log.holds_its_own(&wal));
            log.append(&wal, 2);
            drop(wal);
            log.disk.power_cut();
            let (wal, report) = log.open().unwrap();
            assert_eq!(report.torn, None);
            assert!(log.holds_its_own(&wal));
        }
    }
    assert!(interrupted > 10, "a recovery makes calls enough to die in: {interrupted}");
}
