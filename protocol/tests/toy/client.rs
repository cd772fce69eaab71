//! Clients: unique writes and linearizable reads on whatever node says that it is open.

use super::Plant;
use super::node::{Node, Read, Write};
use super::rng::mix;
use super::world::{Event, World};

impl World {
    pub(crate) fn client(&mut self) {
        let pause_ms = self.rng.range(2, 25);
        self.at(pause_ms, Event::Client);
        let nodes = 0..self.nodes.len();
        let open: Vec<usize> =
            nodes.filter(|node| self.nodes[*node].open_epoch().is_some()).collect();
        // More than one may think it is the primary; each has its own clients.
        for node in open {
            // At times a node's clients only read, so that an idle primary's reads are seen too.
            let reads_only = mix(self.now_ms / 300 * 8 + node as u64) % 3 == 0;
            let quiesced = self.up(node).is_some_and(|up| up.quiesced.is_some());
            if !reads_only && !quiesced && self.rng.chance(60) {
                self.write(node);
            }
            if self.rng.chance(40) {
                self.read(node);
            }
        }
    }

    fn write(&mut self, node: usize) {
        for _ in 0..self.rng.range(1, 4) {
            let most = if self.rng.chance(10) { 15_000 } else { 400 };
            let len = self.rng.range(0, most) as u32;
            let Some(epoch) = self.nodes[node].open_epoch() else { return };
            let id = self.checks.next_id();
            let Node { disk, up, .. } = &mut self.nodes[node];
            let Some(up) = up else { return };
            let end = disk.append(id, len);
            up.machine.handle_appended(end);
            up.writes.push(Write { id, end, epoch });
        }
        self.ship(node);
        self.start_flush(node);
    }

    fn read(&mut self, node: usize) {
        let Some(epoch) = self.nodes[node].open_epoch() else { return };
        let acked = self.checks.last_acked();
        let stale = self.plant == Some(Plant::StaleRead);
        let Node { disk, up, .. } = &mut self.nodes[node];
        let Some(up) = up else { return };
        let seen = if stale { up.applied } else { disk.end() };
        let round = up.machine.request_round().expect("an open primary leads");
        up.reads.push(Read { seen, acked, round, epoch });
        self.beat(node);
    }

    /// Answers the writes that are committed and the reads whose round is over.
    pub(crate) fn answer(&mut self, node: usize) {
        let Some(epoch) = self.nodes[node].open_epoch() else { return };
        let (plant, now_ms) = (self.plant, self.now_ms);
        let Node { disk, up, .. } = &mut self.nodes[node];
        let Some(up) = up else { return };
        let committed = match plant {
            Some(Plant::ReplyOnOwnFlush) => disk.durable_end(),
            _ => up.machine.committed(),
        };
        let seen = match plant {
            Some(Plant::ReadWithoutRound) => u64::MAX,
            _ => up.machine.rounds_seen(),
        };
        let done = |write: &Write| write.end <= committed && write.epoch == epoch;
        let (answered, waiting) = std::mem::take(&mut up.writes).into_iter().partition(done);
        up.writes = waiting;
        let leased = up.machine.has_lease(now_ms);
        let over = |read: &Read| {
            (read.round <= seen || leased) && read.seen <= committed && read.epoch == epoch
        };
        let (read, waiting) = std::mem::take(&mut up.reads).into_iter().partition(over);
        up.reads = waiting;
        self.checks.acknowledged(node, epoch, answered);
        self.checks.read(read);
    }
}
