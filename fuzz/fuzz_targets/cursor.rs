//! Cursors on a log that grows: from every boundary they hand out exactly what follows, whole
//! records, up to their watermark and no further.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;
use towline_wal::simulated::SimDisk;
use towline_wal::{Level, Wal, found_on};

mod folder;

/// Enough for more segments than a log keeps mapped; more changes nothing but the time it takes.
const STEPS_MAX: usize = 64;

/// The log, and what it must hand out: the end of each record, SEALs left out.
struct Model {
    wal: Arc<Wal>,
    records: Vec<(Lsn, Vec<u8>)>,
}

impl Model {
    fn append(&mut self, len: usize) {
        let payload = vec![self.records.len() as u8; len];
        let appended = self.wal.append(RecordKind::Data, 0, &payload).expect("appended");
        self.records.push((appended.end, payload));
    }

    fn begin(&mut self) {
        folder::begin(&self.wal);
        self.records.push((self.wal.appended(), Vec::new()));
    }

    /// Reads everything behind a record by a cursor, in chunks and records as `lot` says.
    fn read(&self, from: usize, level: Level, mut lot: u64) {
        let start = from.checked_sub(1).map_or(Lsn::ZERO, |last| self.records[last].0);
        let until = if level == Level::Flushed { self.wal.flushed() } else { self.wal.appended() };
        let behind = self.records[from..].iter().take_while(|(end, _)| *end <= until);
        let mut expected: Vec<_> = behind.map(|(end, _)| *end).collect();
        expected.reverse();
        let mut cursor = self.wal.cursor(start, level).expect("a cursor at a boundary");
        loop {
            lot = lot.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let end = if lot & 1 == 1 {
                let chunk = cursor.next_chunk(1 + (lot >> 50) as usize).expect("a chunk");
                chunk.map(|chunk| {
                    assert!(chunk.from < chunk.end && chunk.end == cursor.position());
                    chunk.end
                })
            } else {
                let record = cursor.next_record().expect("a record");
                record.map(|record| record.header.end())
            };
            let Some(end) = end else { break };
            assert!(end <= until, "behind the watermark");
            // A chunk holds several; a SEAL ends at none of them.
            while expected.last().is_some_and(|next| *next <= end) {
                expected.pop();
            }
        }
        assert!(expected.is_empty(), "{} records were not handed out", expected.len());
    }

    /// From a place that may be no boundary there may be an error and nothing else.
    fn read_from_anywhere(&self, from: u64) {
        if let Ok(mut cursor) = self.wal.cursor(Lsn::new(from), Level::Appended) {
            while let Ok(Some(_)) = cursor.next_record() {}
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let disk = SimDisk::new(1);
    found_on(&disk, Path::new(folder::DIR), &folder::founding()).expect("founded");
    let mut model = Model { wal: folder::open(&disk).expect("opened"), records: Vec::new() };
    model.begin();
    for step in input.chunks_exact(3).take(STEPS_MAX) {
        let number = usize::from(u16::from_le_bytes([step[1], step[2]]));
        match step[0] % 8 {
            0 => drop(model.wal.flush().expect("flushed")),
            1 => model.begin(),
            2 => model.read_from_anywhere(number as u64 * 7),
            3 | 4 => {
                let level = if step[0] & 8 == 8 { Level::Flushed } else { Level::Appended };
                model.read(number % (model.records.len() + 1), level, number as u64 | 1 << 40);
            }
            _ => model.append(number % (16 << 10)),
        }
    }
});
