//! Records under good checksums that no log has written, put into the files of one.

use std::path::{Path, PathBuf};

use towline_protocol::epoch::Epoch;
use towline_protocol::id::{Incarnation, LogId};
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{HeaderSeed, RECORD_HEADER_LEN, RecordHeader, RecordKind};
use towline_protocol::wire::Reader;

use crate::support::segment;

/// How much of a segment's header page its checksum covers; it lies behind.
const FIELDS_LEN: usize = 74;

/// A segment's file in which records are put.
pub(crate) struct Forged {
    path: PathBuf,
    pub(crate) base: Lsn,
    seed: HeaderSeed,
    pub(crate) bytes: Vec<u8>,
}

impl Forged {
    pub(crate) fn open(dir: &Path, base: u64) -> Self {
        let path = segment(dir, base);
        let bytes = std::fs::read(&path).unwrap();
        // Behind the magic and the version.
        let mut reader = Reader::new(&bytes[10..FIELDS_LEN]);
        let log = LogId(reader.u128("log").unwrap());
        let base = reader.lsn("base").unwrap();
        let number = reader.u64("number").unwrap();
        let epoch = Epoch { number, incarnation: Incarnation(reader.u64("incarnation").unwrap()) };
        reader.u64("size").unwrap();
        let seed = HeaderSeed::new(log, epoch, base, reader.u64("nonce").unwrap());
        Self { path, base, seed, bytes }
    }

    fn offset(&self, lsn: Lsn) -> usize {
        lsn.distance_from(self.base) as usize
    }

    /// The headers of its records.
    pub(crate) fn records(&self) -> Vec<RecordHeader> {
        let mut at = self.base.advance(4_096);
        let mut records = Vec::new();
        while let Ok(header) = RecordHeader::decode(&self.bytes[self.offset(at)..], at, self.seed) {
            at = header.end();
            records.push(header);
            if header.kind == RecordKind::Seal {
                break;
            }
        }
        records
    }

    pub(crate) fn payload(&self, record: &RecordHeader) -> Vec<u8> {
        let from = self.offset(record.lsn) + RECORD_HEADER_LEN;
        self.bytes[from..from + record.len as usize].to_vec()
    }

    /// Puts a header where it says that it lies, under a good checksum.
    pub(crate) fn put_header(&mut self, header: &RecordHeader) {
        let at = self.offset(header.lsn);
        self.bytes[at..at + RECORD_HEADER_LEN].copy_from_slice(&header.encode(self.seed));
    }

    /// Puts a record in the place of another one, under good checksums.
    pub(crate) fn put(&mut self, place: &RecordHeader, kind: RecordKind, payload: &[u8]) {
        let record = RecordHeader::new(kind, place.tag, place.lsn, place.sync_lsn, payload);
        self.put_header(&record);
        let from = self.offset(place.lsn) + RECORD_HEADER_LEN;
        self.bytes[from..from + payload.len()].copy_from_slice(payload);
    }

    /// Puts another payload into a record.
    pub(crate) fn change(&mut self, record: &RecordHeader) {
        let mut payload = self.payload(record);
        *payload.last_mut().unwrap() ^= 1;
        self.put(record, record.kind, &payload);
    }

    /// Flips a bit of a record's header.
    pub(crate) fn damage(&mut self, record: &RecordHeader) {
        let at = self.offset(record.lsn);
        self.bytes[at + 4] ^= 1;
    }

    /// Changes the header page, under a good checksum.
    pub(crate) fn put_page(&mut self, at: usize, field: &[u8]) {
        self.bytes[at..at + field.len()].copy_from_slice(field);
        let crc = crc32fast::hash(&self.bytes[..FIELDS_LEN]);
        self.bytes[FIELDS_LEN..FIELDS_LEN + 4].copy_from_slice(&crc.to_le_bytes());
    }

    pub(crate) fn save(&self) {
        std::fs::write(&self.path, &self.bytes).unwrap();
    }
}
