//! A damaged log and the bytes of a peer, some of them wrong as well: a repair makes the log whole
//! or says why it does not, and takes no record away.
//!
//! The first byte says how the log is repaired. Then each six bytes damage a file of the log, a
//! file of the peer, or what the peer hands over.
#![no_main]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{Chunk, Level, Options, found_on, read_log_on, repair, repair_from};

mod folder;

const PEER: &str = "/peer/log";
const CHANGES_MAX: usize = 12;
/// How long the peer's chunks are, in bytes: several records, and several chunks in a segment.
const CHUNK_LEN: usize = 9_000;
/// How many records each epoch has: those of the first take two segments, those of the second a
/// part of one. All of it is looked through again for every segment, so more costs a lot.
const RECORDS: [u8; 2] = [24, 8];

/// A closed log of several segments, and what it holds.
struct Whole {
    files: folder::Files,
    chunks: Vec<Chunk>,
    records: Vec<(Lsn, Bytes)>,
}

fn build() -> Whole {
    let disk = SimDisk::new(1);
    found_on(&disk, Path::new(folder::DIR), &folder::founding()).expect("founded");
    let wal = folder::open(&disk).expect("opened");
    for (epoch, records) in (0..).zip(RECORDS) {
        folder::begin(&wal);
        for number in 0..records {
            wal.append(RecordKind::Data, 0, &[epoch * 100 + number; 3_000]).expect("appended");
        }
    }
    wal.flush().expect("flushed");
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).expect("a cursor");
    let mut chunks = Vec::new();
    while let Some(chunk) = cursor.next_chunk(CHUNK_LEN).expect("a chunk") {
        // Not those of the mapping, which ends with the log.
        chunks.push(Chunk { bytes: Bytes::copy_from_slice(&chunk.bytes), ..chunk });
    }
    let segments: BTreeSet<Lsn> = chunks.iter().map(|chunk| chunk.segment.base).collect();
    assert_eq!(segments.len(), 3, "two of the first epoch, one of the second");
    drop(cursor);
    wal.shutdown().expect("closed");
    drop(wal);
    let files = disk.files().into_iter().map(|(path, content)| (path, Arc::new(content)));
    let records = read(&disk, folder::DIR);
    Whole { files: files.collect(), chunks, records }
}

/// All that can be read of a folder's log.
fn read(disk: &SimDisk, dir: &str) -> Vec<(Lsn, Bytes)> {
    let Ok(log) = read_log_on(disk, Path::new(dir)) else { return Vec::new() };
    log.map_while(Result::ok).map(|record| (record.header.lsn, record.payload)).collect()
}

fn at(step: &[u8], len: usize) -> usize {
    usize::from(u16::from_le_bytes([step[2], step[3]])) * 3 % len.max(1)
}

fn damage(files: &mut folder::Files, step: &[u8]) {
    let number = usize::from(step[1]) % files.len();
    if step[0] % 6 == 4 {
        files.remove(number);
        return;
    }
    let mut content = files[number].1.to_vec();
    let from = at(step, content.len());
    let to = (from + usize::from(step[4]) * 16).min(content.len());
    match step[0] % 6 {
        0 | 1 if content.is_empty() => {}
        0 | 1 => content[from] ^= 1 << (step[5] % 8),
        2 => content[from..to].fill(step[5]),
        3 => content.truncate(from),
        _ => content.copy_within(from..to, from / 2),
    }
    files[number].1 = Arc::new(content);
}

/// What the peer hands over may be cut, damaged, moved, or of another file.
fn spoil(chunks: &mut Vec<Chunk>, step: &[u8]) {
    if chunks.is_empty() {
        return;
    }
    let number = usize::from(step[1]) % chunks.len();
    let other = chunks[usize::from(step[5]) % chunks.len()].segment;
    let chunk = &mut chunks[number];
    let at = at(step, chunk.bytes.len());
    match step[0] % 6 {
        0 => drop(chunks.remove(number)),
        1 => chunk.bytes.truncate(at),
        2 => chunk.segment = other,
        3 => chunk.from = Lsn::new(chunk.from.get() ^ (1 << (step[5] % 24))),
        4 => chunk.segment.nonce ^= 1 << (step[5] % 64),
        _ => {
            let mut bytes = chunk.bytes.to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (step[5] % 8);
            }
            chunk.bytes = bytes.into();
        }
    }
}

fuzz_target!(|input: &[u8]| {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    let whole = WHOLE.get_or_init(build);
    let Some((how, steps)) = input.split_first() else { return };
    let (mut own, mut theirs) = (whole.files.clone(), whole.files.clone());
    let mut chunks = whole.chunks.clone();
    let mut peer_is_whole = true;
    for step in steps.chunks_exact(6).take(CHANGES_MAX) {
        match step[0] / 6 % 4 {
            0 | 1 if !own.is_empty() => damage(&mut own, step),
            2 if !theirs.is_empty() => {
                damage(&mut theirs, step);
                peer_is_whole = false;
            }
            _ => spoil(&mut chunks, step),
        }
    }
    let there = |path: &PathBuf| Path::new(PEER).join(path.file_name().expect("a file's name"));
    let theirs = theirs.iter().map(|(path, content)| (there(path), Arc::clone(content)));
    let files = || own.iter().cloned();
    let disk = SimDisk::holding(1, files().chain(theirs)).expect("no file is a folder");

    let before = read(&disk, folder::DIR);
    assert!(whole.records.starts_with(&before), "what is read was never written");
    // On a disk of its own: opening cuts off what is torn.
    let opened = folder::open(&SimDisk::holding(1, files()).expect("no file is a folder"));
    let opened = opened.map(drop).is_ok();
    let options = Options { disk: Arc::new(disk.clone()), threads: false, ..Options::default() };
    let dir = Path::new(folder::DIR);
    let repaired = match how % 2 {
        0 => repair(dir, &chunks, &options),
        _ => repair_from(dir, Path::new(PEER), &options),
    };
    let after = read(&disk, folder::DIR);
    assert!(whole.records.starts_with(&after), "it was repaired to what was never written");
    assert!(after.len() >= before.len(), "{} of {} records are left", after.len(), before.len());
    let is_known = |file: &(PathBuf, Arc<Vec<u8>>)| {
        !is_control(file) || whole.files.iter().any(|known| known == file)
    };
    let knows_itself = own.iter().any(is_control) && own.iter().all(is_known);
    let is_whole = how % 2 == 1 && peer_is_whole && knows_itself;
    if is_whole {
        repaired.expect("a whole peer's bytes repair everything");
    }
    if opened || is_whole {
        // What holds nothing and has a damaged header is set aside only now.
        drop(folder::open(&disk).expect("it is not worse than it was"));
    }
    if is_whole {
        assert_eq!(read(&disk, folder::DIR).len(), whole.records.len(), "not all is back");
    }
});

fn is_control(file: &(PathBuf, Arc<Vec<u8>>)) -> bool {
    file.0.to_string_lossy().contains("control.")
}
