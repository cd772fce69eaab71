//! Does what the rules want done, one action after another.
//!
//! What is short or must not be overtaken is done in place; what waits for others runs in a task
//! of its own. At most one task receives into the log at a time: the replica's, or a candidate's
//! fetch. It is stopped, and seen to have stopped, before any promise is made.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{Body, Frame};
use towline_protocol::id::NodeId;
use towline_protocol::machine::{Action, Failure, Machine};
use towline_wal::Role;

use crate::error::CallError;
use crate::follow::{fetch, follow};
use crate::refusals::PeerError;
use crate::shared::Shared;

/// How long a voter may take to answer a candidate before it is called again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two tries to begin an epoch for which the disk has no room.
const ROOM_PAUSE: Duration = Duration::from_millis(200);

/// Everything that may put records into the log from outside.
struct Receiving {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Receiving {
    fn follow(shared: &Arc<Shared>) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: tokio::spawn(follow(Arc::clone(shared), stopped)) }
    }

    fn fetch(shared: &Arc<Shared>, node: NodeId, epoch: Epoch) -> Self {
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::clone(shared);
        let task = tokio::spawn(async move {
            if let Err(reason) = fetch(&shared, node, epoch, stopped).await {
                shared.tell(|machine, now_ms| machine.handle_fetch_failed(epoch, reason, now_ms));
            }
        });
        Self { stop, task }
    }

    /// Returns once nothing more is received.
    async fn stop(self) {
        self.stop.send_replace(true);
        // A panic in the task has been printed; nothing is received by it any more either.
        let _ = self.task.await;
    }
}

/// Drives the node until it stops.
pub(crate) async fn drive(shared: Arc<Shared>, mut actions: mpsc::UnboundedReceiver<Action>) {
    let mut receiving = Receiving::follow(&shared);
    loop {
        let action = tokio::select! {
            () = shared.stopped() => break,
            action = actions.recv() => action,
        };
        let Some(action) = action else { break };
        receiving = act(&shared, action, receiving).await;
    }
    receiving.stop().await;
}

/// Calls the rules' timeout and repeats what must be repeated.
pub(crate) async fn tick(shared: Arc<Shared>) {
    loop {
        let due_ms = shared.look(Machine::poll_timeout).saturating_sub(shared.now_ms());
        // A quarantined machine wants nothing any more; who watches it is still told that it lives.
        let pause = Duration::from_millis(due_ms.max(1)).min(shared.config.heartbeat);
        tokio::select! {
            () = shared.stopped() => return,
            () = tokio::time::sleep(pause) => {}
        }
        shared.tell(|machine, now_ms| machine.handle_timeout(now_ms));
        shared.repeat_news();
    }
}

async fn act(shared: &Arc<Shared>, action: Action, receiving: Receiving) -> Receiving {
    match action {
        Action::Obey(epoch) => {
            receiving.stop().await;
            blocking(shared, "obeying an epoch", move |shared| shared.obey(epoch)).await;
            return Receiving::follow(shared);
        }
        Action::Fetch(node, epoch) => {
            receiving.stop().await;
            tracing::info!(node = %shared.identity.node, from = %node, %epoch, "fetches the log");
            return Receiving::fetch(shared, node, epoch);
        }
        Action::AppendBarrier { epoch, terms, accepted_loss } => {
            receiving.stop().await;
            let append =
                move |shared: &Shared| shared.append_barrier(epoch, terms.clone(), accepted_loss);
            until_room(shared, "appending a BARRIER", append).await;
            return Receiving::follow(shared);
        }
        Action::Demote => {
            shared.close_gate();
            tracing::warn!(node = %shared.identity.node, "leads no longer");
        }
        Action::Open(epoch) => shared.open(epoch),
        Action::Join => {
            let join =
                |shared: &Shared| shared.update_control(|control| control.role = Role::Replica);
            blocking(shared, "persisting the role", join).await;
        }
        Action::Prepare { old, new, final_lsn } => {
            tokio::spawn(Arc::clone(shared).prepare(old, new, final_lsn));
        }
        Action::Quiesce(epoch) => shared.quiesce(epoch),
        Action::AppendEnd(epoch) => {
            let append = move |shared: &Shared| shared.append_end(epoch);
            until_room(shared, "appending an END", append).await;
        }
        Action::HandedOver(ended) => hand_over_ended(shared, ended),
        Action::Renew => {
            let renew = |shared: &Shared| shared.wal().renew();
            blocking(shared, "taking a new incarnation", renew).await;
        }
        Action::Send(node, frame) => {
            shared.frames.fetch_sub(1, Ordering::Relaxed);
            send(shared, node, frame);
        }
        Action::Ended(ended) => {
            let follows = ended.is_err();
            end(shared, ended);
            if follows {
                receiving.stop().await;
                return Receiving::follow(shared);
            }
        }
    }
    receiving
}

/// Runs a step until it says that it is done: one that had no room is tried again, as long as this
/// node is not stopped. Whether it is still wanted is the step's to say.
async fn until_room(
    shared: &Arc<Shared>,
    what: &str,
    step: impl Fn(&Shared) -> Result<bool, towline_wal::WalError> + Clone + Send + 'static,
) {
    let mut stopping = shared.stopping.subscribe();
    while blocking(shared, what, step.clone()).await == Some(false) {
        tokio::select! {
            _ = stopping.wait_for(|stops| *stops) => return,
            () = tokio::time::sleep(ROOM_PAUSE) => {}
        }
    }
}

/// Runs a step that waits for the disk. If it fails the node is done for.
async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    what: &str,
    step: impl FnOnce(&Shared) -> Result<T, towline_wal::WalError> + Send + 'static,
) -> Option<T> {
    let on = Arc::clone(shared);
    match shared.platform.blocking(move || step(&on)).await {
        Ok(Ok(done)) => return Some(done),
        Ok(Err(error)) => shared.fail(format!("{what}: {error}")),
        Err(panicked) => shared.fail(format!("{what}: {panicked}")),
    }
    None
}

/// A question is asked in a task of its own; a FENCED goes to the candidate that waits for it.
fn send(shared: &Arc<Shared>, node: NodeId, frame: Frame) {
    if matches!(frame.body, Body::Fenced(_)) {
        let waiting = shared.fencing.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
        if let Some(waiting) = waiting {
            // The candidate hung up; it asks again if it still wants to know.
            let _ = waiting.send(frame);
        }
        return;
    }
    let call = (node, frame.epoch);
    if !shared.calling.lock().unwrap_or_else(PoisonError::into_inner).insert(call) {
        return;
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let epoch = frame.epoch;
        let answered = shared.call(node, frame, ANSWER_TIMEOUT).await;
        shared.calling.lock().unwrap_or_else(PoisonError::into_inner).remove(&call);
        match answered {
            Err(CallError::Answer { source, .. }) if source.kind().is_some() => {
                shared.note(node, &source);
            }
            Err(error) => tracing::debug!(node = %shared.identity.node, "{error}"),
            Ok(answer) => {
                let placed = shared.tell(|machine, now_ms| {
                    match answer.body {
                        Body::Positions(at) => machine.handle_positions(node, *at, now_ms),
                        Body::Fenced(at) => machine.handle_fenced(node, epoch, *at, now_ms),
                        Body::FenceRefused { at_work } => {
                            machine.handle_fence_refused(node, answer.epoch, at_work, now_ms);
                        }
                        _ => return false,
                    }
                    true
                });
                if !placed {
                    shared.note(node, &PeerError::OutOfPlace("an answer"));
                }
            }
        }
    });
}

fn hand_over_ended(shared: &Shared, ended: Result<Epoch, Failure>) {
    match &ended {
        Ok(epoch) => tracing::info!(node = %shared.identity.node, %epoch, "handed over"),
        Err(failure) => tracing::warn!(node = %shared.identity.node, "not handed over: {failure}"),
    }
    let waiting = shared.hand_over.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(waiting) = waiting {
        // Who asked may have hung up.
        let _ = waiting.send(ended.map_err(Into::into));
    }
}

fn end(shared: &Shared, ended: Result<Epoch, Failure>) {
    let waiting = shared.promotion.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (waiting, ended) {
        (Some(waiting), ended) => {
            let _ = waiting.send(ended.map_err(Into::into));
        }
        (None, Err(failure)) => {
            let reason = failure.to_string();
            let mut trouble = shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            if *trouble != reason {
                tracing::info!(node = %shared.identity.node, "does not lead: {reason}");
                *trouble = reason;
            }
        }
        (None, Ok(_)) => {}
    }
}
