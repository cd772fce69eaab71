//! Judges what a damaged log says of itself. Written apart from the log, as the oracle is: it
//! compares the damaged bytes with the whole ones, and knows where the writer put which record.

use crate::oracle::{Found, Oracle, Written};

/// A segment's header fields and their checksum: what follows in its page means nothing.
const FIELDS_LEN: usize = 78;
/// A record's header; its payload follows.
const RECORD_HEADER_LEN: u64 = 32;

/// One segment's file, whole and damaged.
pub(super) struct Pair<'a> {
    pub(super) base: u64,
    pub(super) whole: &'a [u8],
    pub(super) damaged: &'a [u8],
}

impl Pair<'_> {
    fn holds(&self, lsn: u64) -> bool {
        (self.base..self.base + self.whole.len() as u64).contains(&lsn)
    }

    fn has_other_len(&self) -> bool {
        self.whole.len() != self.damaged.len()
    }

    /// Whether any byte in a range of Lsns is another or gone.
    fn is_hurt(&self, from: u64, to: u64) -> bool {
        let at = |lsn: u64| usize::try_from(lsn - self.base).unwrap_or(usize::MAX);
        self.whole.get(at(from)..at(to)) != self.damaged.get(at(from)..at(to))
    }

    fn has_hurt_header(&self) -> bool {
        self.whole.get(..FIELDS_LEN) != self.damaged.get(..FIELDS_LEN)
    }

    /// The Lsn of the first byte that is another or gone.
    fn first_hurt(&self) -> Option<u64> {
        let differing = self.whole.iter().zip(self.damaged).position(|(one, two)| one != two);
        let ended = self.has_other_len().then(|| self.whole.len().min(self.damaged.len()));
        differing.or(ended).map(|offset| self.base + offset as u64)
    }
}

/// What is known of the log from outside.
pub(super) struct Known<'a> {
    pub(super) records: &'a [Written],
    /// What a control file that is whole says to be durable.
    pub(super) noted: u64,
}

/// What became of opening and reading it.
pub(super) enum Outcome {
    Read(Found),
    Refused(String),
}

/// How damage was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Met {
    Harmless,
    Torn,
    Refused,
}

impl Known<'_> {
    fn is_hurt(&self, pairs: &[Pair<'_>], record: &Written, len: u64) -> bool {
        pairs
            .iter()
            .filter(|pair| pair.holds(record.lsn))
            .any(|pair| pair.has_hurt_header() || pair.is_hurt(record.lsn, record.lsn + len))
    }

    /// Judges what was said of the damage.
    pub(super) fn judge(&self, pairs: &[Pair<'_>], outcome: &Outcome) -> Result<Met, String> {
        let whole = |record: &Written| RECORD_HEADER_LEN + record.payload.len() as u64;
        let first_hurt =
            self.records.iter().position(|record| self.is_hurt(pairs, record, whole(record)));
        // What promises are left to read: each lies in its record's header.
        let left = self.records.iter().filter(|it| !self.is_hurt(pairs, it, RECORD_HEADER_LEN));
        let evidence = left.map(|record| record.promise).fold(self.noted, u64::max);
        let lost = first_hurt.map(|at| &self.records[at]).filter(|record| record.end <= evidence);
        match outcome {
            Outcome::Refused(error) => self.judge_refusal(pairs, error),
            Outcome::Read(_) if lost.is_some() => {
                let at = lost.map_or(0, |record| record.lsn);
                Err(format!("a record at {at} is damaged below the promise {evidence}, unnoticed"))
            }
            Outcome::Read(found) => self.judge_read(found, first_hurt),
        }
    }

    /// A refusal is right unless all the damage lies where a crash may leave anything.
    fn judge_refusal(&self, pairs: &[Pair<'_>], error: &str) -> Result<Met, String> {
        let promise = self.records.iter().map(|it| it.promise).fold(self.noted, u64::max);
        let first = pairs.iter().filter_map(Pair::first_hurt).min();
        let hurts_files = pairs.iter().any(|pair| pair.has_hurt_header() || pair.has_other_len());
        match first {
            None => Err(format!("a whole log is refused: {error}")),
            Some(first) if !hurts_files && first >= promise => Err(format!(
                "damage from {first} on, behind the last promise {promise}, is called a loss: \
                 {error}"
            )),
            Some(_) => Ok(Met::Refused),
        }
    }

    /// What is read is a beginning of what was written, and holds all that lies before the damage.
    fn judge_read(&self, found: &Found, first_hurt: Option<usize>) -> Result<Met, String> {
        let mut oracle = Oracle::default();
        for record in self.records {
            oracle.appended(record.clone());
        }
        oracle.durable_count(first_hurt.unwrap_or(self.records.len()));
        oracle.judge(found)?;
        let is_all = found.records.len() == self.records.len();
        Ok(if is_all { Met::Harmless } else { Met::Torn })
    }
}
