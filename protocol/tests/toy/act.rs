//! The toy driver: carries out the machine's actions in order, each in steps with time between
//! them, so that a crash or a frame can come in anywhere.

use towline_protocol::epoch::Epoch;
use towline_protocol::frame::Purpose;
use towline_protocol::machine::{Action, RoleView};
use towline_protocol::terms::Terms;

use super::Plant;
use super::node::{Phase, index};
use super::world::{Event, World};

impl World {
    /// Takes new actions off the machine and begins the next one if none is under way.
    pub(crate) fn pump(&mut self, node: usize) {
        let life = self.nodes[node].life;
        loop {
            let Some(up) = self.nodes[node].up.as_mut() else { return };
            while let Some(action) = up.machine.poll_action() {
                up.trying &= !matches!(action, Action::Ended(_));
                up.actions.push_back(action);
            }
            let tries = matches!(
                up.machine.role(),
                RoleView::Candidate | RoleView::Primary { open: false }
            );
            assert!(tries || !up.trying, "a candidacy is over and nobody was told");
            up.trying = tries;
            if up.current.is_some() {
                return;
            }
            match up.actions.pop_front() {
                None => return,
                Some(Action::Send(to, frame)) => self.send_single(node, index(to), frame),
                Some(action) => {
                    up.current = Some((action, 0));
                    self.soon(4, Event::Step(node, life));
                }
            }
        }
    }

    pub(crate) fn step(&mut self, node: usize) {
        let Some((action, step)) = self.up(node).and_then(|up| up.current.take()) else { return };
        let more = match &action {
            Action::Obey(epoch) => self.obey(node, *epoch, step),
            Action::Demote => {
                let up = self.up(node).expect("a step is of a node that runs");
                up.quiesced = None;
                up.writes.clear();
                up.reads.clear();
                self.close_served(node);
                false
            }
            Action::Fetch(from, epoch) => {
                if self.tries(node, *epoch) {
                    self.hello(node, index(*from), Purpose::Fetch(*epoch));
                }
                false
            }
            Action::Prepare { new, .. } => self.prepare(node, *new),
            Action::AppendBarrier { epoch, terms, accepted_loss } => {
                self.append_barrier(node, *epoch, terms.clone(), *accepted_loss)
            }
            Action::Open(epoch) => {
                self.checks.opened(&self.nodes[node], *epoch);
                self.opened += 1;
                false
            }
            Action::Join => {
                self.nodes[node].disk.claims = false;
                false
            }
            Action::Quiesce(epoch) => {
                let now_ms = self.now_ms;
                let up = self.up(node).expect("it runs");
                up.quiesced = Some(*epoch);
                up.machine.handle_quiesced(*epoch, now_ms);
                false
            }
            Action::AppendEnd(epoch) => self.append_end(node, *epoch),
            Action::HandedOver(ended) => {
                self.checks.handed_over += u64::from(ended.is_ok());
                false
            }
            Action::Renew => panic!("a sound disk is told that it lost writes"),
            Action::Ended(_) => false,
            Action::Send(..) => unreachable!("frames are sent by pump"),
        };
        if more {
            let life = self.nodes[node].life;
            self.up(node).expect("it runs").current = Some((action, step + 1));
            self.soon(6, Event::Step(node, life));
        }
    }

    /// Whether the node is still the candidate of `epoch`; an action may be overtaken.
    pub(crate) fn tries(&mut self, node: usize, epoch: Epoch) -> bool {
        self.up(node).is_some_and(|up| {
            up.machine.role() == RoleView::Candidate && up.machine.fence() == epoch
        })
    }

    /// Stop, flush, persist, and only then say so.
    fn obey(&mut self, node: usize, epoch: Epoch, step: u8) -> bool {
        let now_ms = self.now_ms;
        match step {
            0 => {
                self.remember_zombie(node);
                self.unfollow(node);
                self.close_served(node);
                true
            }
            1 => {
                let super::node::Node { disk, up, .. } = &mut self.nodes[node];
                disk.durable = disk.records.len();
                up.as_mut().expect("it runs").machine.handle_flushed(disk.durable_end());
                true
            }
            2 => {
                if self.plant != Some(Plant::FenceNotWritten) {
                    let disk = &mut self.nodes[node].disk;
                    disk.fence = disk.fence.max(epoch);
                }
                true
            }
            _ => {
                let end = self.nodes[node].disk.durable_end();
                let up = self.up(node).expect("it runs");
                up.machine.handle_obeyed(epoch, end, now_ms);
                false
            }
        }
    }

    fn remember_zombie(&mut self, node: usize) {
        if self.plant != Some(Plant::AckAfterFence) {
            return;
        }
        let Some(up) = self.up(node) else { return };
        if let Some(follow) = up.follow.take() {
            match follow.phase {
                Phase::Streaming { epoch, .. } => up.zombie = Some((follow.link, epoch)),
                _ => up.follow = Some(follow),
            }
        }
    }

    fn prepare(&mut self, node: usize, epoch: Epoch) -> bool {
        let vetoed = !self.quiet && self.rng.chance(10);
        let verdict = if vetoed { Err("not today".to_owned()) } else { Ok(()) };
        let now_ms = self.now_ms;
        let up = self.up(node).expect("it runs");
        up.machine.handle_prepared(epoch, verdict, now_ms);
        false
    }

    fn append_end(&mut self, node: usize, epoch: Epoch) -> bool {
        let now_ms = self.now_ms;
        if self.nodes[node].open_epoch() != Some(epoch) {
            return false;
        }
        let super::node::Node { disk, up, .. } = &mut self.nodes[node];
        let end = disk.append_end();
        up.as_mut().expect("it runs").machine.handle_end(epoch, end, now_ms);
        self.start_flush(node);
        false
    }

    fn append_barrier(&mut self, node: usize, epoch: Epoch, terms: Terms, lost: bool) -> bool {
        let now_ms = self.now_ms;
        if !self.tries(node, epoch) {
            return false;
        }
        let super::node::Node { disk, up, .. } = &mut self.nodes[node];
        let up = up.as_mut().expect("it runs");
        disk.claims = true;
        let end = disk.append_barrier(epoch, terms, lost);
        up.machine.handle_history(disk.history.clone(), disk.terms());
        up.machine.handle_barrier(epoch, end, now_ms);
        self.start_flush(node);
        false
    }

    /// Begins a flush of what is appended now, unless one is under way.
    pub(crate) fn start_flush(&mut self, node: usize) {
        let super::node::Node { disk, up, life, .. } = &mut self.nodes[node];
        let Some(up) = up else { return };
        let (count, cuts, life) = (disk.records.len(), disk.cuts, *life);
        if self.plant == Some(Plant::AckBeforeFlush) {
            up.machine.handle_flushed(disk.end());
        }
        if up.flushing || disk.durable == count {
            return;
        }
        up.flushing = true;
        let most_ms = if self.rng.chance(5) { 80 } else { 8 };
        self.soon(most_ms, Event::Flushed(node, life, count, cuts));
    }

    pub(crate) fn flushed(&mut self, node: usize, count: usize, cuts: u64) {
        let super::node::Node { disk, up, .. } = &mut self.nodes[node];
        let Some(up) = up else { return };
        up.flushing = false;
        if disk.cuts == cuts {
            disk.durable = disk.durable.max(count);
            up.machine.handle_flushed(disk.durable_end());
        }
        self.acknowledge(node);
        self.start_flush(node);
    }

    /// The applier: some way up to min(committed, flushed), and now and then to disk.
    pub(crate) fn apply(&mut self, node: usize) {
        let save = self.rng.chance(20);
        let all = self.rng.chance(70);
        let pause_ms = self.rng.range(2, 12);
        let super::node::Node { disk, up, life, .. } = &mut self.nodes[node];
        let Some(up) = up else { return };
        let (low, high) = (
            disk.count_to(up.applied),
            disk.count_to(up.machine.committed().min(disk.durable_end())),
        );
        if high > low {
            let count = if all { high } else { low + 1 };
            up.applied = disk.end_of(count);
            up.machine.handle_applied(up.applied);
        }
        if save {
            disk.applied = up.applied.max(disk.applied);
            disk.committed = disk.committed.max(up.machine.committed());
        }
        let life = *life;
        self.at(pause_ms, Event::Apply(node, life));
    }

    pub(crate) fn crash(&mut self, node: usize) {
        let Some(up) = self.nodes[node].up.take() else { return };
        let followed = up.follow.map(|follow| follow.link);
        for link in up.serving.into_keys().chain(followed) {
            self.net.close(link);
        }
        self.nodes[node].disk.crash(&mut self.rng);
        self.checks.flushed(node, &self.nodes[node]);
    }
}
