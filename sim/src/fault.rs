//! What goes wrong.

use towline_protocol::id::Incarnation;
use towline_wal::{Role, WalError};

use crate::Plant;
use crate::disk::Store;
use crate::node::{Clock, TIMING, name};
use crate::world::{Event, World};

impl World {
    pub(crate) fn fault(&mut self) {
        if self.quiet {
            return;
        }
        let pause_ms = self.rng.range(10, 220);
        self.at(pause_ms, Event::Fault);
        let n = self.nodes.len() as u64;
        let (a, b) = (self.rng.below(n) as usize, self.rng.below(n) as usize);
        if self.lease_ms > 0 && self.rng.chance(50) {
            return self.replace_unheard();
        }
        match self.rng.below(28) {
            0 | 1 => self.crash_for_a_while(a),
            2 => (0..self.nodes.len()).for_each(|node| self.crash_for_a_while(node)),
            3 => {
                self.crash_for_a_while(a);
                self.crash_for_a_while(b);
            }
            4 => self.cut_for_a_while(a, b),
            5 => {
                self.cut_for_a_while(a, b);
                self.cut_for_a_while(b, a);
            }
            6 => self.isolate(a, b),
            7 => self.bridge(a),
            8 | 9 => self.promote(a),
            10 => {
                self.promote(a);
                self.promote(b);
            }
            11 => {
                let pause_ms = self.rng.range(20, 2 * TIMING.candidate_ms);
                self.pause(a, pause_ms);
            }
            12 => self.net.break_one(self.rng.below(64)),
            13 => self.nodes[a].store.disk.writeback(),
            14 => self.nodes[a].store.disk.fail_syncs(1),
            15 => self.nodes[a].store.disk.die_after(self.rng.below(30)),
            16 => self.fill(a),
            17 => self.jump(a),
            18 => self.rot(a),
            19 => self.wipe(a),
            20 => self.restore(a),
            21 => self.start_twice(a),
            22 => self.nodes[a].copy = Some(self.nodes[a].store.copy()),
            _ => self.operate(),
        }
    }

    fn crash_for_a_while(&mut self, node: usize) {
        let power = self.rng.chance(60);
        self.crash(node, power);
        let pause_ms = self.rng.range(5, 400);
        self.at(pause_ms, Event::Restart(node));
    }

    /// The process ends, or the power fails.
    pub(crate) fn crash(&mut self, node: usize, power: bool) {
        let Some(up) = self.nodes[node].up.take() else { return };
        self.say(|_| format!("n{node} crashes, power cut: {power}"));
        let followed = up.follow.map(|follow| follow.link);
        for link in up.serving.into_keys().chain(followed) {
            self.net.close(link);
        }
        self.nodes[node].late.clear();
        self.checks.unknown(&up.writes);
        self.checks.down(node);
        let disk = &self.nodes[node].store.disk;
        if power { disk.power_cut() } else { disk.kill() }
    }

    /// The log of a node failed: as a server does, the node stops and is started again.
    pub(crate) fn disk_failed(&mut self, node: usize, error: &WalError) {
        let store = &self.nodes[node].store;
        let fails = matches!(
            error,
            WalError::Io { .. } | WalError::Poisoned(_) | WalError::NoSpace(_) | WalError::Closed
        );
        let rots = matches!(
            error,
            // The bit that rotted may be one of the version.
            WalError::NewerVersion { .. }
                | WalError::Corrupt { .. }
                | WalError::MissingSegment { .. }
                | WalError::Record { .. }
                | WalError::Foreign { .. }
        );
        self.say(|_| format!("n{node} fails: {error}"));
        assert!(fails || rots && store.rotten, "the log of n{node}: {error}");
        if rots {
            return self.replace(node);
        }
        let power = self.rng.chance(30);
        self.crash(node, power);
        let pause_ms = self.rng.range(5, 100);
        self.at(pause_ms, Event::Restart(node));
    }

    pub(crate) fn restart(&mut self, node: usize) {
        if let Err(error) = self.nodes[node].start(self.now_ms) {
            self.nodes[node].store.disk.kill();
            return self.disk_failed_to_open(node, &error);
        }
        let wal = self.running(node).wal.clone();
        if self.nodes[node].store.rotten && wal.appended() < self.checks.flushed(node) {
            // Damage where nothing tells it from a torn tail: only monitoring finds it.
            self.crash(node, false);
            return self.replace(node);
        }
        self.checks.reopened(node, &wal);
        self.say(|_| format!("n{node} starts, log ends at {}", wal.appended()));
        let life = self.nodes[node].life;
        self.soon(5, Event::Tick(node, life));
        self.at(5, Event::Apply(node, life));
    }

    fn disk_failed_to_open(&mut self, node: usize, error: &WalError) {
        if !matches!(error, WalError::Io { .. } | WalError::NoSpace(_)) {
            return self.disk_failed(node, error);
        }
        self.at(20, Event::Restart(node));
    }

    fn cut_for_a_while(&mut self, from: usize, to: usize) {
        if from != to {
            self.net.cut(from, to);
            let pause_ms = self.rng.range(20, 600);
            self.at(pause_ms, Event::Mend(from, to));
        }
    }

    /// A node is out of reach; the usual answer is to promote another.
    fn isolate(&mut self, node: usize, other: usize) {
        for peer in 0..self.nodes.len() {
            self.cut_for_a_while(node, peer);
            self.cut_for_a_while(peer, node);
        }
        if self.rng.chance(60) && node != other {
            self.promote(other);
        }
    }

    /// The primary is out of reach and goes on reading, while another takes over. At times the
    /// others have just started, and remember no promise.
    pub(crate) fn replace_unheard(&mut self) {
        let Some(primary) = self.open_primary() else { return };
        let others = (0..self.nodes.len()).filter(|node| *node != primary);
        let others: Vec<usize> = others.filter(|node| self.checks.counts(*node)).collect();
        if others.is_empty() {
            return;
        }
        let other = others[self.rng.below(others.len() as u64) as usize];
        if self.rng.chance(40) {
            // What reached it before the cut it handles late.
            let pause_ms = self.rng.range(TIMING.candidate_ms / 2, TIMING.candidate_ms);
            self.pause(primary, pause_ms);
        }
        let restarted = self.rng.chance(30);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != primary) {
            for (from, to) in [(primary, peer), (peer, primary)] {
                self.net.cut(from, to);
                self.at(2 * TIMING.candidate_ms, Event::Mend(from, to));
            }
            if restarted {
                self.crash(peer, false);
                self.restart(peer);
            }
        }
        self.promote(other);
    }

    /// Two halves that see each other only through one node.
    fn bridge(&mut self, bridge: usize) {
        let halves: Vec<bool> = (0..self.nodes.len()).map(|_| self.rng.chance(50)).collect();
        for from in 0..halves.len() {
            for to in 0..halves.len() {
                if halves[from] != halves[to] && from != bridge && to != bridge {
                    self.cut_for_a_while(from, to);
                }
            }
        }
    }

    /// The node handles nothing for a while, then everything late.
    fn pause(&mut self, node: usize, pause_ms: u64) {
        let paused_until_ms = &mut self.nodes[node].paused_until_ms;
        *paused_until_ms = (*paused_until_ms).max(Some(self.now_ms + pause_ms));
        self.at(pause_ms, Event::Wake(node));
    }

    fn fill(&mut self, node: usize) {
        let store = &mut self.nodes[node].store;
        store.full = true;
        store.disk.set_full(true);
        let pause_ms = self.rng.range(50, 500);
        self.at(pause_ms, Event::Room(node));
    }

    pub(crate) fn make_room(&mut self, node: usize) {
        let store = &mut self.nodes[node].store;
        store.full = false;
        store.disk.set_full(false);
    }

    /// Leases hold between clocks that run at nearly one speed; a jump breaks that.
    fn jump(&mut self, node: usize) {
        if !self.leases {
            let Clock { ahead_ms, .. } = &mut self.nodes[node].clock;
            *ahead_ms += self.rng.range(1, 3_000);
        }
    }

    /// Whether one more disk may be destroyed: every committed record is on W, and what is left of
    /// them must meet every fence set, and be enough to go on.
    fn may_destroy(&mut self, node: usize) -> bool {
        let votes = self.voters.get(name(node)).is_some();
        if self.changes || self.nodes[node].replaced || self.nodes[node].store.rotten {
            return false;
        }
        if votes && self.spare == 0 {
            return false;
        }
        self.spare -= u64::from(votes);
        true
    }

    fn rot(&mut self, node: usize) {
        if !self.may_destroy(node) {
            return;
        }
        let seed = self.rng.next();
        let store = &mut self.nodes[node].store;
        store.rotten = true;
        let rotted = store.disk.rot(".wal", seed);
        self.say(|_| format!("n{node} rots: {rotted:?}"));
        self.checks.damaged(node);
        self.crash_for_a_while(node);
    }

    fn wipe(&mut self, node: usize) {
        if self.may_destroy(node) {
            self.crash(node, true);
            self.replace(node);
        }
    }

    /// The operator founds a node anew on an empty disk: another life, which does not count.
    pub(crate) fn replace(&mut self, node: usize) {
        self.crash(node, false);
        self.say(|_| format!("n{node} gets an empty disk"));
        let keeps = self.plant == Some(Plant::WipedDiskKeepsItsName);
        let old = self.checks.incarnation(node);
        let incarnation = if keeps { old } else { Incarnation(self.rng.next()) };
        let seed = self.rng.next();
        let at = &mut self.nodes[node];
        at.store = Store::founded(name(node), incarnation, Role::Replica, &self.voters, seed);
        at.replaced = true;
        at.copy = None;
        self.checks.replaced(node, incarnation, true);
        let pause_ms = self.rng.range(20, 300);
        self.at(pause_ms, Event::Restart(node));
    }

    /// A disk is restored from a backup. It forgot what it promised since, so that it may come
    /// back only as another life of the disk.
    fn restore(&mut self, node: usize) {
        let Some(copy) = self.nodes[node].copy.take() else { return };
        if !self.may_destroy(node) {
            return;
        }
        self.crash(node, true);
        self.say(|_| format!("n{node} is restored from a backup"));
        let (seed, life) = (self.rng.next(), Incarnation(self.rng.next()));
        let keeps = self.plant == Some(Plant::StaleDiskKeepsItsName);
        let at = &mut self.nodes[node];
        at.store = at.store.restored(&copy, seed);
        at.replaced = true;
        let opened = at.store.open().expect("a backup opens");
        let life = if keeps { opened.control().incarnation } else { life };
        let renewed = opened.update_control(|control| {
            control.incarnation = life;
            if !keeps {
                control.role = Role::Replica;
            }
        });
        renewed.expect("a sound disk takes a new incarnation");
        drop(opened);
        self.checks.replaced(node, life, false);
        let pause_ms = self.rng.range(20, 300);
        self.at(pause_ms, Event::Restart(node));
    }

    /// The operator starts a node that runs: the log is locked.
    fn start_twice(&mut self, node: usize) {
        if self.nodes[node].up.is_some() && !self.nodes[node].store.disk.is_dead() {
            let second = self.nodes[node].store.open();
            let refused = matches!(second, Err(WalError::Locked(_) | WalError::Io { .. }));
            assert!(refused, "n{node} runs twice on one disk");
        }
    }
}
