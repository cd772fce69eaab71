//! Logs that earlier versions wrote. They are provisional until the first release.
//!
//! `v1` has control files without slots and without a beginning; `v2` was trimmed and has a slot;
//! the control files of `v3` have room to be written where they lie. The segments' format is
//! version 1 in all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use towline_protocol::record::RecordKind;
use towline_wal::{Level, Report, Wal};

use crate::support::*;

const RECORDS: u64 = 400;
const DIGEST: u64 = 0x6143_97e2_3810_8e6f;

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/wal").join(version)
}

/// Writes the newest files anew: `TOWLINE_WRITE_GOLDEN=1 cargo test -p towline-wal golden`.
/// Nonces are random, so the bytes differ each time; what they say does not.
#[test]
fn write_the_golden_log() {
    if std::env::var_os("TOWLINE_WRITE_GOLDEN").is_none() {
        return;
    }
    let (_folder, dir) = founded("golden");
    let wal = opened(&dir);
    begin(&wal, 1);
    for number in 0..RECORDS / 2 {
        append(&wal, &payload(number));
    }
    let barrier = begin(&wal, 2);
    for number in RECORDS / 2..RECORDS {
        append(&wal, &payload(number));
    }
    wal.flush().unwrap();
    wal.create_slot("reader", barrier.end, Some(1 << 20)).unwrap();
    wal.trim(wal.appended()).unwrap();
    wal.shutdown().unwrap();
    println!("digest {:#018x}", wal.digest().0);
    drop(wal);
    let _ = std::fs::remove_dir_all(golden("v3"));
    std::fs::create_dir_all(golden("v3")).unwrap();
    for (path, bytes) in files(&dir) {
        let name = path.file_name().unwrap().to_owned();
        if name != "lock" {
            std::fs::write(golden("v3").join(name), bytes).unwrap();
        }
    }
}

fn open_golden(version: &str) -> (tempfile::TempDir, Arc<Wal>, Report) {
    let folder = folder();
    let dir = folder.path().join("log");
    std::fs::create_dir(&dir).unwrap();
    for (path, bytes) in files(&golden(version)) {
        std::fs::write(dir.join(path.file_name().unwrap()), bytes).unwrap();
    }
    let (wal, report) = open(&dir).unwrap();
    (folder, wal, report)
}

#[test]
fn the_golden_log_opens_and_says_what_it_said() {
    for version in ["v1", "v2", "v3"] {
        let (_folder, wal, report) = open_golden(version);
        assert!(report.torn.is_none() && !report.control_healed, "{version}");
        assert_eq!(wal.digest().0, DIGEST);
        assert_eq!(wal.history().starts().len(), 2);
        assert_eq!(wal.terms(), towline_protocol::terms::Terms::founding(voters()));
        assert_eq!(wal.control().node, node("golden"));
    }
}

#[test]
fn version_1_has_the_whole_log_and_takes_slots() {
    let (_folder, wal, _) = open_golden("v1");
    assert_eq!(contents(&wal), payloads(0..RECORDS));
    assert_eq!((wal.oldest(), wal.slots()), (towline_wal::Oldest::default(), vec![]));
    wal.create_slot("reader", wal.appended(), None).unwrap();
    assert_eq!(wal.trim(wal.appended()).unwrap().segments, 1);
}

#[test]
fn version_2_has_the_rest_of_the_log_and_its_slot() {
    let (_folder, wal, _) = open_golden("v3");
    let slot = &wal.slots()[0];
    assert_eq!((&*slot.name, slot.keep_bytes_max, slot.lagged), ("reader", Some(1 << 20), false));
    let mut cursor = wal.cursor(slot.position, Level::Flushed).unwrap();
    let mut found = Vec::new();
    while let Some(record) = cursor.next_record().unwrap() {
        assert_eq!(record.header.kind, RecordKind::Data);
        found.push(record.payload.to_vec());
    }
    assert_eq!(found, payloads(RECORDS / 2..RECORDS));
    assert_eq!(wal.oldest().base.get(), 1 << 16);
}
