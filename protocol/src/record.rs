//! Records: the same bytes on disk and on the wire.
//!
//! ```text
//!  0      4      8              16             24     28   29    30    32
//!  ┌──────┬──────┬──────────────┬──────────────┬──────┬────┬─────┬─────┬──────────┬─────────┐
//!  │ hcrc │ len  │     lsn      │   sync_lsn   │ pcrc │kind│flags│ tag │ payload  │ zeros   │
//!  └──────┴──────┴──────────────┴──────────────┴──────┴────┴─────┴─────┴──────────┴─────────┘
//!         all little endian                                              len bytes  to 16
//! ```
//!
//! `hcrc` covers the header from byte 4 on, seeded by everything that says *which file* it belongs
//! to, so stale bytes of a recycled file never validate. `pcrc` covers the payload alone, so a
//! damaged payload under a good header is a loss with a name.

use crate::epoch::Epoch;
use crate::id::LogId;
use crate::lsn::Lsn;

/// The length of a record's header, in bytes.
pub const RECORD_HEADER_LEN: usize = 32;
/// Every record begins at a multiple of this.
pub const RECORD_ALIGN: u64 = 16;
/// No record of any log carries a longer payload, in bytes: what one frame may make a peer hold.
pub const RECORD_PAYLOAD_MAX: u32 = 16 << 20;

const _: () = assert!(RECORD_HEADER_LEN as u64 % RECORD_ALIGN == 0);

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The engine's: opaque to everything but the engine.
    Data = 1,
    /// Opens an epoch: [`crate::barrier::Barrier`].
    Barrier = 2,
    /// Reserved, and never written: a new disk is granted by the voter set of a BARRIER.
    Grant = 3,
    /// The last record of an epoch that was handed over on purpose.
    End = 4,
    /// The last record of a full segment; its payload is a [`Digest`] of the log up to the seal.
    Seal = 5,
    /// A place that was reserved and given up; its payload is zeros.
    Abort = 6,
}

impl TryFrom<u8> for RecordKind {
    type Error = RecordError;

    fn try_from(kind: u8) -> Result<Self, RecordError> {
        Ok(match kind {
            1 => Self::Data,
            2 => Self::Barrier,
            3 => Self::Grant,
            4 => Self::End,
            5 => Self::Seal,
            6 => Self::Abort,
            unknown => return Err(RecordError::UnknownKind(unknown)),
        })
    }
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than the record needs.
    #[error("the record is cut short")]
    Short,
    /// The header's checksum does not match.
    #[error("the header's checksum does not match")]
    HeaderChecksum,
    /// The payload's checksum does not match.
    #[error("the payload's checksum does not match")]
    PayloadChecksum,
    /// The header says another position than the one it lies at.
    #[error("the record says it belongs at {0}")]
    Misplaced(Lsn),
    /// A promise about the record itself or later ones.
    #[error("the record promises {0}, which is behind itself")]
    Promise(Lsn),
    /// A length over the limit.
    #[error("a payload of {0} bytes is over the limit")]
    TooLong(u32),
    /// A kind this version does not know.
    #[error("record kind {0} is unknown to this version")]
    UnknownKind(u8),
}

/// The start value of every `hcrc` in one file, made of all that names the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderSeed(u32);

impl HeaderSeed {
    /// The seed of the file that holds the segment at `base`, written in `epoch` under `nonce`.
    #[must_use]
    pub fn new(log: LogId, epoch: Epoch, base: Lsn, nonce: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&log.0.to_le_bytes());
        hasher.update(&epoch.number.to_le_bytes());
        hasher.update(&epoch.incarnation.0.to_le_bytes());
        hasher.update(&base.get().to_le_bytes());
        hasher.update(&nonce.to_le_bytes());
        Self(hasher.finalize())
    }

    #[inline]
    fn checksum(self, header: &[u8]) -> u32 {
        // All headers have one length, so two different start values never give the same CRC.
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(header);
        hasher.finalize()
    }
}

/// The parsed header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// The payload's length in bytes, without padding.
    pub len: u32,
    /// Where the record lies.
    pub lsn: Lsn,
    /// A promise: everything below it was on *this* disk when the record was reserved here.
    /// `sync_lsn <= lsn`, and it never falls from one record of a log to the next.
    pub sync_lsn: Lsn,
    /// The payload's checksum.
    pub pcrc: u32,
    /// What the record is.
    pub kind: RecordKind,
    /// Reserved for formats to come; zero.
    pub flags: u8,
    /// The embedder's own mark; zero unless it uses one.
    pub tag: u16,
}

impl RecordHeader {
    /// The header of a record of `payload` at `lsn`.
    ///
    /// # Panics
    /// If the payload is over [`RECORD_PAYLOAD_MAX`] or the promise reaches behind `lsn`.
    #[must_use]
    pub fn new(kind: RecordKind, tag: u16, lsn: Lsn, sync_lsn: Lsn, payload: &[u8]) -> Self {
        assert!(payload.len() <= RECORD_PAYLOAD_MAX as usize, "the payload is over the limit");
        assert!(sync_lsn <= lsn, "a promise of {sync_lsn} behind the record at {lsn}");
        let pcrc = crc32fast::hash(payload);
        Self { len: payload.len() as u32, lsn, sync_lsn, pcrc, kind, flags: 0, tag }
    }

    /// The header's bytes in the file of `seed`.
    #[must_use]
    pub fn encode(&self, seed: HeaderSeed) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[4..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.lsn.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sync_lsn.get().to_le_bytes());
        bytes[24..28].copy_from_slice(&self.pcrc.to_le_bytes());
        bytes[28] = self.kind as u8;
        bytes[29] = self.flags;
        bytes[30..32].copy_from_slice(&self.tag.to_le_bytes());
        let hcrc = seed.checksum(&bytes[4..]);
        bytes[..4].copy_from_slice(&hcrc.to_le_bytes());
        bytes
    }

    /// Reads the header of the record that should lie at `lsn` in the file of `seed`.
    ///
    /// # Errors
    /// [`RecordError`] if the bytes are not that header. The payload is not looked at.
    #[inline(always)] // Every reader's loop: a result in memory costs as much as the checksum.
    pub fn decode(bytes: &[u8], lsn: Lsn, seed: HeaderSeed) -> Result<Self, RecordError> {
        let bytes: &[u8; RECORD_HEADER_LEN] = bytes.first_chunk().ok_or(RecordError::Short)?;
        // The position first: one compare that nearly all foreign bytes fail.
        let stated = Lsn::new(u64_at(bytes, 8));
        if stated != lsn {
            return Err(RecordError::Misplaced(stated));
        }
        if u32_at(bytes, 0) != seed.checksum(&bytes[4..]) {
            return Err(RecordError::HeaderChecksum);
        }
        let len = u32_at(bytes, 4);
        if len > RECORD_PAYLOAD_MAX {
            return Err(RecordError::TooLong(len));
        }
        let sync_lsn = Lsn::new(u64_at(bytes, 16));
        if sync_lsn > lsn {
            return Err(RecordError::Promise(sync_lsn));
        }
        let kind = RecordKind::try_from(bytes[28])?;
        let tag = u16::from_le_bytes([bytes[30], bytes[31]]);
        Ok(Self { len, lsn, sync_lsn, pcrc: u32_at(bytes, 24), kind, flags: bytes[29], tag })
    }

    /// Whether `payload` is what the header says.
    ///
    /// # Errors
    /// [`RecordError::Short`] or [`RecordError::PayloadChecksum`].
    #[inline]
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), RecordError> {
        if payload.len() != self.len as usize {
            return Err(RecordError::Short);
        }
        if crc32fast::hash(payload) != self.pcrc {
            return Err(RecordError::PayloadChecksum);
        }
        Ok(())
    }

    /// How many bytes the record takes: header, payload, and padding.
    #[inline]
    #[must_use]
    pub const fn stored_len(&self) -> u64 {
        stored_len(self.len)
    }

    /// Where the next record of the same segment begins.
    #[inline]
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.lsn.advance(self.stored_len())
    }
}

/// How many bytes a record with a payload of `len` bytes takes.
#[inline]
#[must_use]
pub const fn stored_len(len: u32) -> u64 {
    (RECORD_HEADER_LEN as u64 + len as u64).next_multiple_of(RECORD_ALIGN)
}

#[inline]
fn u32_at(bytes: &[u8; RECORD_HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn u64_at(bytes: &[u8; RECORD_HEADER_LEN], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// What of one record goes into the [`Digest`]: made by whoever makes the record, so that chaining
/// it costs next to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint(pub u64);

impl RecordHeader {
    /// The fingerprint of what every node holds alike: lsn, len, kind, flags, tag, pcrc.
    #[inline]
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        let place = self.lsn.get() ^ DIGEST_KEYS[0];
        let marks = (self.kind as u64) << 32 | (self.flags as u64) << 40 | (self.tag as u64) << 48;
        let folded = fold(place, (marks | self.len as u64) ^ DIGEST_KEYS[1]);
        // From here on one to one: another payload checksum is another fingerprint.
        Fingerprint(mix(folded ^ self.pcrc as u64))
    }
}

/// Odd, with half of their bits set at no regular places: the digits of the fractional parts of
/// the square roots of 2, 3 and 5.
const DIGEST_KEYS: [u64; 3] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b];

/// Both halves of the product: every bit of the result depends on all bits of both.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// Spreads every bit, one to one: two values never become the same.
const fn mix(value: u64) -> u64 {
    let spread = value.wrapping_mul(DIGEST_KEYS[2]);
    spread ^ spread >> 32
}

/// The digest of a log's records from its beginning up to some point.
///
/// It covers what every node holds alike (lsn, len, kind, flags, tag, pcrc) and nothing that is
/// true of one disk only, so equal logs have equal digests on every node. It finds accidents, not
/// forgers: peers are authenticated. Two logs that differ once have different digests ever after,
/// as long as the same records follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Digest(pub u64);

impl Digest {
    /// The digest of no records.
    pub const EMPTY: Self = Self(0);

    /// The digest with one more record behind it.
    #[inline]
    #[must_use]
    pub const fn with(self, header: &RecordHeader) -> Self {
        self.followed_by(header.fingerprint())
    }

    /// The digest with one more record behind it, of which only the fingerprint is at hand.
    #[inline]
    #[must_use]
    pub const fn followed_by(self, fingerprint: Fingerprint) -> Self {
        Self(mix(self.0 ^ fingerprint.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;

    const LSN: Lsn = Lsn::new(4_096);

    fn seed(nonce: u64) -> HeaderSeed {
        let epoch = Epoch { number: 3, incarnation: Incarnation(9) };
        HeaderSeed::new(LogId(7), epoch, Lsn::ZERO, nonce)
    }

    fn header() -> RecordHeader {
        RecordHeader::new(RecordKind::Data, 5, LSN, Lsn::new(4_000), b"payload")
    }

    #[test]
    fn a_header_reads_back() {
        let bytes = header().encode(seed(1));
        assert_eq!(RecordHeader::decode(&bytes, LSN, seed(1)), Ok(header()));
        assert_eq!(header().stored_len(), 48);
        header().check_payload(b"payload").unwrap();
        assert_eq!(header().check_payload(b"paylord"), Err(RecordError::PayloadChecksum));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = header().encode(seed(1));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordHeader::decode(&damaged, LSN, seed(1)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_kind_reads_back_and_no_other_one() {
        use RecordKind::{Abort, Barrier, Data, End, Grant, Seal};
        for kind in [Data, Barrier, Grant, End, Seal, Abort] {
            let bytes = RecordHeader { kind, ..header() }.encode(seed(1));
            assert_eq!(RecordHeader::decode(&bytes, LSN, seed(1)).unwrap().kind, kind);
        }
        for unknown in [0, 7, 255] {
            let mut bytes = header().encode(seed(1));
            bytes[28] = unknown;
            let hcrc = seed(1).checksum(&bytes[4..]);
            bytes[..4].copy_from_slice(&hcrc.to_le_bytes());
            let told = RecordHeader::decode(&bytes, LSN, seed(1)).unwrap_err();
            assert_eq!(told, RecordError::UnknownKind(unknown));
        }
    }

    #[test]
    fn what_no_record_says_is_refused_under_a_good_checksum() {
        let decoded = |header: RecordHeader| {
            RecordHeader::decode(&header.encode(seed(1)), LSN, seed(1)).map_err(|it| it.to_string())
        };
        let longest = RecordHeader { len: RECORD_PAYLOAD_MAX, sync_lsn: LSN, ..header() };
        assert_eq!(decoded(longest), Ok(longest));
        let longer = RecordHeader { len: RECORD_PAYLOAD_MAX + 1, ..header() };
        assert_eq!(decoded(longer).unwrap_err(), "a payload of 16777217 bytes is over the limit");
        let ahead = RecordHeader { sync_lsn: LSN.advance(1), ..header() };
        assert_eq!(decoded(ahead).unwrap_err(), "the record promises 4097, which is behind itself");
        let bytes = header().encode(seed(1));
        for len in 0..bytes.len() {
            let told = RecordHeader::decode(&bytes[..len], LSN, seed(1));
            assert_eq!(told, Err(RecordError::Short));
        }
        for payload in [&b"payloa"[..], b"payloads", b""] {
            assert_eq!(header().check_payload(payload), Err(RecordError::Short));
        }
    }

    #[test]
    fn another_file_or_place_never_validates() {
        let bytes = header().encode(seed(1));
        assert_eq!(RecordHeader::decode(&bytes, LSN, seed(2)), Err(RecordError::HeaderChecksum));
        let elsewhere = Lsn::new(8_192);
        assert_eq!(
            RecordHeader::decode(&bytes, elsewhere, seed(1)),
            Err(RecordError::Misplaced(LSN))
        );
    }

    #[test]
    fn the_digest_ignores_what_is_true_of_one_disk_only() {
        let mut other_disk = header();
        other_disk.sync_lsn = Lsn::ZERO;
        assert_eq!(Digest::EMPTY.with(&header()), Digest::EMPTY.with(&other_disk));
        let mut other_payload = header();
        other_payload.pcrc ^= 1;
        assert_ne!(Digest::EMPTY.with(&header()), Digest::EMPTY.with(&other_payload));
    }

    #[test]
    fn every_bit_that_is_covered_changes_half_of_the_digest() {
        let changes: [fn(&mut RecordHeader, u32); 6] = [
            |header, bit| header.lsn = Lsn::new(header.lsn.get() ^ 1 << bit),
            |header, bit| header.len ^= 1 << (bit % 32),
            |header, bit| header.pcrc ^= 1 << (bit % 32),
            |header, bit| header.tag ^= 1 << (bit % 16),
            |header, bit| header.flags ^= 1 << (bit % 8),
            |header, _| header.kind = RecordKind::End,
        ];
        let before = Digest(0x0123_4567_89ab_cdef);
        // Two records behind it: a difference has gone through the chain.
        let digest = |header: &RecordHeader| before.with(header).with(&self::header()).0;
        for (which, change) in changes.iter().enumerate() {
            let mut flipped = 0;
            for bit in 0..64 {
                let mut changed = header();
                change(&mut changed, bit);
                flipped += (digest(&changed) ^ digest(&header())).count_ones();
            }
            let mean = f64::from(flipped) / 64.0;
            assert!((24.0..40.0).contains(&mean), "change {which} flips {mean} of 64 bits");
        }
    }

    #[test]
    fn the_digest_depends_on_the_order_and_never_forgets_a_difference() {
        let mut other = header();
        other.lsn = other.end();
        let one = Digest::EMPTY.with(&header()).with(&other);
        assert_ne!(one, Digest::EMPTY.with(&other).with(&header()));
        let (mut left, mut right) = (Digest(1), Digest(2));
        for number in 0..100_000 {
            let next = RecordHeader { lsn: Lsn::new(number * 16), ..header() };
            (left, right) = (left.with(&next), right.with(&next));
            assert_ne!(left, right);
        }
    }

    #[test]
    fn many_records_that_differ_little_have_no_digest_twice() {
        let mut seen = std::collections::HashSet::new();
        for lsn in 0..400 {
            for pcrc in 0..100 {
                for tag in 0..10 {
                    let next = RecordHeader { lsn: Lsn::new(lsn * 16), pcrc, tag, ..header() };
                    assert!(seen.insert(Digest(7).with(&next).0), "{next:?}");
                }
            }
        }
    }
}
