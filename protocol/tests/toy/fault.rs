//! What goes wrong, and the operator who makes it worse.

use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{Change, Failover};
use towline_protocol::voters::{Voter, Voters};

use super::node::{index, name};

use super::world::{Event, World};

impl World {
    pub(crate) fn fault(&mut self) {
        if self.quiet {
            // A patient operator: longer than a candidate may take.
            self.at(1_500, Event::Fault);
            return self.grant();
        }
        let pause_ms = self.rng.range(10, 400);
        self.at(pause_ms, Event::Fault);
        let n = self.nodes.len() as u64;
        let (a, b) = (self.rng.below(n) as usize, self.rng.below(n) as usize);
        match self.rng.below(20) {
            12 | 13 => self.hand_over(b),
            14 | 15 => self.change(),
            16 | 17 => self.replace_disk(a),
            18 | 19 => self.grant(),
            0..=2 => self.crash_for_a_while(a),
            3 => (0..self.nodes.len()).for_each(|node| self.crash_for_a_while(node)),
            4 => {
                self.crash_for_a_while(a);
                self.crash_for_a_while(b);
            }
            5 => self.cut_for_a_while(a, b),
            6 => {
                self.cut_for_a_while(a, b);
                self.cut_for_a_while(b, a);
            }
            7 | 8 => {
                for other in 0..self.nodes.len() {
                    self.cut_for_a_while(a, other);
                    self.cut_for_a_while(other, a);
                }
                // The usual answer to a primary that is out of reach.
                if self.rng.chance(60) && a != b {
                    self.promote(b);
                }
            }
            9 | 10 => self.promote(a),
            _ => {
                self.promote(a);
                self.promote(b);
            }
        }
    }

    fn crash_for_a_while(&mut self, node: usize) {
        self.crash(node);
        let pause_ms = self.rng.range(5, 700);
        self.at(pause_ms, Event::Restart(node));
    }

    fn cut_for_a_while(&mut self, from: usize, to: usize) {
        if from != to {
            self.net.set_cut(from, to, true);
            let pause_ms = self.rng.range(20, 900);
            self.at(pause_ms, Event::Mend(from, to));
        }
    }

    /// The open primary with the highest epoch.
    fn primary(&self) -> Option<usize> {
        let open = (0..self.nodes.len()).filter(|node| self.nodes[*node].open_epoch().is_some());
        open.max_by_key(|node| self.nodes[*node].open_epoch())
    }

    fn hand_over(&mut self, to: usize) {
        let Some(node) = self.primary() else { return };
        let (to, now_ms) = (self.rng.chance(50).then(|| name(to)), self.now_ms);
        let _refused = self.up(node).expect("it is open").machine.hand_over(to, now_ms);
        self.pump(node);
    }

    /// Other voters, or another kind of read.
    fn change(&mut self) {
        let Some(node) = self.primary() else { return };
        let n = self.nodes.len();
        let picked: Vec<usize> = (0..n).filter(|at| *at == node || self.rng.chance(70)).collect();
        let voter = |at: &usize| {
            let identity = &self.nodes[*at].identity;
            Voter { node: identity.node, incarnation: identity.incarnation, zone: String::new() }
        };
        let members: Vec<Voter> = picked.iter().map(voter).collect();
        let sound = members.iter().all(|voter| {
            let now = self.nodes[node].up.as_ref().expect("it is open").machine.voters();
            now.get(voter.node).is_none_or(|old| old.incarnation == voter.incarnation)
        });
        if sound {
            let voters = Voters::new(members, None).expect("one to five voters");
            let lease_ms = if self.rng.chance(50) { 150 } else { 0 };
            self.change_to(node, Change { voters, lease_ms });
        }
    }

    fn change_to(&mut self, node: usize, change: Change) {
        let now_ms = self.now_ms;
        let _refused = self.up(node).expect("it is open").machine.change(change, now_ms);
        self.pump(node);
    }

    /// A disk dies and is replaced by an empty one; never a second before the first is granted.
    fn replace_disk(&mut self, node: usize) {
        let Some(primary) = self.primary().filter(|primary| *primary != node) else { return };
        let machine = &self.nodes[primary].up.as_ref().expect("it is open").machine;
        let sets = machine.sets();
        let alive =
            |voter: &Voter| self.nodes[index(voter.node)].identity.incarnation == voter.incarnation;
        let known = self.nodes.iter().all(|other| {
            other.up.as_ref().is_some_and(|up| {
                up.machine.sets() == sets && up.machine.committed() >= machine.committed()
            })
        });
        let spare = sets.newest().w() > 1 || sets.newest().get(name(node)).is_none();
        if known && spare && sets.as_slice().len() == 1 && sets.newest().members().iter().all(alive)
        {
            self.crash(node);
            self.nodes[node].replace_disk();
            self.at(50, Event::Restart(node));
        }
    }

    /// The operator grants what was replaced.
    pub(crate) fn grant(&mut self) {
        let Some(primary) = self.primary() else { return self.grant_by_failover() };
        let machine = &self.nodes[primary].up.as_ref().expect("it is open").machine;
        let now = machine.voters().clone();
        let replaced = now
            .members()
            .iter()
            .find(|voter| self.nodes[index(voter.node)].identity.incarnation != voter.incarnation);
        let Some(voter) = replaced else { return };
        let incarnation = self.nodes[index(voter.node)].identity.incarnation;
        let voters = now.granting(voter.node, incarnation).expect("it votes");
        self.change_to(primary, Change { voters, lease_ms: 0 });
    }

    /// Where every voter commits, no primary opens while one has another disk.
    fn grant_by_failover(&mut self) {
        let now_ms = self.now_ms;
        let n = self.nodes.len();
        let first = self.rng.below(n as u64) as usize;
        for at in (0..n).map(|at| (first + at) % n) {
            let Some(up) = &self.nodes[at].up else { continue };
            let replaced = |set: &Voters| {
                set.members().iter().find_map(|voter| {
                    let now = self.nodes[index(voter.node)].identity.incarnation;
                    (now != voter.incarnation).then_some((voter.node, now))
                })
            };
            let grant = replaced(up.machine.voters());
            // A voter whose disk is gone was taken out before another was granted: it can not say
            // yes to that any more. Only while nothing is cut off is it sure who is stopped.
            let accept_loss = self.quiet
                && grant.is_none()
                && up.machine.sets().as_slice().iter().any(|set| replaced(set).is_some());
            let able = up.machine.votes() && up.machine.committed() > Lsn::ZERO;
            if able && (accept_loss || grant.is_some()) {
                let how = Failover { force: true, grant, accept_loss };
                let _refused = self.up(at).expect("it runs").machine.promote(how, now_ms);
                return self.pump(at);
            }
        }
    }

    fn promote(&mut self, node: usize) {
        let (force, now_ms) = (self.rng.chance(50), self.now_ms);
        if let Some(up) = self.up(node) {
            let _refused = up.machine.promote(Failover { force, ..Failover::default() }, now_ms);
        }
        self.pump(node);
    }
}
