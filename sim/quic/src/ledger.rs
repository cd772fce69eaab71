//! What clients and engines saw, and whether that may be. It knows nothing of how nodes work: only
//! what they promise.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use towline_protocol::epoch::Epoch;
use towline_protocol::id::NodeId;
use towline_protocol::lsn::Lsn;

use crate::trace::Trace;

/// The book of one run.
pub(crate) struct Ledger {
    trace: Trace,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    values: u64,
    /// Acknowledged writes, by where their records end.
    acknowledged: BTreeMap<Lsn, u64>,
    /// What an engine was given, by where it ends, and the end of what it was given before.
    applied: BTreeMap<Lsn, (Lsn, u64)>,
    /// Who acknowledged in an epoch.
    owners: BTreeMap<Epoch, NodeId>,
    /// The furthest that a read which is over has seen.
    seen: Lsn,
    reads: u64,
    violations: Vec<String>,
}

/// A call of a client that is under way: what was known to be so when it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// The number of the value that is written; reads have none.
    pub(crate) value: u64,
    /// The end of the last write that was acknowledged by then, or that a read had seen.
    floor: Lsn,
}

impl Ledger {
    pub(crate) fn new(trace: Trace) -> Self {
        Self { trace, book: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened that must not.
    pub(crate) fn violated(&self, what: String) {
        self.trace.event(format_args!("VIOLATION: {what}"));
        self.book().violations.push(what);
    }

    /// A client begins to write a new value.
    pub(crate) fn writes(&self) -> Call {
        let mut book = self.book();
        book.values += 1;
        Call { value: book.values, floor: book.floor() }
    }

    /// A client begins to read.
    pub(crate) fn reads(&self) -> Call {
        Call { value: 0, floor: self.book().floor() }
    }

    /// A write was acknowledged.
    pub(crate) fn wrote(&self, call: Call, node: NodeId, epoch: Epoch, end: Lsn) {
        self.trace.event(format_args!("{node} acknowledges {} at {end} in {epoch}", call.value));
        self.owns(epoch, node);
        if end <= call.floor {
            let (value, floor) = (call.value, call.floor);
            self.violated(format!("{value} is at {end}, though {floor} was settled before it"));
        }
        if let Some(other) = self.book().acknowledged.insert(end, call.value) {
            self.violated(format!("{other} and {} were both acknowledged at {end}", call.value));
        }
    }

    /// A read is over: it has seen everything below `seen`.
    pub(crate) fn read(&self, call: Call, node: NodeId, epoch: Epoch, seen: Lsn) {
        self.trace.event(format_args!("{node} shows everything below {seen} in {epoch}"));
        self.owns(epoch, node);
        if seen < call.floor {
            let floor = call.floor;
            self.violated(format!("a read of {node} in {epoch} saw {seen}, not {floor}: stale"));
        }
        let mut book = self.book();
        book.seen = book.seen.max(seen);
        book.reads += 1;
    }

    fn owns(&self, epoch: Epoch, node: NodeId) {
        let owner = *self.book().owners.entry(epoch).or_insert(node);
        if owner != node {
            self.violated(format!("{owner} and {node} both acknowledged in {epoch}"));
        }
    }

    /// An engine was given a record.
    pub(crate) fn applied(&self, node: NodeId, before: Lsn, end: Lsn, value: u64) {
        if end <= before {
            self.violated(format!("{node} applied {end} after {before}"));
        }
        let known = *self.book().applied.entry(end).or_insert((before, value));
        if known != (before, value) {
            self.violated(format!(
                "{node} applied {value} at {end} after {before}; another node {} after {}",
                known.1, known.0
            ));
        }
    }

    /// How many writes and reads were acknowledged.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let book = self.book();
        (book.acknowledged.len() as u64, book.reads)
    }

    /// Compares what a node's engine holds at the end with what was acknowledged.
    pub(crate) fn settle(&self, node: NodeId, holds: &[(Lsn, u64)]) {
        let book = self.book();
        let held: BTreeMap<Lsn, u64> = holds.iter().copied().collect();
        let lost = book.acknowledged.iter().find(|(end, value)| held.get(end) != Some(value));
        let lost = lost.map(|(end, value)| format!("{node} lacks {value}, acknowledged at {end}"));
        let applied = book.applied.iter().map(|(end, (_, value))| (*end, *value));
        // Nothing may be visible anywhere, ever, that is not there in the end.
        let differs = !applied.eq(holds.iter().copied());
        drop(book);
        lost.into_iter().for_each(|lost| self.violated(lost));
        if differs {
            self.violated(format!("{node} does not hold what engines were given"));
        }
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.book().violations.clone()
    }
}

impl Book {
    fn floor(&self) -> Lsn {
        self.acknowledged.keys().next_back().map_or(self.seen, |end| self.seen.max(*end))
    }
}
