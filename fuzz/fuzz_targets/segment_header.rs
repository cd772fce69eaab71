//! The header page of a segment, with a checksum that is right: opening and reading neither panic
//! nor show a record that was not written.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use towline_protocol::record::RecordKind;
use towline_wal::read_log_on;

mod folder;

const FIELDS_LEN: usize = 74;

fuzz_target!(|input: &[u8]| {
    let disk = folder::changed(|name, content| {
        if name.ends_with(".wal") {
            // Behind the magic: what is not given stays.
            for (at, byte) in input.iter().enumerate().take(FIELDS_LEN - 8) {
                content[8 + at] ^= byte;
            }
            let sum = crc32fast::hash(&content[..FIELDS_LEN]);
            content[FIELDS_LEN..FIELDS_LEN + 4].copy_from_slice(&sum.to_le_bytes());
        }
    });
    if let Ok(reader) = read_log_on(&disk, Path::new(folder::DIR)) {
        for record in reader.map_while(Result::ok) {
            let is_written = record.payload.windows(2).all(|two| two[0] == two[1]);
            assert!(record.header.kind != RecordKind::Data || is_written);
        }
    }
    if let Ok(wal) = folder::open(&disk) {
        drop(wal);
        folder::open(&disk).expect("what opened once opens again");
    }
});
