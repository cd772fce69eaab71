//! What a test can see.

use towline_protocol::epoch::Epoch;
use towline_protocol::frame::Refusal;
use towline_protocol::id::Incarnation;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{RoleView, Verdict};
use towline_protocol::record::Digest;
use towline_protocol::voters::Voters;
use towline_wal::WalError;
use towline_wal::simulated::SimDisk;

use super::act::EXTRA_LEN;
use super::{Asked, Cluster, Written};
use crate::engine::Put;
use crate::node::{Running, name};

impl Cluster {
    /// The node that is open for clients; the one with the highest epoch if there are several.
    #[must_use]
    pub fn primary(&self) -> Option<usize> {
        self.world.open_primary()
    }

    /// All nodes that say that they are open.
    #[must_use]
    pub fn open_nodes(&self) -> Vec<usize> {
        (0..self.len()).filter(|node| self.is_open(*node)).collect()
    }

    /// Whether `node` says that it is open for clients.
    #[must_use]
    pub fn is_open(&self, node: usize) -> bool {
        self.world.nodes[node].open_epoch().is_some()
    }

    /// Whether `node` runs.
    #[must_use]
    pub fn is_up(&self, node: usize) -> bool {
        self.up(node).is_some()
    }

    /// What `node` is by the rules; `None` while it is down.
    #[must_use]
    pub fn role(&self, node: usize) -> Option<RoleView> {
        self.up(node).map(|up| up.machine.role())
    }

    /// Whether `node` follows a primary's live stream.
    #[must_use]
    pub fn streams(&self, node: usize) -> bool {
        self.role(node) == Some(RoleView::Replica { streaming: true })
    }

    /// Whether `node` counts as a voter, as far as it knows.
    #[must_use]
    pub fn votes(&self, node: usize) -> bool {
        self.running(node).machine.votes()
    }

    /// The highest epoch `node` obeys.
    #[must_use]
    pub fn fence(&self, node: usize) -> Epoch {
        self.running(node).machine.fence()
    }

    /// The epochs of the log of `node`, oldest first.
    #[must_use]
    pub fn epochs(&self, node: usize) -> Vec<Epoch> {
        self.running(node).wal.history().starts().iter().map(|start| start.epoch).collect()
    }

    /// The end of the log of `node`.
    #[must_use]
    pub fn appended(&self, node: usize) -> Lsn {
        self.running(node).wal.appended()
    }

    /// How far the log of `node` is on disk.
    #[must_use]
    pub fn flushed(&self, node: usize) -> Lsn {
        self.running(node).wal.flushed()
    }

    /// How far `node` knows that its log is committed.
    #[must_use]
    pub fn committed(&self, node: usize) -> Lsn {
        self.running(node).machine.committed()
    }

    /// How far `node` has applied its log.
    #[must_use]
    pub fn applied(&self, node: usize) -> Lsn {
        self.running(node).engine.applied
    }

    /// What the engine of `node` holds under `key`; 0 if nothing.
    #[must_use]
    pub fn value(&self, node: usize, key: u8) -> u64 {
        self.running(node).engine.values[usize::from(key)]
    }

    /// The digest of the whole log of `node`.
    #[must_use]
    pub fn digest(&self, node: usize) -> Digest {
        self.running(node).wal.digest()
    }

    /// How far `primary` knows that `replica` holds its log on disk.
    #[must_use]
    pub fn acked_by(&self, primary: usize, replica: usize) -> Lsn {
        let known = self.running(primary).machine.replicas();
        let known = known.iter().find(|(node, _)| *node == name(replica));
        known.map_or(Lsn::ZERO, |(_, progress)| progress.flushed)
    }

    /// Whether a client was told that the write is done.
    #[must_use]
    pub fn is_acknowledged(&self, written: &Written) -> bool {
        self.world.checks.is_acknowledged(written.value)
    }

    /// Whether a client was told the read's value.
    #[must_use]
    pub fn is_answered(&self, asked: &Asked) -> bool {
        self.world.checks.is_answered(asked.op)
    }

    /// How many writes ended without an answer.
    #[must_use]
    pub fn unknown(&self) -> usize {
        self.world.checks.unanswered().len()
    }

    /// Why `node` is quarantined; `None` if it is not.
    #[must_use]
    pub fn quarantine(&self, node: usize) -> Option<&str> {
        self.running(node).machine.quarantined()
    }

    /// Why `node` was refused last by one it dialed; `None` if it never was refused.
    #[must_use]
    pub fn refused(&self, node: usize) -> Option<Refusal> {
        self.world.nodes[node].refused
    }

    /// The incarnation of the disk that `node` has.
    #[must_use]
    pub fn incarnation(&self, node: usize) -> Incarnation {
        self.world.checks.incarnation(node)
    }

    /// The voters by the newest BARRIER that `node` holds.
    #[must_use]
    pub fn voters(&self, node: usize) -> &Voters {
        self.running(node).machine.voters()
    }

    /// Whether the newest epoch in the log of `node` began with an accepted loss.
    #[must_use]
    pub fn began_with_a_loss(&self, node: usize) -> bool {
        self.running(node).wal.history().starts().last().is_some_and(|start| start.accepted_loss)
    }

    /// What became of the write, by `node`.
    #[must_use]
    pub fn verdict(&self, node: usize, written: &Written) -> Verdict {
        self.running(node).machine.verdict(written.epoch, written.end)
    }

    /// Whether `node` may answer reads by its lease, now.
    #[must_use]
    pub fn has_lease(&mut self, node: usize) -> bool {
        let now_ms = self.world.local_ms(node);
        self.is_open(node) && self.world.running(node).machine.has_lease(now_ms)
    }

    /// The disk of `node`.
    #[must_use]
    pub fn disk(&self, node: usize) -> &SimDisk {
        &self.world.nodes[node].store.disk
    }

    /// Whether anything was ever cut off the log of `node`.
    #[must_use]
    pub fn was_cut(&self, node: usize) -> bool {
        let files = self.disk(node).files();
        files.iter().any(|(path, _)| path.to_string_lossy().contains("salvage"))
    }

    /// Whether the salvage of `node` holds a record of this write.
    #[must_use]
    pub fn salvaged(&self, node: usize, written: &Written) -> bool {
        let mut payload = Vec::new();
        Put { key: written.key, value: written.value }.encode(EXTRA_LEN, &mut payload);
        self.disk(node).files().iter().any(|(path, bytes)| {
            path.to_string_lossy().contains("salvage")
                && bytes.windows(payload.len()).any(|window| window == payload.as_slice())
        })
    }

    /// Opens the log of a node that is down, as its start would, and closes it again: where it
    /// ends.
    ///
    /// # Errors
    /// What its start would say.
    pub fn opens(&self, node: usize) -> Result<Lsn, WalError> {
        let wal = self.world.nodes[node].store.open()?;
        let end = wal.appended();
        drop(wal);
        self.disk(node).kill();
        Ok(end)
    }

    pub(super) fn running(&self, node: usize) -> &Running {
        self.up(node).expect("only a node that runs can be looked at")
    }
}
