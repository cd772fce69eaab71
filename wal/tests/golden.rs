//! Logs that earlier versions wrote. Version 1 is provisional until the first release.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::path::{Path, PathBuf};

use support::*;

const RECORDS: u64 = 400;
const DIGEST: u64 = 0x30c8_0b6a_4bfa_b64a;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/wal/v1")
}

/// Writes the files anew: `TOWLINE_WRITE_GOLDEN=1 cargo test -p towline-wal --test golden`. Nonces
/// are random, so the bytes differ each time; what they say does not.
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
    begin(&wal, 2);
    for number in RECORDS / 2..RECORDS {
        append(&wal, &payload(number));
    }
    wal.shutdown().unwrap();
    println!("digest {:#018x}", wal.digest().0);
    drop(wal);
    let _ = std::fs::remove_dir_all(golden());
    std::fs::create_dir_all(golden()).unwrap();
    for (path, bytes) in files(&dir) {
        let name = path.file_name().unwrap().to_owned();
        if name != "lock" {
            std::fs::write(golden().join(name), bytes).unwrap();
        }
    }
}

#[test]
fn the_golden_log_opens_and_says_what_it_said() {
    let folder = folder();
    let dir = folder.path().join("log");
    std::fs::create_dir(&dir).unwrap();
    for (path, bytes) in files(&golden()) {
        std::fs::write(dir.join(path.file_name().unwrap()), bytes).unwrap();
    }
    let (wal, report) = open(&dir).unwrap();
    assert!(report.torn.is_none());
    assert_eq!(contents(&wal), payloads(0..RECORDS));
    assert_eq!(wal.digest().0, DIGEST);
    assert_eq!(wal.history().starts().len(), 2);
    assert_eq!(wal.control().node, node("golden"));
}
