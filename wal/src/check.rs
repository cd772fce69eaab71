//! Looking for damage in a segment that is complete: record by record, and by its digest.

use std::path::PathBuf;

use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{
    Digest, HeaderSeed, RECORD_ALIGN, RECORD_HEADER_LEN, RecordHeader, RecordKind,
};

use crate::header::SegmentHeader;
use crate::scan::parse;

/// So many ranges of one segment are told apart; one more reaches to its end.
pub const DAMAGE_MAX: usize = 64;

/// A range of a log that does not hold what it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where it begins.
    pub from: Lsn,
    /// Where whole records begin again, or the segment ends.
    pub to: Lsn,
    /// What is wrong there.
    pub what: String,
}

/// What a look at a whole segment found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentCheck {
    /// The segment.
    pub base: Lsn,
    /// How many bytes of records are whole.
    pub bytes: u64,
    /// How many records are.
    pub records: u64,
    /// The ranges that are damaged; none if the segment is whole.
    pub damaged: Vec<Damage>,
}

/// What is known of a complete segment from elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// The digest of everything before it.
    pub(crate) before: Option<Digest>,
    /// Where it was ended by an epoch that began behind it, and the digest up to there.
    pub(crate) end: Option<(Lsn, Digest)>,
}

impl SegmentCheck {
    /// A segment of which nothing can be read.
    pub(crate) fn unreadable(base: Lsn, end: Lsn, path: PathBuf, what: String) -> Self {
        let damaged = vec![Damage { path, from: base, to: end, what }];
        Self { base, bytes: 0, records: 0, damaged }
    }

    /// Looks at a complete segment.
    pub(crate) fn of(header: &SegmentHeader, path: PathBuf, bytes: &[u8], known: Known) -> Self {
        let base = header.base;
        let mut check = Self { base, bytes: 0, records: 0, damaged: Vec::new() };
        let seed = header.seed();
        let first = SegmentSize::first_record(base);
        let end = known.end.map_or(header.size.next_base(base), |(end, _)| end);
        let mut digest = known.before;
        let mut at = first;
        while at < end {
            let offset = usize::try_from(at.distance_from(base)).unwrap_or(usize::MAX);
            let (record, payload) = match parse(bytes, offset, at, seed) {
                Ok(record) => record,
                Err(error) => {
                    let room = check.damaged.len() < DAMAGE_MAX - 1;
                    let to = if room { next_record(bytes, base, at, end, seed) } else { end };
                    let (path, what) = (path.clone(), error.to_string());
                    check.damaged.push(Damage { path, from: at, to, what });
                    (digest, at) = (None, to);
                    continue;
                }
            };
            if record.kind == RecordKind::Seal && digest.is_some_and(|it| !is_of(payload, it)) {
                let what = "its records do not have the digest that its SEAL says".to_owned();
                check.damaged.push(Damage { path: path.clone(), from: first, to: at, what });
            }
            check.records += 1;
            check.bytes += record.stored_len();
            digest = digest.map(|digest| digest.with(&record));
            at = record.end();
            if record.kind == RecordKind::Seal {
                return check;
            }
        }
        let ended = known.end.zip(digest);
        if ended.is_some_and(|((_, says), is)| says != is) {
            let what = "its records do not have the digest that the next BARRIER says".to_owned();
            check.damaged.push(Damage { path, from: first, to: end, what });
        }
        check
    }
}

/// Whether a SEAL's payload says this digest.
pub(crate) fn is_of(payload: &[u8], digest: Digest) -> bool {
    payload == digest.0.to_le_bytes()
}

/// Where the first record behind a damaged one begins.
fn next_record(bytes: &[u8], base: Lsn, damaged: Lsn, end: Lsn, seed: HeaderSeed) -> Lsn {
    let rest = |at: Lsn| {
        let offset = usize::try_from(at.distance_from(base)).unwrap_or(usize::MAX);
        bytes.get(offset..).unwrap_or_default()
    };
    // Under a good header a damaged payload has a length.
    if let Ok(header) = RecordHeader::decode(rest(damaged), damaged, seed) {
        return header.end().min(end);
    }
    let mut at = damaged.advance(RECORD_ALIGN);
    while at < end && rest(at).len() >= RECORD_HEADER_LEN {
        if RecordHeader::decode(rest(at), at, seed).is_ok() {
            return at;
        }
        at = at.advance(RECORD_ALIGN);
    }
    end
}
