//! What a test can do.

use towline_protocol::epoch::Epoch;
use towline_protocol::machine::{Change, Failover, Failure};
use towline_protocol::record::RecordKind;
use towline_protocol::voters::{Voter, Voters};
use towline_wal::WalError;

use super::{Asked, Cluster, Written};
use crate::engine::{KEYS, Put};
use crate::node::{Read, Write, name};
use crate::world::Event;

/// How much longer than it needs to be the payload of a write is, in bytes.
pub(super) const EXTRA_LEN: usize = 100;

impl Cluster {
    /// Executes a write to `key` on `node`; whether it is acknowledged is another matter. `None`
    /// if the node takes none, or has no room for it.
    pub fn execute(&mut self, node: usize, key: u8) -> Option<Written> {
        self.execute_long(node, key, EXTRA_LEN)
    }

    /// The same with a payload that is `extra` bytes longer than it needs to be.
    ///
    /// # Panics
    /// If the disk of the node fails, or there is no such key.
    pub fn execute_long(&mut self, node: usize, key: u8, extra: usize) -> Option<Written> {
        assert!(usize::from(key) < KEYS, "there are keys 0 to {}", KEYS - 1);
        let epoch = self.world.nodes[node].open_epoch()?;
        if self.running(node).quiesced.is_some() {
            return None;
        }
        let value = self.world.checks.next_value();
        let put = Put { key, value };
        let mut payload = Vec::new();
        put.encode(extra, &mut payload);
        let up = self.world.running(node);
        let end = match up.wal.append(RecordKind::Data, 0, &payload) {
            Ok(appended) => appended.end,
            Err(WalError::NoSpace(_)) => return None,
            Err(error) => panic!("n{node} can not append: {error}"),
        };
        up.view[usize::from(key)] = value;
        up.machine.handle_appended(end);
        up.writes.push(Write { value, end, epoch });
        self.world.checks.invoke_write(put);
        self.world.ship(node).expect("what was appended can be read");
        self.world.start_flush(node);
        Some(Written { value, key, end, epoch })
    }

    /// Evaluates a read of `key` on `node`, which is answered after its round. `None` if the node
    /// takes none.
    ///
    /// # Panics
    /// If the log of the node can not be read.
    pub fn read(&mut self, node: usize, key: u8) -> Option<Asked> {
        let epoch = self.world.nodes[node].open_epoch()?;
        let up = self.world.running(node);
        let round = up.machine.request_round().ok()?;
        let (value, seen) = (up.view[usize::from(key)], up.wal.appended());
        let op = self.world.checks.invoke_read(key);
        self.world.running(node).reads.push(Read { op, value, seen, round, epoch });
        self.world.beat(node).expect("what was appended can be read");
        Some(Asked { op, value })
    }

    /// The process of `node` ends: what the kernel has not written yet is still there.
    pub fn kill(&mut self, node: usize) {
        self.world.crash(node, false);
    }

    /// The power of `node` fails: what was not synced may be gone.
    pub fn power_cut(&mut self, node: usize) {
        self.world.crash(node, true);
    }

    /// Starts `node` if it is down.
    pub fn restart(&mut self, node: usize) {
        if !self.is_up(node) {
            self.world.restart(node);
        }
    }

    /// From here on nothing gets from `from` to `to`.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.world.net.cut(from, to);
    }

    /// From here on nothing gets from one to the other, either way.
    pub fn cut(&mut self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Cuts `node` off from all others.
    pub fn isolate(&mut self, node: usize) {
        for other in (0..self.len()).filter(|other| *other != node) {
            self.cut(node, other);
        }
    }

    /// Breaks every connection there is; nodes dial again.
    pub fn break_connections(&mut self) {
        self.world.net.break_all();
    }

    /// Nothing is cut, lost or repeated any more.
    pub fn heal(&mut self) {
        self.world.net.heal();
    }

    /// Of a hundred frames on no connection so many are lost, so many come twice; and a packet
    /// takes up to `delay_ms`.
    pub fn weather(&mut self, loss: u64, twice: u64, delay_ms: u64) {
        let net = &mut self.world.net;
        (net.loss, net.twice, net.delay_ms) = (loss, twice, delay_ms);
    }

    /// `node` handles nothing for `ms`, and then everything late: a long pause of its process.
    pub fn pause(&mut self, node: usize, ms: u64) {
        let until_ms = self.world.now_ms + ms;
        let paused_until_ms = &mut self.world.nodes[node].paused_until_ms;
        *paused_until_ms = (*paused_until_ms).max(Some(until_ms));
        self.world.at(ms, Event::Wake(node));
    }

    /// The clock of `node` jumps ahead by `ms`.
    pub fn jump(&mut self, node: usize, ms: u64) {
        self.world.nodes[node].clock.ahead_ms += ms;
    }

    /// The disk of `node` takes nothing more, or there is room again.
    pub fn set_full(&mut self, node: usize, full: bool) {
        let store = &mut self.world.nodes[node].store;
        store.full = full;
        store.disk.set_full(full);
    }

    /// Promotes `node`. How it ends is told by [`Cluster::ended`].
    ///
    /// # Errors
    /// [`Failure`] if it can not even begin.
    ///
    /// # Panics
    /// If it is down.
    pub fn promote(&mut self, node: usize, how: Failover) -> Result<(), Failure> {
        let now_ms = self.world.local_ms(node);
        let begun = self.world.running(node).machine.promote(how, now_ms);
        self.world.pump(node);
        begun
    }

    /// Promotes `node` and waits for the end of it.
    ///
    /// # Errors
    /// [`Failure`] if it does not become primary.
    ///
    /// # Panics
    /// If no end is told.
    pub fn promoted(&mut self, node: usize, how: Failover) -> Result<Epoch, Failure> {
        let _of_before = self.last_ended(node);
        self.promote(node, how)?;
        for _ in 0..5_000 {
            if let Some(ended) = self.ended(node) {
                return ended;
            }
            self.run_for(1);
        }
        panic!("the promotion of n{node} neither failed nor succeeded")
    }

    /// The primary `from` hands over to `to`, or to whichever voter is fit. How it ends is told
    /// by [`Cluster::ended`].
    ///
    /// # Errors
    /// [`Failure`] if it can not even begin.
    ///
    /// # Panics
    /// If `from` is down.
    pub fn hand_over(&mut self, from: usize, to: Option<usize>) -> Result<(), Failure> {
        let now_ms = self.world.local_ms(from);
        let begun = self.world.running(from).machine.hand_over(to.map(name), now_ms);
        self.world.pump(from);
        begun
    }

    /// The disk of `node` is gone. It is founded anew on an empty one, as another life, which does
    /// not count, and starts a little later.
    pub fn wipe(&mut self, node: usize) {
        self.world.crash(node, true);
        self.world.replace(node);
    }

    /// Takes the disk of `node` out, power off, and puts it on the shelf. The node is founded anew
    /// on an empty one, as by [`Cluster::wipe`].
    pub fn replace_disk(&mut self, node: usize) {
        self.world.crash(node, true);
        self.shelf[node] =
            Some((self.world.nodes[node].store.copy(), self.world.checks.disk(node)));
        self.world.replace(node);
    }

    /// Exchanges the disk of `node` for the one on the shelf, power off, and starts it.
    ///
    /// # Panics
    /// If there is none.
    pub fn exchange_disk(&mut self, node: usize) {
        self.world.crash(node, true);
        let seed = self.world.rng.next();
        let at = &mut self.world.nodes[node];
        let (copy, disk) = self.shelf[node].take().expect("a disk was put on the shelf");
        self.shelf[node] = Some((at.store.copy(), self.world.checks.disk(node)));
        at.store = at.store.restored(&copy, seed);
        self.world.checks.put_back(node, disk);
        self.restart(node);
    }

    /// Whatever `survivor` does not hold now need not survive: said before a loss that the rules
    /// are not to blame for, while all who hold more are down.
    pub fn give_up_all_but(&mut self, survivor: usize) {
        self.world.checks.give_up(survivor);
    }

    /// Keeps a copy of what is on the disk of `node`.
    pub fn back_up(&mut self, node: usize) {
        self.world.nodes[node].copy = Some(self.world.nodes[node].store.copy());
    }

    /// Starts `node` on the copy that was kept, under the incarnation it has there, as if nobody
    /// had noticed.
    ///
    /// # Panics
    /// If there is no copy or the node runs.
    pub fn restore_unnoticed(&mut self, node: usize) {
        assert!(!self.is_up(node), "a disk is replaced while its node is down");
        let seed = self.world.rng.next();
        let at = &mut self.world.nodes[node];
        let copy = at.copy.take().expect("a backup was made");
        at.store = at.store.restored(&copy, seed);
        at.replaced = true;
        let incarnation = self.world.checks.incarnation(node);
        self.world.checks.replaced(node, incarnation, false);
        self.restart(node);
    }

    /// The disk of `node` as it is now counts as a voter's from the next epoch on.
    ///
    /// # Errors
    /// [`Failure`] if the primary can not do so.
    ///
    /// # Panics
    /// If `node` never voted.
    pub fn grant(&mut self, primary: usize, node: usize) -> Result<(), Failure> {
        let incarnation = self.incarnation(node);
        let voters = self.running(primary).machine.voters().granting(name(node), incarnation);
        let lease_ms = self.world.lease_ms;
        self.change(primary, Change { voters: voters.expect("it is a voter"), lease_ms })
    }

    /// From the next epoch on these nodes vote and `w` of them commit, or a majority if `None`.
    ///
    /// # Errors
    /// [`Failure`] if the primary can not do so.
    ///
    /// # Panics
    /// If there are none, or more than five.
    pub fn set_voters(
        &mut self,
        primary: usize,
        nodes: &[usize],
        w: Option<u8>,
    ) -> Result<(), Failure> {
        let voter = |node: &usize| Voter {
            node: name(*node),
            incarnation: self.world.checks.incarnation(*node),
            zone: String::new(),
        };
        let lease_ms = self.world.lease_ms;
        let voters = Voters::new(nodes.iter().map(voter).collect(), w);
        self.change(primary, Change { voters: voters.expect("1 to 5 voters"), lease_ms })
    }

    /// From the next epoch on voters promise for `lease_ms` to let nobody else lead; 0 for not.
    ///
    /// # Errors
    /// [`Failure`] if the primary can not do so.
    pub fn set_lease(&mut self, primary: usize, lease_ms: u32) -> Result<(), Failure> {
        let voters = self.voters(primary).clone();
        self.change(primary, Change { voters, lease_ms })?;
        self.world.lease_ms = lease_ms;
        Ok(())
    }

    fn change(&mut self, primary: usize, change: Change) -> Result<(), Failure> {
        let now_ms = self.world.local_ms(primary);
        let begun = self.world.running(primary).machine.change(change, now_ms);
        self.world.pump(primary);
        begun
    }
}
