//! The verdict: what the clients were told, held against the new primary's log and every node's
//! state.

use std::collections::{BTreeMap, HashMap};

use super::workload::{Attempt, Ledger};
use super::write::WriteId;

/// Findings of one kind that are printed; the rest is only counted.
const SHOWN_MAX: usize = 10;

/// Every write in the log, per key and in log order.
pub(super) type LoggedWrites = BTreeMap<String, Vec<WriteId>>;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Acknowledged writes.
    pub(super) acked: usize,
    /// Acknowledged writes that the log does not hold.
    pub(super) lost: usize,
    /// Values, orders and states that are not what they must be.
    pub(super) diverged: usize,
    /// What exactly, for whoever has to look.
    pub(super) findings: Vec<String>,
}

impl Verdict {
    /// Every acknowledged write is in the log; every write in the log was sent once, and after
    /// everything below it on its key that was already acknowledged.
    pub(super) fn of_log(ledgers: &[Ledger], logged: &LoggedWrites) -> Self {
        let mut verdict = Self::default();
        let attempts = attempts_by_write(ledgers);
        let mut copies: HashMap<WriteId, usize> = HashMap::new();
        for write in logged.values().flatten() {
            *copies.entry(*write).or_default() += 1;
        }
        for write in ledgers.iter().flat_map(Ledger::acked) {
            verdict.acked += 1;
            if !copies.contains_key(&write) {
                verdict.lost += 1;
                verdict.find(format!("lost: {write:?} on {} was acknowledged", write.key()));
            }
        }
        for (write, count) in &copies {
            if *count > 1 || !attempts.contains_key(write) {
                verdict.diverge(format!("{write:?} is in the log {count} times"));
            }
        }
        for (key, writes) in logged {
            verdict.check_order(key, writes, &attempts);
        }
        verdict
    }

    /// Real time and log order agree: nothing that was acknowledged before another was sent may
    /// stand behind it.
    fn check_order(&mut self, key: &str, writes: &[WriteId], attempts: &HashMap<WriteId, Attempt>) {
        let mut acked_above_us = u64::MAX;
        for write in writes.iter().rev() {
            let Some(attempt) = attempts.get(write) else {
                continue;
            };
            if acked_above_us < attempt.sent_us {
                self.diverge(format!("{key}: {write:?} was sent after what stands behind it"));
            }
            acked_above_us = acked_above_us.min(attempt.acked_us.unwrap_or(u64::MAX));
        }
    }

    /// A node shows for every key the last write of the log, which is the last acknowledged one
    /// or a later one of unknown outcome.
    pub(super) fn check_values(
        &mut self,
        node: &str,
        logged: &LoggedWrites,
        values: &BTreeMap<String, Option<WriteId>>,
    ) {
        for (key, writes) in logged {
            let shown = values.get(key).copied().flatten();
            if shown != writes.last().copied() {
                let last = writes.last();
                self.diverge(format!("{node} shows {shown:?} for {key}, the log says {last:?}"));
            }
        }
    }

    /// Nodes at the same position have the same digest of their state.
    pub(super) fn check_digests(&mut self, digests: &[(String, Vec<String>)]) {
        for pair in digests.windows(2) {
            if pair[0].1 != pair[1].1 {
                self.diverge(format!("the states differ: {:?} and {:?}", pair[0], pair[1]));
            }
        }
    }

    fn diverge(&mut self, finding: String) {
        self.diverged += 1;
        self.find(finding);
    }

    fn find(&mut self, finding: String) {
        if self.findings.len() < SHOWN_MAX {
            self.findings.push(finding);
        }
    }
}

fn attempts_by_write(ledgers: &[Ledger]) -> HashMap<WriteId, Attempt> {
    let numbered = |ledger: &Ledger| {
        let connection = ledger.connection;
        let attempts = ledger.attempts.clone().into_iter().enumerate();
        attempts.map(move |(sequence, attempt)| {
            (WriteId { connection, sequence: sequence as u64 }, attempt)
        })
    };
    ledgers.iter().flat_map(numbered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: [WriteId; 3] = [
        WriteId { connection: 0, sequence: 0 },
        WriteId { connection: 0, sequence: 1 },
        WriteId { connection: 0, sequence: 2 },
    ];

    /// Three writes of one connection; the second is of unknown outcome.
    fn ledgers() -> Vec<Ledger> {
        let attempt = |sent_us, acked_us| Attempt { sent_us, acked_us };
        let attempts = vec![attempt(0, Some(9)), attempt(10, None), attempt(20, Some(29))];
        vec![Ledger { connection: 0, attempts, resumed_us: None }]
    }

    fn logged(writes: &[WriteId]) -> LoggedWrites {
        BTreeMap::from([("k".to_owned(), writes.to_vec())])
    }

    fn counts(writes: &[WriteId]) -> (usize, usize, usize) {
        let verdict = Verdict::of_log(&ledgers(), &logged(writes));
        (verdict.acked, verdict.lost, verdict.diverged)
    }

    #[test]
    fn a_write_of_unknown_outcome_may_be_there_or_not() {
        assert_eq!(counts(&[W[0], W[1], W[2]]), (2, 0, 0));
        assert_eq!(counts(&[W[0], W[2]]), (2, 0, 0));
    }

    #[test]
    fn a_lost_write_is_found() {
        assert_eq!(counts(&[W[0], W[1]]), (2, 1, 0));
    }

    #[test]
    fn wrong_order_doubles_and_strangers_are_found() {
        assert_eq!(counts(&[W[2], W[0]]), (2, 0, 1), "acknowledged before the other was sent");
        assert_eq!(counts(&[W[0], W[2], W[2]]), (2, 0, 1), "twice");
        let stranger = WriteId { connection: 7, sequence: 0 };
        assert_eq!(counts(&[W[0], stranger, W[2]]), (2, 0, 1), "never sent");
    }

    #[test]
    fn a_node_that_shows_another_value_is_found() {
        let logged = logged(&[W[0], W[2]]);
        for (shown, diverged) in [(Some(W[2]), 0), (Some(W[0]), 1), (None, 1)] {
            let mut verdict = Verdict::default();
            verdict.check_values("a", &logged, &BTreeMap::from([("k".to_owned(), shown)]));
            assert_eq!(verdict.diverged, diverged, "{shown:?}");
        }
    }

    #[test]
    fn states_that_differ_are_found() {
        let digest =
            |node: &str, hex: &str| (node.to_owned(), vec!["100".to_owned(), hex.to_owned()]);
        let mut verdict = Verdict::default();
        verdict.check_digests(&[digest("a", "1f"), digest("b", "1f"), digest("c", "1f")]);
        assert_eq!(verdict.diverged, 0);
        verdict.check_digests(&[digest("a", "1f"), digest("b", "1f"), digest("c", "2f")]);
        assert_eq!(verdict.diverged, 1);
    }
}
