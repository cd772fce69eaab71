//! The driver: carries out the rules' actions in order, each in steps with time between them, so
//! that a crash or a frame can come in anywhere.

use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::Epoch;
use towline_protocol::frame::Purpose;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::{Action, RoleView};
use towline_protocol::record::RecordKind;
use towline_protocol::terms::Terms;
use towline_wal::{Role, WalError};

use crate::Plant;
use crate::engine::{Engine, Put};
use crate::node::{Phase, index};
use crate::world::{Event, World};

/// What a step says: whether the action has more of them.
type Step = Result<bool, WalError>;

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

    pub(crate) fn step(&mut self, node: usize) -> Result<(), WalError> {
        let Some((action, step)) = self.up(node).and_then(|up| up.current.take()) else {
            return Ok(());
        };
        self.say(|_| format!("n{node} step {step} of {action:?}"));
        if self.carry_out(node, &action, step)? {
            let life = self.nodes[node].life;
            if let Some(up) = self.up(node) {
                up.current = Some((action, step + 1));
            }
            self.soon(6, Event::Step(node, life));
        }
        Ok(())
    }

    fn carry_out(&mut self, node: usize, action: &Action, step: u8) -> Step {
        match action {
            Action::Obey(epoch) => return self.obey(node, *epoch, step),
            Action::Demote => self.demote(node),
            Action::Fetch(from, epoch) => {
                if self.running(node).tries(*epoch) {
                    self.hello(node, index(*from), Purpose::Fetch(*epoch))?;
                }
            }
            Action::Prepare { new, .. } => self.prepare(node, *new),
            Action::AppendBarrier { epoch, terms, accepted_loss } => {
                self.append_barrier(node, *epoch, terms, *accepted_loss)?;
            }
            Action::Open(epoch) => self.open(node, *epoch),
            Action::Join => {
                self.running(node).wal.update_control(|control| control.role = Role::Replica)?;
            }
            Action::Quiesce(epoch) => {
                let now_ms = self.local_ms(node);
                let up = self.running(node);
                up.quiesced = Some(*epoch);
                up.machine.handle_quiesced(*epoch, now_ms);
            }
            Action::AppendEnd(epoch) => self.append_end(node, *epoch)?,
            Action::Renew => return self.renew(node),
            Action::Ended(_) | Action::HandedOver(_) => self.told.push((node, action.clone())),
            Action::Send(..) => unreachable!("frames are sent by pump"),
        }
        Ok(false)
    }

    /// Stop, flush, persist, and only then say so.
    fn obey(&mut self, node: usize, epoch: Epoch, step: u8) -> Step {
        let now_ms = self.local_ms(node);
        let writes_fence = self.plant != Some(Plant::FenceNotWritten);
        match step {
            0 => {
                self.remember_zombie(node);
                self.unfollow(node);
                self.close_served(node);
            }
            1 => {
                let up = self.running(node);
                let flushed = up.wal.flush()?;
                up.machine.handle_flushed(flushed);
            }
            2 if writes_fence => self.running(node).persist_fence(epoch)?,
            2 => {}
            _ => {
                let up = self.running(node);
                let end = up.wal.flushed();
                up.machine.handle_obeyed(epoch, end, now_ms);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn remember_zombie(&mut self, node: usize) {
        if self.plant != Some(Plant::AckAfterFence) {
            return;
        }
        let up = self.running(node);
        if let Some(follow) = up.follow.take() {
            match follow.phase {
                Phase::Streaming { epoch, .. } => up.zombie = Some((follow.link, epoch)),
                _ => up.follow = Some(follow),
            }
        }
    }

    fn demote(&mut self, node: usize) {
        let up = self.running(node);
        (up.quiesced, up.opened) = (None, None);
        if self.plant != Some(Plant::AnswersAfterDemotion) {
            let up = self.running(node);
            let writes = std::mem::take(&mut up.writes);
            up.reads.clear();
            self.checks.unknown(&writes);
        }
        self.close_served(node);
    }

    fn prepare(&mut self, node: usize, epoch: Epoch) {
        let vetoed = !self.quiet && self.rng.chance(10);
        let verdict = if vetoed { Err("not today".to_owned()) } else { Ok(()) };
        let now_ms = self.local_ms(node);
        self.running(node).machine.handle_prepared(epoch, verdict, now_ms);
    }

    fn append_barrier(
        &mut self,
        node: usize,
        epoch: Epoch,
        terms: &Terms,
        accepted_loss: bool,
    ) -> Result<(), WalError> {
        let now_ms = self.local_ms(node);
        let up = self.running(node);
        if !up.tries(epoch) {
            return Ok(());
        }
        up.wal.update_control(|control| control.role = Role::Primary)?;
        let previous = up.wal.last_epoch();
        let barrier = Barrier {
            epoch,
            previous,
            previous_end: if previous == Epoch::NONE { Lsn::ZERO } else { up.wal.appended() },
            digest: up.wal.digest(),
            terms: terms.clone(),
            accepted_loss,
        };
        let end = up.wal.begin_epoch(&barrier)?.end;
        up.learn();
        up.machine.handle_barrier(epoch, end, now_ms);
        self.start_flush(node);
        Ok(())
    }

    fn append_end(&mut self, node: usize, epoch: Epoch) -> Result<(), WalError> {
        let now_ms = self.local_ms(node);
        let up = self.running(node);
        if up.quiesced != Some(epoch) || up.machine.fence() != epoch {
            return Ok(()); // Demoted meanwhile.
        }
        let end = up.wal.append(RecordKind::End, 0, &[])?.end;
        up.machine.handle_end(epoch, end, now_ms);
        self.ship(node)?;
        self.start_flush(node);
        Ok(())
    }

    fn open(&mut self, node: usize, epoch: Epoch) {
        let up = self.running(node);
        let open = up.machine.role() == RoleView::Primary { open: true };
        if !open || up.machine.fence() != epoch {
            return; // Fenced meanwhile.
        }
        up.opened = Some(epoch);
        up.view = up.engine.values;
        up.quiesced = None;
        self.checks.opened(node, epoch);
    }

    /// The disk forgot: it becomes another one, and the node starts again.
    fn renew(&mut self, node: usize) -> Step {
        let wal = self.running(node).wal.clone();
        wal.renew()?;
        let life = wal.control().incarnation;
        drop(wal);
        self.crash(node, false);
        self.checks.replaced(node, life, false);
        self.nodes[node].replaced = true;
        self.at(1, Event::Restart(node));
        Ok(false)
    }

    /// Begins a flush of what is appended, unless one is under way.
    pub(crate) fn start_flush(&mut self, node: usize) {
        let plant = self.plant;
        let Some(up) = self.up(node) else { return };
        let leads = matches!(up.machine.role(), RoleView::Primary { .. });
        if plant == Some(Plant::AckBeforeFlush) || plant == Some(Plant::OwnFlushInvented) && leads {
            up.machine.handle_flushed(up.wal.appended());
        }
        if up.flushing || up.wal.flushed() == up.wal.appended() {
            return;
        }
        up.flushing = true;
        let most_ms = if self.rng.chance(5) { 80 } else { 8 };
        let life = self.nodes[node].life;
        self.soon(most_ms, Event::Flush(node, life));
    }

    pub(crate) fn flush(&mut self, node: usize) -> Result<(), WalError> {
        let believes = self.plant == Some(Plant::SyncTriedAgain);
        let up = self.running(node);
        up.flushing = false;
        let flushed = match up.wal.flush() {
            Err(WalError::Poisoned(_) | WalError::Io { .. }) if believes => up.wal.appended(),
            flushed => flushed?,
        };
        up.machine.handle_flushed(flushed);
        self.acknowledge(node);
        Ok(())
    }

    /// The applier: some way up to min(committed, flushed), and now and then to disk.
    pub(crate) fn apply(&mut self, node: usize) -> Result<(), WalError> {
        let life = self.nodes[node].life;
        let pause_ms = self.rng.range(4, 16);
        self.at(pause_ms, Event::Apply(node, life));
        let (save, all) = (self.rng.chance(15), self.rng.chance(75));
        let skips = self.plant == Some(Plant::RecordSkipped) && self.rng.chance(10);
        let uncommitted = self.plant == Some(Plant::AppliedBeforeCommitted);
        let up = self.running(node);
        let until = if uncommitted { up.wal.flushed() } else { up.machine.applicable() };
        let before = up.engine.applied;
        while up.engine.applied < until {
            let Some(record) = up.applier.next_record()? else { break };
            let put = match record.header.kind {
                RecordKind::Data if !skips => Put::decode(&record.payload),
                _ => None,
            };
            up.engine.apply(record.header.end(), put);
            if !all {
                break;
            }
        }
        if up.engine.applied > before {
            let (applied, most) = (up.engine.applied, up.machine.applicable());
            // The rules refuse more; what is planted is for the checks to find.
            up.machine.handle_applied(if uncommitted { applied.min(most) } else { applied });
            let engine = up.engine;
            self.checks.applied(node, &engine);
        }
        if save {
            self.checkpoint(node)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, node: usize) -> Result<(), WalError> {
        let twice = self.plant == Some(Plant::AppliedTwice);
        let up = self.running(node);
        let (engine, committed) = (up.engine, up.machine.committed());
        if self.rng.chance(30) {
            let noted = self
                .running(node)
                .wal
                .update_control(|control| control.committed = control.committed.max(committed));
            match noted {
                // Only a lower bound: it can wait until there is room.
                Err(WalError::NoSpace(_)) if self.nodes[node].store.full => {}
                noted => noted?,
            }
        }
        let saved = &mut self.nodes[node].store.engine;
        *saved = Engine { applied: if twice { saved.applied } else { engine.applied }, ..engine };
        Ok(())
    }
}
