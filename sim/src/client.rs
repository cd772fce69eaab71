//! Clients: unique writes and linearizable reads on whatever node says that it is open.

use towline_protocol::machine::Verdict;
use towline_protocol::record::RecordKind;
use towline_wal::WalError;

use crate::Plant;
use crate::engine::{KEYS, Put};
use crate::node::{Read, Write};
use crate::rng::mix;
use crate::world::{Event, World};

impl World {
    /// Sends every node that says it is open some requests. More than one may think it is the
    /// primary; each has its own clients.
    pub(crate) fn client(&mut self) {
        let pause_ms = self.rng.range(4, 30);
        self.at(pause_ms, Event::Client);
        for node in 0..self.nodes.len() {
            if self.nodes[node].open_epoch().is_some() {
                self.soon(2, Event::Request(node));
            }
        }
        if self.rng.chance(20) {
            self.ask_for_fate();
        }
        self.want_lease();
    }

    pub(crate) fn request(&mut self, node: usize) -> Result<(), WalError> {
        // At times a node's clients only read, so that an idle primary's reads are seen too.
        let reads_only = mix(self.now_ms / 150 * 8 + node as u64) % 3 == 0;
        if !reads_only && self.rng.chance(60) {
            self.write(node)?;
        }
        if self.rng.chance(60) {
            self.read(node)?;
        }
        Ok(())
    }

    fn write(&mut self, node: usize) -> Result<(), WalError> {
        for _ in 0..self.rng.range(1, 3) {
            let Some(epoch) = self.nodes[node].open_epoch() else { return Ok(()) };
            let most = if self.rng.chance(self.large) { 15_000 } else { 200 };
            let extra = self.rng.range(0, most) as usize;
            let key = self.rng.below(KEYS as u64) as u8;
            let answers_at_once = self.plant == Some(Plant::AnswersBehindTheEnd);
            let (full, quiesced) =
                (self.nodes[node].store.full, self.running(node).quiesced.is_some());
            if quiesced && !answers_at_once {
                return Ok(());
            }
            let value = self.checks.next_value();
            let put = Put { key, value };
            let mut payload = std::mem::take(&mut self.payload);
            put.encode(extra, &mut payload);
            let up = self.running(node);
            let appended = up.wal.append(RecordKind::Data, 0, &payload);
            self.payload = payload;
            let end = match appended {
                Ok(appended) => appended.end,
                // No room: the client is told, the node goes on.
                Err(WalError::NoSpace(_)) if full => return Ok(()),
                Err(error) => return Err(error),
            };
            let up = self.running(node);
            up.view[usize::from(key)] = value;
            up.machine.handle_appended(end);
            let write = Write { value, end, epoch };
            self.checks.invoke_write(put);
            self.say(|_| format!("n{node} writes {put:?} up to {end}"));
            if quiesced {
                self.checks.acknowledged(node, epoch, &[write]);
            } else {
                self.running(node).writes.push(write);
            }
        }
        self.ship(node)?;
        self.start_flush(node);
        Ok(())
    }

    fn read(&mut self, node: usize) -> Result<(), WalError> {
        let Some(epoch) = self.nodes[node].open_epoch() else { return Ok(()) };
        let key = self.rng.below(KEYS as u64) as u8;
        let now_ms = self.local_ms(node);
        let plant = self.plant;
        let op = self.checks.invoke_read(key);
        let up = self.running(node);
        let from = if plant == Some(Plant::StaleRead) { &up.engine.values } else { &up.view };
        let value = from[usize::from(key)];
        let seen = match plant {
            Some(Plant::StaleRead) => up.engine.applied,
            Some(Plant::ReadOfUnflushed) => towline_protocol::lsn::Lsn::ZERO,
            _ => up.wal.appended(),
        };
        let by_lease = seen <= up.machine.committed() && up.machine.has_lease(now_ms);
        let round = match up.machine.request_round() {
            Ok(round) => round,
            Err(_) => return Ok(()),
        };
        let round = if by_lease { 0 } else { round };
        let tells = (by_lease, round);
        up.reads.push(Read { op, value, seen, round, epoch });
        self.say(|_| format!("n{node} reads key {key}: {value} (op {op}, lease/round {tells:?})"));
        if by_lease { Ok(()) } else { self.beat(node) }
    }

    /// Answers the writes that are committed and the reads whose round is over.
    pub(crate) fn answer(&mut self, node: usize) {
        let plant = self.plant;
        let deposed = plant == Some(Plant::AnswersAfterDemotion);
        let open = self.nodes[node].open_epoch();
        let Some(up) = self.nodes[node].up.as_mut() else { return };
        if open.is_none() && !deposed || up.writes.is_empty() && up.reads.is_empty() {
            return;
        }
        let committed = match plant {
            Some(Plant::ReplyOnOwnFlush) => up.wal.flushed(),
            _ => up.machine.committed(),
        };
        let seen = match plant {
            Some(Plant::ReadWithoutRound) => u64::MAX,
            _ => up.machine.rounds_seen(),
        };
        let checks = &mut self.checks;
        up.writes.retain(|write| {
            let done = write.end <= committed && (Some(write.epoch) == open || deposed);
            if done {
                checks.acknowledged(node, write.epoch, &[*write]);
            }
            !done
        });
        up.reads.retain(|read| {
            let over = read.round <= seen && read.seen <= committed && Some(read.epoch) == open;
            if over {
                checks.read(read.op, read.value);
            }
            !over
        });
    }

    /// Somebody whose write was not answered asks a node what became of it.
    fn ask_for_fate(&mut self) {
        let unanswered = self.checks.unanswered().len() as u64;
        if unanswered == 0 {
            return;
        }
        let write = self.checks.unanswered()[self.rng.below(unanswered) as usize];
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let Some(up) = self.nodes[node].up.as_ref() else { return };
        match up.machine.verdict(write.epoch, write.end) {
            Verdict::Committed => self.checks.said_committed(write),
            Verdict::Lost => self.checks.said_lost(write),
            Verdict::Pending | Verdict::Unknown => {}
        }
    }
}
