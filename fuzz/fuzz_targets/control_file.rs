//! The control file, with a checksum that is right: reading and opening neither panic nor go on
//! from what contradicts itself.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use towline_wal::read_control_on;

mod folder;

fuzz_target!(|input: &[u8]| {
    let Some((how, bytes)) = input.split_first() else { return };
    let disk = folder::changed(|name, content| {
        if !name.starts_with("control.") {
            return;
        }
        content.truncate(content.len() - 4);
        if how & 1 == 1 {
            // Changes to a whole one: where, and to what.
            for change in bytes.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % content.len();
                content[at] = change[2];
            }
        } else {
            content.truncate(10);
            content.extend_from_slice(bytes);
        }
        let sum = crc32fast::hash(content);
        content.extend_from_slice(&sum.to_le_bytes());
    });
    let control = read_control_on(&disk, Path::new(folder::DIR));
    if let Ok(wal) = folder::open(&disk) {
        assert!(control.is_ok());
        let fence = wal.control().fence;
        drop(wal);
        let again = folder::open(&disk).expect("what opened once opens again");
        assert_eq!(again.control().fence, fence);
    }
});
