//! What is no longer asked for once an operator accepted a loss, or more disks were lost than the
//! rules can stand.

use towline_protocol::lsn::Lsn;

use super::Checks;
use crate::engine::Engine;

impl Checks {
    /// What the log of `survivor` does not hold need not survive: it is as if it had never been
    /// committed. Disks that know better are out of it until they are founded anew.
    pub(crate) fn give_up(&mut self, survivor: usize) {
        let held = &self.lives[self.current[survivor]].records;
        let kept = self.committed.iter().zip(held).take_while(|(rec, held)| rec.is(held)).count();
        self.committed.truncate(kept);
        self.engines.truncate(kept);
        self.engine = Engine::default();
        self.voters = self.founding.clone();
        for rec in &self.committed {
            self.engine.apply(rec.end, rec.put);
            if let Some(terms) = &rec.terms {
                self.voters = terms.sets.newest().clone();
            }
        }
        self.places.retain(|_, at| *at < kept);
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.acknowledged.iter().partition(|write| self.places.contains_key(&write.value));
        self.acknowledged = kept;
        self.acked = self.acknowledged.iter().map(|write| write.end).max().unwrap_or(Lsn::ZERO);
        for write in gone {
            self.operations.give_up(write.value);
        }
        let end = self.end();
        for life in &mut self.lives {
            life.given_up |= life.checked > end;
        }
    }

    /// Whether the disk of `node` knows something to be committed that was given up.
    pub(crate) fn is_given_up(&self, node: usize) -> bool {
        self.lives[self.current[node]].given_up
    }
}
