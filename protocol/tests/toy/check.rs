//! What must hold, written without a look at the product's rules. A violation panics.

use std::collections::BTreeMap;

use towline_protocol::epoch::Epoch;
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::RoleView;
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};

use super::disk::{Disk, Rec};
use super::node::{Node, Read, Write, index};

#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) handed_over: u64,
    /// The committed log, as far as any node ever knew it.
    committed: Vec<Rec>,
    /// The end of the newest acknowledged write.
    acked: Lsn,
    /// Every acknowledged write: its end and its id.
    ledger: BTreeMap<Lsn, u64>,
    /// Who acknowledged in an epoch.
    owners: BTreeMap<Epoch, usize>,
    /// By node and disk: how far it reached under each fence it had. A disk that is gone has
    /// reached what it reached.
    reached: BTreeMap<(usize, Incarnation), Vec<(Epoch, Lsn)>>,
    ids: u64,
}

impl Checks {
    pub(crate) fn new() -> Self {
        Self {
            handed_over: 0,
            committed: Vec::new(),
            acked: Lsn::ZERO,
            ledger: BTreeMap::new(),
            owners: BTreeMap::new(),
            reached: BTreeMap::new(),
            ids: 0,
        }
    }

    pub(crate) const fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(crate) const fn last_acked(&self) -> Lsn {
        self.acked
    }

    pub(crate) fn end(&self) -> Lsn {
        self.committed.last().map_or(Lsn::ZERO, Rec::end)
    }

    /// After every event at `node`.
    pub(crate) fn check(&mut self, node: usize, nodes: &mut [Node]) {
        self.flushed(node, &nodes[node]);
        let Node { disk, up: Some(up), .. } = &nodes[node] else { return };
        assert_ne!(up.machine.role(), RoleView::Quarantined, "quarantined");
        let (from, to) = (up.checked, up.machine.committed());
        assert!(up.applied <= to, "applied {} over committed {to}", up.applied);
        if from == to {
            return;
        }
        let (first, last) = (disk.count_to(from), disk.count_to(to));
        assert_eq!(disk.end_of(last), to, "committed {to} is no end of a record it holds");
        for at in first..last {
            let rec = &disk.records[at];
            match self.committed.get(at) {
                Some(known) => assert_eq!(rec, known, "two committed logs differ"),
                None => self.committed.push(rec.clone()),
            }
        }
        self.durable_on_w(disk, last, nodes);
        if let Some(up) = &mut nodes[node].up {
            up.checked = to;
        }
    }

    /// W voters hold the newest committed record on disk, and each of them had it there before
    /// it obeyed an epoch above the one it was committed in.
    fn durable_on_w(&self, disk: &Disk, count: usize, nodes: &[Node]) {
        if count < self.committed.len() {
            return; // Known to be committed before.
        }
        let Some(rec) = count.checked_sub(1).map(|last| &disk.records[last]) else { return };
        let holds = |voter: &&Voter| {
            let at = index(voter.node);
            let node = &nodes[at];
            let gone = node.identity.incarnation != voter.incarnation;
            let durable = &node.disk.records[..node.disk.durable];
            let reached = self.reached.get(&(at, voter.incarnation));
            let in_time = reached.is_some_and(|reached| {
                reached.iter().any(|(f, end)| *f <= rec.epoch && *end >= rec.end())
            });
            in_time && (gone || durable.get(count - 1) == Some(rec))
        };
        let holders = |set: &Voters| set.members().iter().filter(holds).count();
        let barrier = disk.records[..count].iter().rev().find_map(|rec| rec.terms.as_ref());
        let Terms { sets, .. } = barrier.expect("an epoch begins with a BARRIER");
        let (newest, older) = sets.as_slice().split_last().expect("there is always a set");
        let said = format!("{} of epoch {} is committed", rec.end(), rec.epoch);
        let held = holders(newest);
        assert!(held >= newest.w(), "{said}, but only {held} hold it: it takes {}", newest.w());
        for set in older.iter().filter(|_| rec.terms.is_some()) {
            let replaced = set.members().iter().any(|voter| {
                newest.get(voter.node).is_some_and(|now| now.incarnation != voter.incarnation)
            });
            let w = if replaced { set.w().min(set.n() - 1) } else { set.w() };
            let held = holders(set);
            assert!(held >= w, "{said}, but only {held} of the older set hold it: it takes {w}");
        }
    }

    pub(crate) fn flushed(&mut self, at: usize, node: &Node) {
        let disk = &node.disk;
        let reached = self.reached.entry((at, node.identity.incarnation)).or_default();
        match reached.last_mut() {
            Some((fence, end)) if *fence >= disk.fence => *end = (*end).max(disk.durable_end()),
            _ => reached.push((disk.fence, disk.durable_end())),
        }
    }

    pub(crate) fn cut(&mut self, node: usize, to: Lsn) {
        let of_node = self.reached.iter_mut().filter(|((at, _), _)| *at == node);
        for (_, end) in of_node.flat_map(|(_, reached)| reached) {
            *end = (*end).min(to);
        }
    }

    pub(crate) fn acknowledged(&mut self, node: usize, epoch: Epoch, writes: Vec<Write>) {
        for write in writes {
            let owner = *self.owners.entry(epoch).or_insert(node);
            assert_eq!(owner, node, "two nodes acknowledge in epoch {epoch}");
            self.acked = self.acked.max(write.end);
            let other = self.ledger.insert(write.end, write.id);
            assert_eq!(other, None, "two writes are acknowledged at {}", write.end);
        }
    }

    /// A read that is answered must have seen every write acknowledged before it began.
    pub(crate) fn read(&self, reads: Vec<Read>) {
        for Read { seen, acked, epoch, .. } in reads {
            assert!(
                acked <= seen,
                "a read in epoch {epoch} saw the log up to {seen}; before it began, a write up to \
                 {acked} was acknowledged"
            );
        }
    }

    /// A primary opens: every write acknowledged by anybody so far must be in its log.
    pub(crate) fn opened(&self, node: &Node, epoch: Epoch) {
        self.holds_acknowledged(&node.disk, &format!("{} opens {epoch}", node.identity.node));
    }

    pub(crate) fn finish(&self, nodes: &[Node]) {
        for node in nodes {
            let upto = &node.disk.records[..self.committed.len()];
            assert_eq!(upto, self.committed, "{}'s log differs at the end", node.identity.node);
            self.holds_acknowledged(&node.disk, "at the end");
        }
    }

    fn holds_acknowledged(&self, disk: &Disk, when: &str) {
        for (end, id) in &self.ledger {
            let at = disk.records.partition_point(|rec| rec.end() < *end);
            let held = disk.records.get(at).filter(|rec| rec.end() == *end).map(|rec| rec.id);
            assert_eq!(held, Some(*id), "{when}: acknowledged write {id} at {end} is lost");
        }
    }
}
