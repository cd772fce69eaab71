//! The header of a record: whatever the bytes are, they are refused, or they are exactly what a
//! header would be encoded as. In half of the inputs the checksum is made right, as somebody would
//! who computes it from the format's description; otherwise it would hide all that follows it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{Incarnation, LogId};
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{HeaderSeed, RECORD_HEADER_LEN, RECORD_PAYLOAD_MAX, RecordHeader};

const LOG: u128 = 7;
const NUMBER: u64 = 3;
const INCARNATION: u64 = 9;
const BASE: u64 = 1 << 16;
const NONCE: u64 = 77;

/// `hcrc` as docs/design/wal-format.md has it.
fn checksum(header: &[u8]) -> u32 {
    let mut seed = crc32fast::Hasher::new();
    seed.update(&LOG.to_le_bytes());
    for field in [NUMBER, INCARNATION, BASE, NONCE] {
        seed.update(&field.to_le_bytes());
    }
    let mut hasher = crc32fast::Hasher::new_with_initial(seed.finalize());
    hasher.update(&header[4..RECORD_HEADER_LEN]);
    hasher.finalize()
}

fuzz_target!(|input: &[u8]| {
    let Some((how, bytes)) = input.split_first() else { return };
    let epoch = Epoch { number: NUMBER, incarnation: Incarnation(INCARNATION) };
    let seed = HeaderSeed::new(LogId(LOG), epoch, Lsn::new(BASE), NONCE);
    let mut bytes = bytes.to_vec();
    let mut lsn = Lsn::new(BASE + 4_096);
    if bytes.len() >= RECORD_HEADER_LEN {
        if how & 1 == 1 {
            let sum = checksum(&bytes);
            bytes[..4].copy_from_slice(&sum.to_le_bytes());
        }
        if how & 2 == 2 {
            let stated = bytes[8..16].try_into().expect("eight bytes");
            lsn = Lsn::new(u64::from_le_bytes(stated));
        }
    }
    if let Ok(header) = RecordHeader::decode(&bytes, lsn, seed) {
        assert_eq!(header.encode(seed), bytes[..RECORD_HEADER_LEN]);
        assert!(header.lsn == lsn && header.sync_lsn <= lsn && header.len <= RECORD_PAYLOAD_MAX);
        let payload = bytes.get(RECORD_HEADER_LEN..).unwrap_or_default();
        let is_whole = header.check_payload(payload).is_ok();
        assert!(!is_whole || crc32fast::hash(payload) == header.pcrc);
    }
});
