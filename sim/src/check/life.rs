//! The checks' own memory of one disk: what was in its log, and how far it was on the disk.

use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{Digest, RecordKind};
use towline_protocol::terms::Terms;
use towline_wal::{Cursor, Level, Wal};

use crate::engine::Put;

/// A record, as every node must hold it.
#[derive(Clone, Debug)]
pub(crate) struct Rec {
    pub(crate) lsn: Lsn,
    pub(crate) end: Lsn,
    pub(crate) kind: RecordKind,
    pub(crate) epoch: Epoch,
    /// The digest of the log with this record: of its position, length, kind and payload.
    pub(crate) digest: Digest,
    pub(crate) put: Option<Put>,
    /// What a BARRIER lays down.
    pub(crate) terms: Option<Box<Terms>>,
}

impl Rec {
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.lsn, self.end, self.kind, self.epoch, self.digest)
            == (other.lsn, other.end, other.kind, other.epoch, other.digest)
    }
}

/// One life of a node's disk.
#[derive(Debug)]
pub(crate) struct DiskLife {
    pub(crate) node: usize,
    pub(crate) incarnation: Incarnation,
    pub(crate) records: Vec<Rec>,
    cursor: Option<Cursor>,
    /// How far the disk reached under each fence it had, lowest first.
    reached: Vec<(Epoch, Lsn)>,
    /// How far its log was compared with the committed one.
    pub(crate) checked: Lsn,
    /// The disk was damaged: it may hold less than it did.
    pub(crate) damaged: bool,
    /// It knows something to be committed that an operator gave up.
    pub(crate) given_up: bool,
}

impl DiskLife {
    pub(crate) const fn new(node: usize, incarnation: Incarnation) -> Self {
        Self {
            node,
            incarnation,
            records: Vec::new(),
            cursor: None,
            reached: Vec::new(),
            checked: Lsn::ZERO,
            damaged: false,
            given_up: false,
        }
    }

    pub(crate) fn end(&self) -> Lsn {
        self.records.last().map_or(Lsn::ZERO, |rec| rec.end)
    }

    /// How many records end at or before `lsn`.
    pub(crate) fn count_to(&self, lsn: Lsn) -> usize {
        self.records.partition_point(|rec| rec.end <= lsn)
    }

    /// Takes in what the log holds by now.
    pub(crate) fn follow(&mut self, wal: &Wal) {
        if wal.appended() <= self.end() {
            return;
        }
        let end = self.end();
        let cursor = self.cursor.get_or_insert_with(|| {
            wal.cursor(end, Level::Appended).expect("the log holds what it held")
        });
        loop {
            let record = match cursor.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => return,
                Err(_) if self.damaged => return,
                Err(error) => panic!("the log can not be read: {error}"),
            };
            let last = self.records.last();
            let (digest, epoch) =
                last.map_or((Digest::EMPTY, Epoch::NONE), |last| (last.digest, last.epoch));
            let kind = record.header.kind;
            let barrier = match kind {
                RecordKind::Barrier => Barrier::decode(&record.payload).ok(),
                _ => None,
            };
            self.records.push(Rec {
                lsn: record.header.lsn,
                end: record.header.end(),
                kind,
                epoch: barrier.as_ref().map_or(epoch, |barrier| barrier.epoch),
                digest: digest.with(&record.header),
                put: match kind {
                    RecordKind::Data => Put::decode(&record.payload),
                    _ => None,
                },
                terms: barrier.map(|barrier| Box::new(barrier.terms)),
            });
        }
    }

    /// The log was opened again: what was flushed before must be there, unless it was damaged or
    /// cut in between, and what is there must be what was.
    pub(crate) fn reopened(&mut self, wal: &Wal) {
        let flushed = self.flushed();
        assert!(
            wal.flushed() >= flushed || self.damaged,
            "{} was flushed, {} is left after a restart",
            flushed,
            wal.flushed()
        );
        self.cursor = None;
        self.truncate(wal.appended());
        self.follow(wal);
        if !self.damaged {
            let known = self.records.last().map_or(Digest::EMPTY, |rec| rec.digest);
            assert_eq!(wal.digest(), known, "the log is not what it was before a restart");
        }
    }

    pub(crate) fn forget_cursor(&mut self) {
        self.cursor = None;
    }

    pub(crate) fn cut(&mut self, to: Lsn) {
        self.cursor = None;
        self.truncate(to);
        for (_, end) in &mut self.reached {
            *end = (*end).min(to);
        }
    }

    fn truncate(&mut self, to: Lsn) {
        let count = self.count_to(to);
        self.records.truncate(count);
    }

    pub(crate) fn flushed(&self) -> Lsn {
        self.reached.iter().map(|(_, end)| *end).max().unwrap_or(Lsn::ZERO)
    }

    /// Notes that everything below `end` is on the disk, whose fence is `fence`.
    pub(crate) fn reach(&mut self, fence: Epoch, end: Lsn) {
        match self.reached.last_mut() {
            Some((known, reached)) if *known >= fence => *reached = (*reached).max(end),
            _ => self.reached.push((fence, end)),
        }
    }

    /// Whether it held `rec`, the record numbered `at`, on disk before it obeyed anything higher.
    pub(crate) fn held_in_time(&self, at: usize, rec: &Rec) -> bool {
        let held = self.records.get(at).is_some_and(|held| held.is(rec));
        held && self.reached.iter().any(|(fence, end)| *fence <= rec.epoch && *end >= rec.end)
    }
}
