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

    /// Whether the header is not one that anybody wrote: its checksum says so.
    fn has_torn_header(&self) -> bool {
        let fields = self.damaged.get(..FIELDS_LEN).and_then(<[u8]>::split_last_chunk::<4>);
        fields.is_none_or(|(fields, crc)| crc32(fields) != u32::from_le_bytes(*crc))
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

/// CRC-32 as zlib has it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let shift = |crc: u32| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    let take = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc));
    !bytes.iter().fold(u32::MAX, take)
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
        // A segment without records is nobody's loss: it is made anew.
        let is_used = |pair: &&Pair<'_>| self.records.iter().any(|record| pair.holds(record.lsn));
        let torn = pairs.iter().filter(is_used).find(|pair| pair.has_torn_header());
        match outcome {
            Outcome::Read(_) if torn.is_some() => {
                let base = torn.map_or(0, |pair| pair.base);
                Err(format!("the header of segment {base} is damaged, unnoticed"))
            }
            // No crash shortens a file that has its name.
            Outcome::Read(_) if pairs.iter().any(Pair::has_other_len) => {
                Err("a segment that was cut short is read, unnoticed".to_owned())
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Read;

    /// Three records of 64 bytes, the last of which promises the two before it.
    fn records() -> Vec<Written> {
        let record = |number: u8| {
            let lsn = 4_096 + u64::from(number) * 64;
            let promise = if number == 2 { lsn } else { 0 };
            let payload = vec![number; 32].into();
            Written { kind: 1, tag: 0, payload, lsn, end: lsn + 64, promise, epoch: None }
        };
        (0..3).map(record).collect()
    }

    fn found(count: usize) -> Outcome {
        let read = |it: Written| Read {
            kind: it.kind,
            tag: it.tag,
            payload: it.payload.to_vec(),
            lsn: it.lsn,
            end: it.end,
        };
        let records = records().into_iter().take(count).map(read).collect();
        Outcome::Read(Found { records, ..Found::default() })
    }

    fn judged(offset: usize, outcome: &Outcome) -> Result<Met, String> {
        let mut whole = vec![0; 8_192];
        let crc = crc32(&whole[..74]);
        whole[74..78].copy_from_slice(&crc.to_le_bytes());
        let mut damaged = whole.clone();
        damaged[offset] ^= 1;
        let pairs = [Pair { base: 0, whole: &whole, damaged: &damaged }];
        Known { records: &records(), noted: 0 }.judge(&pairs, outcome)
    }

    #[test]
    fn damage_below_a_promise_must_be_refused() {
        let refused = Outcome::Refused(String::new());
        assert_eq!(judged(4_096 + 40, &refused), Ok(Met::Refused));
        assert!(judged(4_096 + 40, &found(0)).is_err(), "a torn tail below a promise");
        assert!(judged(4_096 + 40, &found(3)).is_err(), "not even noticed");
        assert!(judged(20, &found(3)).is_err() && judged(20, &found(0)).is_err(), "a header");
        assert_eq!(judged(20, &refused), Ok(Met::Refused));
    }

    #[test]
    fn damage_behind_the_last_promise_is_a_torn_tail_and_nothing_else_is_lost() {
        assert_eq!(judged(4_224 + 40, &found(2)), Ok(Met::Torn));
        assert!(judged(4_224 + 40, &found(1)).is_err(), "more than the damage is gone");
        let refused = Outcome::Refused(String::new());
        assert!(judged(4_224 + 40, &refused).is_err(), "a crash may leave that");
    }

    #[test]
    fn what_means_nothing_is_harmless() {
        for offset in [80, 4_000, 5_000] {
            assert_eq!(judged(offset, &found(3)), Ok(Met::Harmless));
            assert!(judged(offset, &found(2)).is_err());
        }
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
