//! The operator: switch-overs, new disks, other terms; and what is done once all faults are over.

use towline_protocol::id::NodeId;
use towline_protocol::machine::{Change, Failover, Failure};
use towline_protocol::voters::{Voter, Voters};
use towline_wal::Role;

use crate::node::{Running, name};
use crate::world::{Event, World};

/// How often the operator looks, once the faults are over, in ms.
const LOOK_MS: u64 = 150;
/// After so many looks without a primary the operator acts.
const PATIENCE_LOOKS: u64 = 8;

impl World {
    pub(crate) fn promote(&mut self, node: usize) {
        let (force, now_ms) = (self.rng.chance(50), self.local_ms(node));
        if let Some(up) = self.up(node) {
            let how = Failover { force, ..Failover::default() };
            let refused = up.machine.promote(how, now_ms).err();
            self.say(|_| format!("n{node} is promoted, force {force}: {refused:?}"));
        }
        self.pump(node);
    }

    pub(crate) fn open_primary(&self) -> Option<usize> {
        let mut open = (0..self.nodes.len())
            .filter_map(|node| self.nodes[node].open_epoch().map(|epoch| (epoch, node)));
        let first = open.next()?;
        Some(open.fold(first, Ord::max).1)
    }

    /// Something an operator does on a cluster that works.
    pub(crate) fn operate(&mut self) {
        let Some(primary) = self.open_primary() else { return };
        match self.rng.below(4) {
            0 if self.leases => self.change_lease(primary),
            1 | 2 if self.changes => self.change_voters(primary),
            3 => self.grant(primary),
            _ => self.hand_over(primary),
        }
    }

    fn hand_over(&mut self, primary: usize) {
        let to = self.rng.below(self.nodes.len() as u64) as usize;
        let to: Option<NodeId> = self.rng.chance(50).then(|| name(to));
        let now_ms = self.local_ms(primary);
        if let Some(up) = self.up(primary) {
            let refused = up.machine.hand_over(to, now_ms).err();
            self.say(|_| format!("n{primary} hands over to {to:?}: {refused:?}"));
        }
        self.pump(primary);
    }

    /// Lets a new disk of a voter count.
    fn grant(&mut self, primary: usize) {
        let waiting = (0..self.nodes.len()).find(|node| !self.checks.counts(*node));
        let Some(node) = waiting else { return };
        let incarnation = self.checks.incarnation(node);
        let now_ms = self.local_ms(primary);
        let lease_ms = self.lease_ms;
        if let Some(up) = self.up(primary) {
            let Some(voters) = up.machine.voters().granting(name(node), incarnation) else {
                return;
            };
            let all_commit = voters.w() == voters.n();
            let refused = up.machine.change(Change { voters, lease_ms }, now_ms).err();
            self.say(|_| format!("n{primary} grants n{node} {incarnation}: {refused:?}"));
            if all_commit && matches!(refused, Some(Failure::NotReady { .. })) {
                return self.grant_by_failover(primary);
            }
        }
        self.pump(primary);
    }

    /// Where every voter commits no primary opens, or ends its epoch, while one of them has another
    /// disk.
    fn grant_by_failover(&mut self, node: usize) {
        let waiting = (0..self.nodes.len()).find(|node| !self.checks.counts(*node));
        let Some(waiting) = waiting else { return };
        let grant = Some((name(waiting), self.checks.incarnation(waiting)));
        let now_ms = self.local_ms(node);
        if let Some(up) = self.up(node) {
            let how = Failover { force: true, grant, ..Failover::default() };
            let refused = up.machine.promote(how, now_ms).err();
            self.say(|_| format!("n{node} is promoted to grant n{waiting}: {refused:?}"));
        }
        self.pump(node);
    }

    /// Other voters: the primary, and some of the rest.
    fn change_voters(&mut self, primary: usize) {
        let mut members = Vec::new();
        for node in 0..self.nodes.len() {
            if node == primary || self.rng.chance(70) {
                let incarnation = self.checks.incarnation(node);
                members.push(Voter { node: name(node), incarnation, zone: String::new() });
            }
        }
        let w = self.rng.chance(50).then(|| self.rng.range(1, members.len() as u64) as u8);
        let voters = Voters::new(members, w).expect("1 to 5 voters");
        let (now_ms, lease_ms) = (self.local_ms(primary), self.lease_ms);
        if let Some(up) = self.up(primary) {
            let refused = up.machine.change(Change { voters, lease_ms }, now_ms).err();
            self.say(|_| format!("n{primary} changes the voters: {refused:?}"));
        }
        if self.rng.chance(60) {
            // Cut off as soon as the change may be committed, before anybody is told.
            self.soon(120, Event::Unheard);
        }
        self.pump(primary);
    }

    /// From the start where reads go by leases.
    pub(crate) fn want_lease(&mut self) {
        if self.leases && self.lease_ms == 0 && self.rng.chance(50) {
            if let Some(primary) = self.open_primary() {
                self.change_lease(primary);
            }
        }
    }

    fn change_lease(&mut self, primary: usize) {
        self.lease_ms = if self.rng.chance(90) { self.rng.range(60, 400) as u32 } else { 0 };
        let (now_ms, lease_ms) = (self.local_ms(primary), self.lease_ms);
        if let Some(up) = self.up(primary) {
            let voters = up.machine.voters().clone();
            let refused = up.machine.change(Change { voters, lease_ms }, now_ms).err();
            self.say(|_| format!("n{primary} goes by leases of {lease_ms} ms: {refused:?}"));
            if refused.is_some() {
                self.lease_ms = 0;
            }
        }
        self.pump(primary);
    }

    /// Repairs everything there is to repair, at once.
    pub(crate) fn calm_down(&mut self) {
        self.quiet = true;
        self.net.heal();
        for node in 0..self.nodes.len() {
            self.make_room(node);
            self.nodes[node].store.disk.fail_syncs(0);
            self.nodes[node].peers = (0..self.nodes.len()).filter(|peer| *peer != node).collect();
            if self.nodes[node].store.rotten {
                self.replace(node);
            } else if self.nodes[node].store.disk.is_dead() {
                self.crash(node, false);
            }
            self.at(1, Event::Restart(node));
        }
        self.at(LOOK_MS, Event::Operator);
    }

    /// Lets new disks count, and promotes a node if none would lead by itself. Nodes that try are
    /// left the time they need: who promotes all the time keeps a cluster from opening.
    pub(crate) fn look_after(&mut self) {
        self.at(LOOK_MS, Event::Operator);
        if let Some(primary) = self.open_primary() {
            self.looked = 0;
            return self.grant(primary);
        }
        self.looked += 1;
        if self.looked % PATIENCE_LOOKS != 0 {
            return;
        }
        let mut up = self.nodes.iter().filter_map(|node| node.up.as_deref());
        let claimed =
            up.any(|up: &Running| up.wal.control().role == Role::Primary && up.machine.votes());
        // A grant fails where another disk was replaced and that is not committed yet: then a
        // failover alone will do.
        let grants = self.looked / PATIENCE_LOOKS % 2 == 1;
        if grants && (0..self.nodes.len()).any(|node| !self.checks.counts(node)) {
            let able =
                |node: &usize| self.nodes[*node].up.as_ref().is_some_and(|up| up.machine.votes());
            if let Some(node) = (0..self.nodes.len()).find(able) {
                self.grant_by_failover(node);
            }
        } else if !claimed {
            let node = self.rng.below(self.nodes.len() as u64) as usize;
            self.promote(node);
        }
    }
}
