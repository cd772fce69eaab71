//! What must hold, written without a look at the product's rules. A violation panics.

mod history;
mod life;
mod loss;

use std::collections::BTreeMap;

use towline_protocol::epoch::Epoch;
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::RoleView;
use towline_protocol::record::RECORD_HEADER_LEN;
use towline_protocol::voters::Voters;
use towline_wal::Wal;

use crate::disk::SEGMENT;
use crate::engine::{Engine, Put};
use crate::node::{Node, Running, Write, index};
use history::Operations;
use life::{DiskLife, Rec};

/// One in so many committed records is looked for in the files themselves.
const LOOKED_FOR: usize = 40;

#[derive(Debug)]
pub(crate) struct Checks {
    lives: Vec<DiskLife>,
    /// By node: which of the lives is the one it has.
    current: Vec<usize>,
    /// The committed log, as far as any node ever knew it, and the engine after each record.
    committed: Vec<Rec>,
    engines: Vec<u64>,
    engine: Engine,
    /// The voters of the committed log's newest BARRIER.
    voters: Voters,
    /// Those of the founding.
    founding: Voters,
    /// By value: where it is committed.
    places: BTreeMap<u64, usize>,
    /// Values that were said to be lost.
    lost: Vec<u64>,
    operations: Operations,
    /// Who acknowledged in an epoch.
    owners: BTreeMap<Epoch, usize>,
    acked: Lsn,
    acknowledged: Vec<Write>,
    unanswered: Vec<Write>,
    /// The reads that were answered, by operation.
    answered: Vec<usize>,
}

impl Checks {
    pub(crate) fn new(voters: Voters, lives: &[Incarnation]) -> Self {
        let founded = lives.iter().enumerate().map(|(node, life)| DiskLife::new(node, *life));
        Self {
            lives: founded.collect(),
            current: (0..lives.len()).collect(),
            committed: Vec::new(),
            engines: Vec::new(),
            engine: Engine::default(),
            founding: voters.clone(),
            voters,
            places: BTreeMap::new(),
            lost: Vec::new(),
            operations: Operations::default(),
            owners: BTreeMap::new(),
            acked: Lsn::ZERO,
            acknowledged: Vec::new(),
            unanswered: Vec::new(),
            answered: Vec::new(),
        }
    }

    fn life(&mut self, node: usize) -> &mut DiskLife {
        &mut self.lives[self.current[node]]
    }

    pub(crate) fn next_value(&self) -> u64 {
        self.operations.next_value()
    }

    pub(crate) const fn last_acked(&self) -> Lsn {
        self.acked
    }

    pub(crate) fn end(&self) -> Lsn {
        self.committed.last().map_or(Lsn::ZERO, |rec| rec.end)
    }

    /// After every event at `node`.
    pub(crate) fn check(&mut self, node: usize, nodes: &[Node]) {
        let Some(up) = &nodes[node].up else { return };
        let life = &mut self.lives[self.current[node]];
        life.follow(&up.wal);
        life.reach(up.fence, up.wal.flushed());
        let committed = up.machine.committed();
        if life.checked >= committed || life.given_up {
            return;
        }
        let forgot = nodes.iter().any(|node| node.replaced);
        let quarantined = up.machine.role() == RoleView::Quarantined;
        assert!(!quarantined || forgot, "quarantined: {:?}", up.machine.quarantined());
        let known = self.committed.len();
        self.compare(node, up);
        self.lives[self.current[node]].checked = committed;
        if self.committed.len() > known {
            self.durable_on_w(nodes);
        }
    }

    /// What a node takes for committed is what every other one does.
    fn compare(&mut self, node: usize, up: &Running) {
        let life = &self.lives[self.current[node]];
        let to = up.machine.committed();
        let (first, last) = (life.count_to(life.checked), life.count_to(to));
        let end = last.checked_sub(1).map_or(Lsn::ZERO, |last| life.records[last].end);
        assert_eq!(end, to, "committed {to} is no end of a record it holds");
        for at in first..last {
            let rec = &life.records[at];
            if let Some(known) = self.committed.get(at) {
                assert!(rec.is(known), "two committed logs differ at {}", rec.lsn);
                continue;
            }
            if let Some(Put { value, .. }) = rec.put {
                let twice = self.places.insert(value, at);
                assert_eq!(twice, None, "write {value} is committed twice");
                assert!(!self.lost.contains(&value), "write {value} was said to be lost");
            }
            if let Some(terms) = &rec.terms {
                self.voters = terms.sets.newest().clone();
            }
            self.engine.apply(rec.end, rec.put);
            self.engines.push(self.engine.digest);
            self.committed.push(rec.clone());
        }
    }

    /// W voters hold the newest committed record on disk, and each of them had it there before
    /// it obeyed an epoch above the one it was committed in. What was destroyed later counts.
    fn durable_on_w(&self, nodes: &[Node]) {
        let Some(at) = self.committed.len().checked_sub(1) else { return };
        let rec = &self.committed[at];
        let sets = rec.terms.as_ref().map(|terms| terms.sets.as_slice());
        let sets = sets.unwrap_or(std::slice::from_ref(&self.voters));
        for set in sets {
            let newest = set.generation == self.voters.generation;
            let replaced = set.replaced_in(&self.voters).count() > 0;
            let needed = if newest || !replaced { set.w() } else { set.w().min(set.n() - 1) };
            let holds = |voter: &towline_protocol::voters::Voter| {
                self.lives.iter().any(|life| {
                    life.node == index(voter.node)
                        && life.incarnation == voter.incarnation
                        && life.held_in_time(at, rec)
                })
            };
            // A disk that is replaced has no say in it.
            let gone = |voter: &towline_protocol::voters::Voter| {
                let now = self.voters.get(voter.node).map(|now| now.incarnation);
                now.is_some_and(|now| now != voter.incarnation)
            };
            let left = set.members().iter().filter(|voter| !gone(voter));
            let holders = left.filter(|voter| holds(voter)).count();
            assert!(
                holders >= needed,
                "{} of epoch {} is committed, but only {holders} voters held it on disk before \
                 they obeyed a higher epoch; it takes {needed}",
                rec.end,
                rec.epoch,
            );
        }
        if self.committed.len() % LOOKED_FOR == 1 {
            self.in_the_files(at, nodes);
        }
    }

    /// What is said to be on a sound disk is there: in the bytes, not in anybody's memory.
    fn in_the_files(&self, at: usize, nodes: &[Node]) {
        let rec = &self.committed[at];
        for (node, life) in self.current.iter().enumerate() {
            let life = &self.lives[*life];
            if life.damaged || life.flushed() < rec.end || !life.held_in_time(at, rec) {
                continue;
            }
            let base = SEGMENT.base_of(rec.lsn);
            let name = format!("{:020}.wal", base.get());
            let files = nodes[node].store.disk.files();
            let file = files.iter().find(|(path, _)| {
                path.ends_with(&name) && !path.to_string_lossy().contains("salvage")
            });
            let from = SEGMENT.offset_of(rec.lsn) as usize;
            let bytes = file.and_then(|(_, bytes)| bytes.get(from..from + RECORD_HEADER_LEN));
            let held = bytes.is_some_and(|bytes| bytes[8..16] == rec.lsn.get().to_le_bytes());
            assert!(held, "n{node} says it holds the record at {}; its disk does not", rec.lsn);
        }
    }

    /// The engine of a node holds what the committed log says, no more and nothing else.
    pub(crate) fn applied(&self, node: usize, engine: &Engine) {
        if self.is_given_up(node) {
            return;
        }
        let at = self.committed.partition_point(|rec| rec.end < engine.applied);
        let rec = self.committed.get(at).filter(|rec| rec.end == engine.applied);
        assert!(rec.is_some(), "n{node} applied up to {}: nothing committed", engine.applied);
        assert_eq!(
            engine.digest, self.engines[at],
            "n{node}'s engine is not what the log says at {}",
            engine.applied
        );
    }

    /// A node is up again, or its log is open again after a cut.
    pub(crate) fn reopened(&mut self, node: usize, wal: &Wal) {
        self.life(node).reopened(wal);
    }

    /// The end of the record before the one that ends at `to`.
    pub(crate) fn end_before(&mut self, node: usize, to: Lsn) -> Lsn {
        let life = self.life(node);
        let count = life.count_to(to).saturating_sub(1);
        count.checked_sub(1).map_or(Lsn::ZERO, |last| life.records[last].end)
    }

    pub(crate) fn cut(&mut self, node: usize, to: Lsn) {
        let life = self.life(node);
        let known = life.given_up || to >= life.checked;
        assert!(known, "a cut to {to}, below what is committed");
        // Its node forgot that it knew better.
        life.given_up = false;
        life.checked = life.checked.min(to);
        life.cut(to);
    }

    /// A node goes down: it holds no cursor any more.
    pub(crate) fn down(&mut self, node: usize) {
        self.life(node).forget_cursor();
    }

    /// Which of all the disks there were is the one that the node has.
    pub(crate) fn disk(&self, node: usize) -> usize {
        self.current[node]
    }

    /// The node has one of its earlier disks again.
    pub(crate) fn put_back(&mut self, node: usize, disk: usize) {
        assert_eq!(self.lives[disk].node, node, "a disk of its own");
        self.current[node] = disk;
    }

    pub(crate) fn incarnation(&self, node: usize) -> Incarnation {
        self.lives[self.current[node]].incarnation
    }

    /// How far the node's disk is known to have been written.
    pub(crate) fn flushed(&self, node: usize) -> Lsn {
        self.lives[self.current[node]].flushed()
    }

    pub(crate) fn damaged(&mut self, node: usize) {
        self.life(node).damaged = true;
    }

    /// The node has another disk; `empty` unless it goes on with what the old one held.
    pub(crate) fn replaced(&mut self, node: usize, life: Incarnation, empty: bool) {
        let mut fresh = DiskLife::new(node, life);
        if !empty {
            fresh.records = self.life(node).records.clone();
            fresh.damaged = true;
        }
        self.current[node] = self.lives.len();
        self.lives.push(fresh);
    }

    pub(crate) fn invoke_write(&mut self, put: Put) {
        self.operations.invoke_write(put);
    }

    pub(crate) fn invoke_read(&mut self, key: u8) -> usize {
        self.operations.invoke_read(key)
    }

    pub(crate) fn acknowledged(&mut self, node: usize, epoch: Epoch, writes: &[Write]) {
        let owner = *self.owners.entry(epoch).or_insert(node);
        assert_eq!(owner, node, "two nodes acknowledge in epoch {epoch}");
        for write in writes {
            self.acked = self.acked.max(write.end);
            self.acknowledged.push(*write);
            self.operations.answer_write(write.value);
        }
    }

    pub(crate) fn is_acknowledged(&self, value: u64) -> bool {
        self.acknowledged.iter().any(|write| write.value == value)
    }

    pub(crate) fn is_answered(&self, op: usize) -> bool {
        self.answered.contains(&op)
    }

    /// Nobody will answer these any more.
    pub(crate) fn unknown(&mut self, writes: &[Write]) {
        self.unanswered.extend_from_slice(writes);
    }

    pub(crate) fn unanswered(&self) -> &[Write] {
        &self.unanswered
    }

    pub(crate) fn said_committed(&self, write: Write) {
        let place = self.places.get(&write.value).map(|at| self.committed[*at].end);
        assert_eq!(place, Some(write.end), "write {} is not committed, as was said", write.value);
    }

    pub(crate) fn said_lost(&mut self, write: Write) {
        let place = self.places.get(&write.value);
        assert_eq!(place, None, "write {} is committed; it was said to be lost", write.value);
        self.lost.push(write.value);
    }

    /// A read is answered: it shows nothing that is not committed.
    pub(crate) fn read(&mut self, op: usize, value: u64) {
        let committed = value == 0 || self.places.contains_key(&value);
        assert!(committed, "a read returned {value}, which is not committed");
        self.answered.push(op);
        self.operations.answer_read(op, value);
    }

    /// A primary opens: every write acknowledged by anybody so far must be in its log. Not so if
    /// another opened a higher epoch before: this one was paused, learns late that its BARRIER was
    /// committed in time, and will commit nothing more.
    pub(crate) fn opened(&self, node: usize, epoch: Epoch) {
        let life = &self.lives[self.current[node]];
        let when = format_args!("n{node} opens {epoch}");
        self.holds_acknowledged(&life.records, Some(epoch), &when);
    }

    pub(crate) fn finish(&mut self, nodes: &[Node]) {
        self.operations.check();
        for (node, Node { up, .. }) in nodes.iter().enumerate() {
            let life = &self.lives[self.current[node]];
            let upto = &life.records[..self.committed.len()];
            let equal = upto.iter().zip(&self.committed).all(|(held, rec)| held.is(rec));
            assert!(equal, "n{node}'s log differs at the end");
            if let Some(up) = up {
                assert_eq!(up.engine.values, self.engine.values, "n{node}'s engine differs");
            }
        }
        self.holds_acknowledged(&self.committed, None, &"at the end");
    }

    /// The log holds what was acknowledged, in any epoch or in those up to one.
    fn holds_acknowledged(
        &self,
        records: &[Rec],
        upto: Option<Epoch>,
        when: &dyn std::fmt::Display,
    ) {
        let counts = |write: &&Write| upto.is_none_or(|upto| write.epoch <= upto);
        for write in self.acknowledged.iter().filter(counts) {
            let at = records.partition_point(|rec| rec.end < write.end);
            let held = records.get(at).and_then(|rec| rec.put).map(|put| put.value);
            assert_eq!(
                held,
                Some(write.value),
                "{when}: acknowledged write {} at {} is lost",
                write.value,
                write.end
            );
        }
    }

    /// Whether the node's disk is the one that counts, by what is committed, or need not count.
    pub(crate) fn counts(&self, node: usize) -> bool {
        let life = self.incarnation(node);
        let voter = self.voters.members().iter().find(|voter| index(voter.node) == node);
        voter.is_none_or(|voter| voter.incarnation == life)
    }
}
