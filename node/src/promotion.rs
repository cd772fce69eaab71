//! The promotion, and the fence: the slow steps of the rules, in their order.
//!
//! [`Shared::obey`] is the one place where a node makes a promise; [`Shared::append_barrier`] the
//! one place where an epoch begins; [`Shared::open`] the one place where clients are let in.

use std::sync::{Arc, PoisonError};

use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::Epoch;
use towline_protocol::lsn::Lsn;
use towline_protocol::machine::RoleView;
use towline_protocol::record::RecordKind;
use towline_protocol::terms::Terms;
use towline_wal::{Appended, Role, WalError};

use crate::hook::PromotionContext;
use crate::shared::{Gate, Shared};

impl Shared {
    /// Obeys `epoch`: stop appending, flush, persist the fence. The caller has stopped the
    /// receiving. Blocks.
    pub(crate) fn obey(&self, epoch: Epoch) -> Result<(), WalError> {
        tracing::info!(node = %self.identity.node, %epoch, "obeys a new epoch");
        self.close_gate();
        let wal = self.wal();
        let end = wal.flush()?;
        self.update_control(|control| control.fence = control.fence.max(epoch))?;
        let end = if wal.history().starts().is_empty() { Lsn::ZERO } else { end };
        self.tell(|machine, now_ms| machine.handle_obeyed(epoch, end, now_ms));
        Ok(())
    }

    /// No append is under way, and none begins, once this returns.
    pub(crate) fn close_gate(&self) {
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = Gate::Shut;
        self.tell(|_, _| ());
    }

    /// No append of `epoch` is under way, and none begins, once the rules are told; what was
    /// appended is still committed and answered.
    pub(crate) fn quiesce(&self, epoch: Epoch) {
        {
            let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            if *gate != Gate::Open(epoch) {
                return; // Demoted meanwhile.
            }
            *gate = Gate::Quiesced(epoch);
        }
        self.tell(|machine, now_ms| machine.handle_quiesced(epoch, now_ms));
    }

    /// Ends `epoch` in the log, behind everything else of it; `false` if there is no room for that
    /// now. A full disk ends a hand-over by its deadline, never the node. Blocks.
    pub(crate) fn append_end(&self, epoch: Epoch) -> Result<bool, WalError> {
        // The gate is closed by whoever runs this, so it can not say.
        if !self.leads(epoch) {
            return Ok(true); // Demoted meanwhile.
        }
        let appended = match self.try_end(epoch) {
            Ok(Some(appended)) => appended,
            Ok(None) => return Ok(true), // Demoted meanwhile.
            Err(why @ (WalError::NoSpace(_) | WalError::NotReady { .. })) => {
                tracing::warn!(node = %self.identity.node, "waiting to hand over: {why}");
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.tell(|machine, now_ms| machine.handle_end(epoch, appended.end, now_ms));
        Ok(true)
    }

    fn try_end(&self, epoch: Epoch) -> Result<Option<Appended>, WalError> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if *gate != Gate::Quiesced(epoch) {
            return Ok(None);
        }
        self.wal().append(RecordKind::End, 0, &[]).map(Some)
    }

    fn leads(&self, epoch: Epoch) -> bool {
        self.look(|machine| {
            machine.fence() == epoch && matches!(machine.role(), RoleView::Primary { .. })
        })
    }

    /// Calls the hook's `pre_promote`, which may take until its deadline, and tells the rules.
    pub(crate) async fn prepare(self: Arc<Self>, old: Epoch, new: Epoch, final_lsn: Lsn) {
        let context = self.context(old, new, final_lsn);
        let hook = Arc::clone(&self.hook);
        let called = self.platform.blocking(move || hook.pre_promote(&context));
        let verdict = match tokio::time::timeout(self.config.hook_deadline, called).await {
            Err(_) => Err(format!("it took longer than {:?}", self.config.hook_deadline)),
            Ok(Err(panicked)) => Err(format!("it failed: {panicked}")),
            Ok(Ok(Err(veto))) => Err(veto.to_string()),
            Ok(Ok(Ok(()))) => Ok(()),
        };
        self.tell(|machine, now_ms| machine.handle_prepared(new, verdict, now_ms));
    }

    /// Begins `epoch` in the log; `false` if there is no room for it now, and this node is still
    /// the candidate. A full disk ends a candidacy by its deadline, never the node. Blocks.
    pub(crate) fn append_barrier(
        &self,
        epoch: Epoch,
        terms: Terms,
        accepted_loss: bool,
    ) -> Result<bool, WalError> {
        if !self.is_candidate(epoch) {
            return Ok(true); // It took too long, or a higher epoch is obeyed meanwhile.
        }
        let wal = self.wal();
        self.update_control(|control| control.role = Role::Primary)?;
        let previous = wal.last_epoch();
        let barrier = Barrier {
            epoch,
            previous,
            previous_end: if previous == Epoch::NONE { Lsn::ZERO } else { wal.appended() },
            digest: wal.digest(),
            terms,
            accepted_loss,
        };
        let appended = match wal.begin_epoch(&barrier) {
            Err(why @ (WalError::NoSpace(_) | WalError::NotReady { .. })) => {
                tracing::warn!(node = %self.identity.node, "waiting to lead: {why}");
                return Ok(false);
            }
            begun => begun?,
        };
        let (history, terms) = (wal.history(), wal.terms());
        tracing::info!(node = %self.identity.node, %epoch, lsn = %appended.lsn, "leads");
        self.tell(|machine, now_ms| {
            machine.handle_history(history, terms);
            machine.handle_barrier(epoch, appended.end, now_ms);
        });
        Ok(true)
    }

    fn is_candidate(&self, epoch: Epoch) -> bool {
        self.look(|machine| machine.fence() == epoch && machine.role() == RoleView::Candidate)
    }

    /// The BARRIER of `epoch` is committed and applied: let clients in.
    pub(crate) fn open(self: &Arc<Self>, epoch: Epoch) {
        // Under the lock of the rules: once they say that this node leads no longer, it stays shut.
        let opened = self.tell(|machine, _| {
            let leads = machine.role() == RoleView::Primary { open: true };
            let opens = leads && machine.fence() == epoch;
            if opens {
                *self.gate.write().unwrap_or_else(PoisonError::into_inner) = Gate::Open(epoch);
            }
            opens
        });
        if !opened {
            return;
        }
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clear();
        tracing::info!(node = %self.identity.node, %epoch, "open for clients");
        let history = self.wal().history();
        let Some(start) = history.start_of(epoch).copied() else { return };
        let context = self.context(start.previous, epoch, start.previous_end);
        let hook = Arc::clone(&self.hook);
        let platform = self.platform.clone();
        tokio::spawn(async move { platform.blocking(move || hook.post_promote(&context)).await });
    }

    pub(crate) fn context(&self, old: Epoch, new: Epoch, final_lsn: Lsn) -> PromotionContext {
        PromotionContext {
            log: self.identity.log,
            node: self.identity.node,
            old_epoch: old,
            new_epoch: new,
            final_lsn,
            planned: false,
            possible_loss: false,
            deadline: self.config.hook_deadline,
        }
    }
}
