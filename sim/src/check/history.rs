//! What clients did and saw, and whether registers that are written and read one operation at a
//! time could have shown them that.

use crate::engine::{KEYS, Put};

/// Not yet.
const NEVER: u64 = u64::MAX;

/// A value's write, and all the reads that returned it.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    key: u8,
    /// When the write began, and when it was answered: perhaps never.
    invoked: u64,
    answered: u64,
    /// Over the write and its reads: the first answer, and the last beginning.
    first_answer: u64,
    last_invoked: u64,
    read: bool,
}

#[derive(Clone, Copy, Debug)]
struct ReadOp {
    key: u8,
    invoked: u64,
}

/// All operations of a run. Time is a count of what happened.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    time: u64,
    /// By value less one: no two writes have the same.
    clusters: Vec<Cluster>,
    reads: Vec<ReadOp>,
    /// Reads of a key nobody had written, by key: the last beginning.
    initial: [u64; KEYS],
}

impl Operations {
    fn tick(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    /// The value that the next write has.
    pub(crate) fn next_value(&self) -> u64 {
        self.clusters.len() as u64 + 1
    }

    pub(crate) fn invoke_write(&mut self, put: Put) {
        assert_eq!(put.value, self.next_value(), "values are unique");
        let invoked = self.tick();
        self.clusters.push(Cluster {
            key: put.key,
            invoked,
            answered: NEVER,
            first_answer: NEVER,
            last_invoked: invoked,
            read: false,
        });
    }

    pub(crate) fn answer_write(&mut self, value: u64) {
        let now = self.tick();
        let cluster = &mut self.clusters[value as usize - 1];
        cluster.answered = now;
        cluster.first_answer = cluster.first_answer.min(now);
    }

    /// The write was answered and is lost all the same, as was accepted. Nobody may have read it.
    pub(crate) fn give_up(&mut self, value: u64) {
        let cluster = &mut self.clusters[value as usize - 1];
        assert!(!cluster.read, "write {value} was read: what was read can not be taken back");
        (cluster.answered, cluster.first_answer) = (NEVER, NEVER);
    }

    pub(crate) fn invoke_read(&mut self, key: u8) -> usize {
        let invoked = self.tick();
        self.reads.push(ReadOp { key, invoked });
        self.reads.len() - 1
    }

    /// A read returned `value`; 0 is what a key holds that nobody wrote.
    pub(crate) fn answer_read(&mut self, op: usize, value: u64) {
        let now = self.tick();
        let ReadOp { key, invoked } = self.reads[op];
        let Some(at) = (value as usize).checked_sub(1) else {
            let initial = &mut self.initial[usize::from(key)];
            *initial = (*initial).max(invoked);
            return;
        };
        let cluster = &mut self.clusters[at];
        assert_eq!(cluster.key, key, "a read of key {key} returned what was written to another");
        cluster.first_answer = cluster.first_answer.min(now);
        cluster.last_invoked = cluster.last_invoked.max(invoked);
        cluster.read = true;
    }

    /// Whether there is one order of all operations on each key that agrees with when they began
    /// and ended. With unique values there is, exactly if no cluster that must be whole at one
    /// time overlaps another (Gibbons & Korach, "Testing Shared Memories", 1997).
    pub(crate) fn check(&self) {
        for key in 0..KEYS {
            // A write that was never answered nor read may never have happened.
            let of_key = |cluster: &Cluster| {
                usize::from(cluster.key) == key && (cluster.answered != NEVER || cluster.read)
            };
            let mut forward = vec![(0, self.initial[key], 0)];
            let mut backward = Vec::new();
            for (value, cluster) in (1..).zip(&self.clusters).filter(|(_, it)| of_key(it)) {
                let (first, last) = (cluster.first_answer, cluster.last_invoked);
                assert!(first > cluster.invoked, "a read of key {key} foresaw its write");
                // From the first answer to the last beginning the register held this value.
                if first < last {
                    forward.push((first, last, value));
                } else {
                    backward.push((last, first, value));
                }
            }
            forward.sort_unstable();
            for pair in forward.windows(2) {
                assert!(
                    pair[0].1 < pair[1].0,
                    "key {key} is not linearizable: {} was seen after {}, and {1} after {0}",
                    pair[0].2,
                    pair[1].2
                );
            }
            for (from, to, value) in backward {
                let within = forward.iter().find(|(low, high, _)| *low < from && to < *high);
                if let Some((.., seen)) = within {
                    panic!("key {key} is not linearizable: {seen} was seen after {value}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(operations: &mut Operations) -> u64 {
        let value = operations.next_value();
        operations.invoke_write(Put { key: 0, value });
        value
    }

    fn linearizable(operations: &Operations) -> bool {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| operations.check())).is_ok()
    }

    #[test]
    fn a_read_sees_the_last_write_that_was_answered() {
        let mut operations = Operations::default();
        for _ in 0..2 {
            let value = write(&mut operations);
            operations.answer_write(value);
        }
        let read = operations.invoke_read(0);
        operations.answer_read(read, 2);
        assert!(linearizable(&operations));
        let read = operations.invoke_read(0);
        operations.answer_read(read, 1);
        assert!(!linearizable(&operations), "1 was overwritten by 2 before the read began");
    }

    #[test]
    fn what_nobody_wrote_is_not_seen_after_a_write() {
        let mut operations = Operations::default();
        let value = write(&mut operations);
        operations.answer_write(value);
        let read = operations.invoke_read(0);
        operations.answer_read(read, 0);
        assert!(!linearizable(&operations));
    }

    #[test]
    fn an_unanswered_write_may_have_happened_once_and_for_all() {
        let mut operations = Operations::default();
        let first = write(&mut operations);
        let second = write(&mut operations);
        operations.answer_write(first);
        let read = operations.invoke_read(0);
        operations.answer_read(read, first);
        assert!(linearizable(&operations), "the second write may come later");
        let read = operations.invoke_read(0);
        operations.answer_read(read, second);
        assert!(linearizable(&operations), "it came between the reads");
        let read = operations.invoke_read(0);
        operations.answer_read(read, first);
        assert!(!linearizable(&operations), "it can not be undone");
    }

    #[test]
    fn operations_that_overlap_may_take_either_order() {
        let mut operations = Operations::default();
        let read = operations.invoke_read(0);
        let value = write(&mut operations);
        operations.answer_write(value);
        operations.answer_read(read, 0);
        assert!(linearizable(&operations));
    }
}
