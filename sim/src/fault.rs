//! What goes wrong, and the operator who makes it worse.

use towline_protocol::machine::Failover;

use super::world::{Event, World};

impl World {
    pub(crate) fn fault(&mut self) {
        if self.quiet {
            return;
        }
        let pause_ms = self.rng.range(10, 400);
        self.at(pause_ms, Event::Fault);
        let n = self.nodes.len() as u64;
        let (a, b) = (self.rng.below(n) as usize, self.rng.below(n) as usize);
        match self.rng.below(12) {
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

    fn promote(&mut self, node: usize) {
        let (force, now_ms) = (self.rng.chance(50), self.now_ms);
        if let Some(up) = self.up(node) {
            let _refused = up.machine.promote(Failover { force, accept_loss: false }, now_ms);
        }
        self.pump(node);
    }
}
