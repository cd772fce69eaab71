//! A damaged folder: opening it neither panics nor hangs, and never loses anything silently that
//! a promise covers.
//!
//! The input is a list of changes, six bytes each, to a small whole log.
#![no_main]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{Level, Wal, found_on, read_control_on};

mod folder;

/// How many records lie below the promise of a clean shutdown: those of two epochs, the first of
/// them in two segments.
const PROMISED: u64 = 24;
const FIRST_EPOCH: u64 = 16;
/// And how many behind it.
const BEHIND: u64 = 4;
const CHANGES_MAX: usize = 16;

type Files = BTreeMap<PathBuf, Arc<Vec<u8>>>;

/// Small ones, as most are, and some that fill a segment soon.
fn payload(number: u64) -> Vec<u8> {
    let len = (number * 37) % 300 + if number % 4 == 0 { 16_000 } else { 8 };
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + len as usize, number as u8);
    payload
}

fn append(wal: &Wal, numbers: std::ops::Range<u64>) {
    for number in numbers {
        wal.append(RecordKind::Data, 0, &payload(number)).expect("appended");
    }
}

fn build() -> Files {
    let disk = SimDisk::new(1);
    found_on(&disk, Path::new(folder::DIR), &folder::founding()).expect("founded");
    for numbers in [0..FIRST_EPOCH, FIRST_EPOCH..PROMISED] {
        let wal = folder::open(&disk).expect("opened");
        folder::begin(&wal);
        append(&wal, numbers);
        wal.shutdown().expect("closed");
    }
    // Some more, behind what the control file promises.
    let wal = folder::open(&disk).expect("opened");
    append(&wal, PROMISED..PROMISED + BEHIND);
    wal.flush().expect("flushed");
    let end = wal.appended();
    drop(wal);
    let control = read_control_on(&disk, Path::new(folder::DIR)).expect("a control file");
    assert!(control.durable < end, "everything is promised");
    let files: Files =
        disk.files().into_iter().map(|(path, bytes)| (path, Arc::new(bytes))).collect();
    let is_segment = |path: &&PathBuf| path.extension().is_some_and(|end| end == "wal");
    assert!(files.keys().filter(is_segment).count() > 3, "three segments, and those ready");
    files
}

fn change(files: &mut Files, change: &[u8]) {
    let names: Vec<PathBuf> = files.keys().cloned().collect();
    let name = &names[usize::from(change[1]) % names.len()];
    let at = usize::from(u16::from_le_bytes([change[2], change[3]]));
    if change[0] % 7 == 4 {
        files.remove(name);
        return;
    }
    if change[0] % 7 == 6 {
        let other = Arc::clone(&files[&names[usize::from(change[5]) % names.len()]]);
        files.insert(name.clone(), other);
        return;
    }
    let bytes = Arc::make_mut(files.get_mut(name).expect("a name of the map"));
    let at = if bytes.is_empty() { 0 } else { at % bytes.len() };
    let end = (at + usize::from(change[4]) * 16).min(bytes.len());
    match change[0] % 7 {
        0 => bytes.get_mut(at).map_or((), |byte| *byte ^= 1 << (change[5] % 8)),
        1 => bytes[at..end].fill(0),
        2 => bytes[at..end].fill(change[5]),
        3 => bytes.truncate(at),
        _ => bytes.copy_within(at..end, 0),
    }
}

fn check(wal: &Arc<Wal>) {
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).expect("a cursor");
    let mut number = 0;
    loop {
        match cursor.next_record() {
            Ok(Some(record)) if record.header.kind == RecordKind::Data => {
                assert_eq!(record.payload, payload(number), "record {number}");
                number += 1;
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            // Damage in what opening does not read is the reader's to notice.
            Err(_) => return,
        }
    }
    assert!(number >= PROMISED, "{number} of {PROMISED} records, and no error");
}

fuzz_target!(|input: &[u8]| {
    static WHOLE: OnceLock<Files> = OnceLock::new();
    let mut files = WHOLE.get_or_init(build).clone();
    for six in input.chunks_exact(6).take(CHANGES_MAX) {
        if files.is_empty() {
            return;
        }
        change(&mut files, six);
    }
    let disk = SimDisk::holding(1, files).expect("no file is a folder");
    // What a copy of the control file promised counts only while one of them is whole.
    if let Ok(wal) = folder::open(&disk) {
        check(&wal);
        drop(wal);
        folder::open(&disk).expect("what opened once opens again");
    }
});
