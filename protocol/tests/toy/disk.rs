//! What survives a crash: the control state, and the log as far as it was flushed.

use towline_protocol::epoch::{Epoch, EpochStart, History};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{Digest, RecordHeader, RecordKind};
use towline_protocol::terms::Terms;
use towline_protocol::voters::Voters;

use super::rng::Rng;

pub(crate) const SEGMENT: SegmentSize = SegmentSize::MIN;
/// The length of a SEAL's payload, and of a BARRIER's here.
const MARK_LEN: u32 = 8;

/// A record of the toy log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rec {
    pub(crate) header: RecordHeader,
    pub(crate) epoch: Epoch,
    /// What the record says: a number no other write has; 0 for what is not a client's.
    pub(crate) id: u64,
    /// What a BARRIER says.
    pub(crate) start: Option<EpochStart>,
    pub(crate) terms: Option<Terms>,
    /// The digest of the log with this record.
    pub(crate) digest: Digest,
}

impl Rec {
    pub(crate) const fn end(&self) -> Lsn {
        self.header.end()
    }
}

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) fence: Epoch,
    pub(crate) claims: bool,
    pub(crate) founding: Terms,
    /// The log, as a running node sees it; a crash takes what is behind `durable`.
    pub(crate) records: Vec<Rec>,
    /// How many records are on disk.
    pub(crate) durable: usize,
    /// The epochs of `records`.
    pub(crate) history: History,
    /// What the engine would find after a crash.
    pub(crate) applied: Lsn,
    /// What the control file says is committed.
    pub(crate) committed: Lsn,
    /// How often the log was cut: what was begun before a cut must not count after it.
    pub(crate) cuts: u64,
}

impl Disk {
    pub(crate) fn new(voters: Voters, claims: bool) -> Self {
        Self {
            fence: Epoch::NONE,
            claims,
            founding: Terms::founding(voters),
            records: Vec::new(),
            durable: 0,
            history: History::default(),
            applied: Lsn::ZERO,
            committed: Lsn::ZERO,
            cuts: 0,
        }
    }

    pub(crate) fn end_of(&self, count: usize) -> Lsn {
        count.checked_sub(1).map_or(Lsn::ZERO, |last| self.records[last].end())
    }

    pub(crate) fn end(&self) -> Lsn {
        self.end_of(self.records.len())
    }

    pub(crate) fn durable_end(&self) -> Lsn {
        self.end_of(self.durable)
    }

    /// How many records end at or before `lsn`.
    pub(crate) fn count_to(&self, lsn: Lsn) -> usize {
        self.records.partition_point(|rec| rec.end() <= lsn)
    }

    /// The digest up to `lsn`; `None` if no record ends there.
    pub(crate) fn digest_at(&self, lsn: Lsn) -> Option<Digest> {
        let count = self.count_to(lsn);
        (self.end_of(count) == lsn).then(|| self.digest_of(count))
    }

    fn digest_of(&self, count: usize) -> Digest {
        count.checked_sub(1).map_or(Digest::EMPTY, |last| self.records[last].digest)
    }

    /// What the newest BARRIER says.
    pub(crate) fn terms(&self) -> Terms {
        let newest = self.records.iter().rev().find_map(|rec| rec.terms.clone());
        newest.unwrap_or_else(|| self.founding.clone())
    }

    fn push(
        &mut self,
        kind: RecordKind,
        at: Lsn,
        len: u32,
        id: u64,
        barrier: Option<(EpochStart, Terms)>,
    ) {
        let (start, terms) = barrier.unzip();
        let epoch = start.map_or(self.history.last_epoch(), |start| start.epoch);
        let said = id ^ epoch.number << 40 ^ epoch.incarnation.0 << 56;
        let mut header = RecordHeader::new(kind, 0, at, Lsn::ZERO, &said.to_le_bytes());
        header.len = len;
        let digest = self.digest_of(self.records.len()).with(&header);
        if let Some(start) = start {
            self.history.push(start).expect("an epoch follows on the one before it");
        }
        self.records.push(Rec { header, epoch, id, start, terms, digest });
    }

    /// Appends a client's write in the log's epoch, with a SEAL before it if it does not fit.
    pub(crate) fn append(&mut self, id: u64, len: u32) -> Lsn {
        let room = SEGMENT.bytes() - SEGMENT.offset_of(self.end());
        if u64::from(len) + 256 > room {
            let at = self.end();
            self.push(RecordKind::Seal, at, MARK_LEN, 0, None);
        }
        let at = self.next_at();
        self.push(RecordKind::Data, at, len, id, None);
        self.end()
    }

    fn next_at(&self) -> Lsn {
        match self.records.last() {
            Some(rec) if rec.header.kind == RecordKind::Seal => {
                SegmentSize::first_record(SEGMENT.next_base(rec.end()))
            }
            _ => self.end(),
        }
    }

    /// Appends an END: nothing follows on it in this epoch.
    pub(crate) fn append_end(&mut self) -> Lsn {
        self.push(RecordKind::End, self.next_at(), 0, 0, None);
        self.end()
    }

    pub(crate) fn append_barrier(&mut self, epoch: Epoch, terms: Terms, lost: bool) -> Lsn {
        let start = EpochStart {
            epoch,
            first: SEGMENT.barrier_after(self.end()),
            previous: self.history.last_epoch(),
            previous_end: self.end(),
            digest: self.digest_of(self.records.len()),
            accepted_loss: lost,
        };
        self.push(RecordKind::Barrier, start.first, MARK_LEN, 0, Some((start, terms)));
        self.end()
    }

    /// Takes a record of the primary's log. It must follow on this log, as a real log checks.
    pub(crate) fn receive(&mut self, rec: &Rec) {
        let at = rec.header.lsn;
        match rec.start {
            Some(start) => {
                let own = (self.end(), self.digest_of(self.records.len()));
                assert_eq!(own, (start.previous_end, start.digest), "a BARRIER of another past");
                self.history.push(start).expect("a BARRIER of another past");
            }
            None => assert_eq!(at, self.next_at(), "a gap before a record received"),
        }
        let digest = self.digest_of(self.records.len()).with(&rec.header);
        self.records.push(Rec { digest, ..rec.clone() });
    }

    pub(crate) fn cut(&mut self, to: Lsn) {
        self.truncate(self.count_to(to));
        self.cuts += 1;
    }

    fn truncate(&mut self, count: usize) {
        self.records.truncate(count);
        self.durable = self.records.len();
        self.history.cut(self.end());
    }

    /// Loses what was not flushed, but for a random prefix of it.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        let unflushed = self.records.len() - self.durable;
        let kept = self.durable + rng.below(unflushed as u64 + 1) as usize;
        self.truncate(kept);
        self.cuts += 1;
    }
}
