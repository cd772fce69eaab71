//! A damaged folder: opening it neither panics nor hangs, and never loses anything silently that
//! a promise covers.
//!
//! The input is a list of changes, six bytes each, to a small whole log.
#![no_main]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{ClusterId, Incarnation, LogId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};
use towline_wal::{Founding, Level, Options, Role, Wal, found};

const RECORDS: u64 = 400;
const CHANGES_MAX: usize = 16;

struct Whole {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// How many records lie below the promise of a clean shutdown.
    promised: usize,
}

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + (number as usize * 37) % 300, number as u8);
    payload
}

fn begin(wal: &Wal, number: u64, voters: &Voters) {
    let barrier = Barrier {
        epoch: Epoch { number, incarnation: Incarnation(1) },
        previous: wal.last_epoch(),
        previous_end: wal.appended(),
        digest: wal.digest(),
        terms: Terms::founding(voters.clone()),
        accepted_loss: false,
    };
    wal.begin_epoch(&barrier).expect("an epoch");
}

fn build() -> Whole {
    let folder = folder();
    let node = "fuzz".parse().expect("a name");
    let voter = Voter { node, incarnation: Incarnation(1), zone: String::new() };
    let voters = Voters::new(vec![voter], None).expect("one voter");
    let founding = Founding {
        cluster: ClusterId(1),
        cluster_name: "fuzz".to_owned(),
        log: LogId(1),
        node,
        incarnation: Incarnation(1),
        segment_size: SegmentSize::MIN,
        role: Role::Primary,
        voters: voters.clone(),
    };
    let dir = folder.path().join("log");
    found(&dir, &founding).expect("founded");
    for epoch in 1..=2 {
        let (wal, _) = Wal::open(&dir, Options::default()).expect("opened");
        begin(&wal, epoch, &voters);
        for number in (epoch - 1) * RECORDS / 2..epoch * RECORDS / 2 {
            wal.append(RecordKind::Data, 0, &payload(number)).expect("appended");
        }
        wal.shutdown().expect("closed");
    }
    // Some more, behind what the control file promises.
    let (wal, _) = Wal::open(&dir, Options::default()).expect("opened");
    for number in RECORDS..RECORDS + 20 {
        wal.append(RecordKind::Data, 0, &payload(number)).expect("appended");
    }
    drop(wal);
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&dir).expect("listed") {
        let path = entry.expect("listed").path();
        let bytes = std::fs::read(&path).expect("read");
        files.insert(PathBuf::from(path.file_name().expect("a name")), bytes);
    }
    Whole { files, promised: RECORDS as usize }
}

fn change(files: &mut BTreeMap<PathBuf, Vec<u8>>, change: &[u8]) {
    let names: Vec<PathBuf> = files.keys().cloned().collect();
    let name = &names[usize::from(change[1]) % names.len()];
    let at = usize::from(u16::from_le_bytes([change[2], change[3]]));
    let bytes = files.get_mut(name).expect("a name of the map");
    let at = if bytes.is_empty() { 0 } else { at % bytes.len() };
    let end = (at + usize::from(change[4]) * 16).min(bytes.len());
    match change[0] % 7 {
        0 => bytes.get_mut(at).map_or((), |byte| *byte ^= 1 << (change[5] % 8)),
        1 => bytes[at..end].fill(0),
        2 => bytes[at..end].fill(change[5]),
        3 => bytes.truncate(at),
        4 => drop(files.remove(name)),
        5 => bytes.copy_within(at..end, 0),
        _ => {
            let other = files[&names[usize::from(change[5]) % names.len()]].clone();
            files.insert(name.clone(), other);
        }
    }
}

fn check(wal: &Arc<Wal>, promised: usize) {
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
    assert!(number as usize >= promised, "{number} of {promised} records, and no error");
}

fuzz_target!(|input: &[u8]| {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    let whole = WHOLE.get_or_init(build);
    let mut files = whole.files.clone();
    for six in input.chunks_exact(6).take(CHANGES_MAX) {
        if files.is_empty() {
            return;
        }
        change(&mut files, six);
    }
    let folder = folder();
    for (name, bytes) in &files {
        std::fs::write(folder.path().join(name), bytes).expect("written");
    }
    // What a copy of the control file promised counts only while one of them is whole.
    if let Ok((wal, _)) = Wal::open(folder.path(), Options::default()) {
        check(&wal, whole.promised);
        drop(wal);
        Wal::open(folder.path(), Options::default()).expect("what opened once opens again");
    }
});
