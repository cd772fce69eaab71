//! The steps of the protocol. A step that is not possible now is `None`.

use crate::log::{Entry, Log};
use crate::setting::{Broken, Nodes, Setting};
use crate::state::{Attempt, Role, SLOTS, State, seen};
use crate::{reads, voters};

/// What can happen next. The first number is the node it happens on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A client's write is appended to an open primary's log, and thereby on its way.
    Write(u8),
    /// The next record of the stream arrives.
    Receive(u8),
    /// Everything in the log is flushed, and acknowledged.
    Flush(u8),
    /// A primary counts acks and commits one record more.
    Commit(u8),
    /// A replica hears that one record more is committed.
    Learn(u8),
    /// A node becomes the candidate of an epoch.
    Campaign(u8, u8),
    /// A FENCE arrives: the node obeys that attempt.
    Obey(u8, u8),
    /// A candidate adopts the longest log of those who obey; it may change the voters.
    Adopt(u8, Nodes, bool),
    /// The next record of the adopted log arrives.
    Fetch(u8, bool),
    /// The node joins that attempt's primary: its log is cut to the fork, a session begins.
    Join(u8, u8),
    /// The node crashes and starts again; of what was not flushed, so many records are kept.
    Crash(u8, u8),
    /// The node loses its disk and starts again with an empty one.
    Wipe(u8),
    /// A read is evaluated.
    Evaluate(u8),
    /// A frame sent after the evaluation is echoed.
    Echo(u8),
    /// A read is answered.
    Answer(u8),
    /// A voter promises its primary to delay FENCED.
    Promise(u8),
    /// The primary of that attempt no longer counts on the node's promise.
    Lapse(u8, u8),
    /// The node's promise to that attempt runs out.
    Expire(u8, u8),
}

/// The state after `action`, if it is possible.
#[must_use]
pub fn step(setting: &Setting, state: &State, action: Action) -> Option<State> {
    let mut next = *state;
    match action {
        Action::Write(node) => write(setting, &mut next, node),
        Action::Receive(node) => receive(setting, &mut next, node),
        Action::Flush(node) => flush(&mut next, node),
        Action::Commit(node) => commit(setting, &mut next, node),
        Action::Learn(node) => learn(&mut next, node),
        Action::Campaign(node, epoch) => campaign(setting, &mut next, node, epoch),
        Action::Obey(node, slot) => obey(setting, &mut next, node, slot),
        Action::Adopt(node, among, change) => adopt(setting, &mut next, node, among, change),
        Action::Fetch(node, change) => fetch(setting, &mut next, node, change),
        Action::Join(node, slot) => join(setting, &mut next, node, slot),
        Action::Crash(node, kept) => crash(setting, &mut next, node, kept),
        Action::Wipe(node) => wipe(setting, &mut next, node),
        Action::Evaluate(node) => reads::evaluate(setting, &mut next, node),
        Action::Echo(node) => reads::echo(setting, &mut next, node),
        Action::Answer(node) => reads::answer(setting, &mut next, node),
        Action::Promise(node) => reads::promise(setting, &mut next, node),
        Action::Lapse(node, slot) => reads::lapse(&mut next, node, slot),
        Action::Expire(node, slot) => reads::expire(setting, &mut next, node, slot),
    }?;
    if setting.broken.is_none() {
        forget(setting, &mut next);
    }
    Some(next)
}

fn write(setting: &Setting, state: &mut State, node: u8) -> Option<()> {
    let slot = state.open(node).filter(|_| state.writes < setting.writes)?;
    state.writes += 1;
    let entry = Entry::write(state.attempt(slot).epoch, state.writes);
    append(state, node, slot, entry);
    Some(())
}

/// Appends to a primary's log; it is shipped while it is being flushed.
fn append(state: &mut State, node: u8, slot: u8, entry: Entry) {
    let log = state.node(node).log.and(entry);
    state.node_mut(node).log = log;
    state.attempt_mut(slot).sent = log;
}

fn receive(setting: &Setting, state: &mut State, node: u8) -> Option<()> {
    let slot = state.node(node).session?;
    let sent = state.attempt(slot).sent;
    let log = state.node(node).log;
    if log.end() >= sent.end() {
        return None;
    }
    state.node_mut(node).log = log.and(sent.at(log.end()));
    if setting.is(Broken::AckBeforeFlush) {
        acknowledge(state, node, slot, log.end() + 1);
    }
    Some(())
}

fn flush(state: &mut State, node: u8) -> Option<()> {
    let at = state.node_mut(node);
    if at.flushed == at.log.end() {
        return None;
    }
    at.flushed = at.log.end();
    let flushed = at.flushed;
    // What a candidate holds is not acknowledged: nobody counts in its epoch yet.
    let leads = if let Role::Leads(slot) = at.role { Some(slot) } else { None };
    if let Some(slot) = at.session.or(leads) {
        acknowledge(state, node, slot, flushed);
    }
    Some(())
}

fn acknowledge(state: &mut State, node: u8, slot: u8, end: u8) {
    if state.attempt(slot).epoch < state.node(node).obeyed {
        state.note(seen::LATE_ACK);
    }
    // Where nobody leads any more, nobody counts.
    if state.node(state.attempt(slot).node).role == Role::Leads(slot) {
        let ack = &mut state.attempt_mut(slot).acks[usize::from(node)];
        *ack = (*ack).max(end);
    }
}

fn commit(setting: &Setting, state: &mut State, node: u8) -> Option<()> {
    let at = *state.node(node);
    let Role::Leads(slot) = at.role else { return None };
    let (barrier, _) = at.log.last_barrier()?;
    // With the BARRIER everything before it is committed, and nothing before it is.
    let first = if setting.is(Broken::BarrierNotRequired) { 0 } else { barrier + 1 };
    let end = first.max(at.committed + 1);
    let attempt = *state.attempt(slot);
    if end > at.log.end() || !voters::commits(setting, &attempt, at.log, end) {
        return None;
    }
    let same_epoch = |other: &Attempt| other.epoch == attempt.epoch && other.committed > 0;
    let others = (0..SLOTS).filter(|other| *other != usize::from(slot));
    if others.map(|other| &state.attempts[other]).any(same_epoch) {
        state.note(seen::TWICE);
    }
    state.node_mut(node).committed = end;
    state.attempt_mut(slot).committed = end;
    choose(state, at.log.prefix(end));
    for number in at.log.prefix(end).entries().filter_map(Entry::number) {
        let acked = &mut state.acked[usize::from(number) - 1];
        if *acked == 0 {
            *acked = attempt.epoch;
        }
    }
    Some(())
}

/// Compares what one node holds as committed with what anybody ever did.
fn choose(state: &mut State, committed: Log) {
    if state.chosen.is_prefix_of(committed) {
        state.chosen = committed;
    } else if !committed.is_prefix_of(state.chosen) {
        state.note(seen::DIVERGED);
    }
}

fn learn(state: &mut State, node: u8) -> Option<()> {
    let at = *state.node(node);
    let known = state.attempt(at.session?).committed.min(at.flushed);
    if at.committed >= known {
        return None;
    }
    state.node_mut(node).committed += 1;
    choose(state, at.log.prefix(at.committed + 1));
    Some(())
}

fn campaign(setting: &Setting, state: &mut State, node: u8, epoch: u8) -> Option<()> {
    let at = *state.node(node);
    let (_, newest) = voters::in_force(at.log)?;
    let promised = at.promises != 0 && !setting.is(Broken::OwnPromiseIgnored);
    if epoch <= at.fence || !voters::counts(setting, newest, node) || promised {
        return None;
    }
    // Numbers are given out once, which is what (number, incarnation) comes to.
    let taken = state.attempts.iter().find(|attempt| attempt.epoch == epoch);
    let again = setting.is(Broken::EpochShared)
        || setting.is(Broken::FenceForgotten) && taken.is_some_and(|taken| taken.node == node);
    if taken.is_some() && !again {
        return None;
    }
    let slot = if taken.is_some() {
        state.attempts.iter().position(|attempt| attempt.epoch == 0)?
    } else {
        usize::from(epoch) - 1
    };
    if state.attempts[slot].epoch > 0 {
        return None;
    }
    leave(state, node);
    // Its own fence first: only then are others asked.
    take_fence(state, node, epoch);
    state.attempts[slot] = Attempt { epoch, node, ..Attempt::default() };
    tell(state, node, slot as u8);
    state.node_mut(node).role = Role::Fences(slot as u8);
    Some(())
}

/// Stops whatever the node does in an attempt of its own; nobody counts or fetches there now.
fn leave(state: &mut State, node: u8) {
    let Some(slot) = state.node(node).role.slot() else { return };
    state.node_mut(node).role = Role::Follows;
    let attempt = state.attempt_mut(slot);
    attempt.fenced = 0;
    attempt.told = Default::default();
    attempt.acks = Default::default();
    attempt.held = 0;
    if !attempt.led() {
        attempt.sent = Log::default();
    }
    reads::abandon(state, slot);
}

/// Stops receiving, flushes, and makes the fence durable.
fn take_fence(state: &mut State, node: u8, epoch: u8) {
    let at = state.node_mut(node);
    at.flushed = at.log.end();
    at.session = None;
    at.fence = epoch;
    at.obeyed = at.obeyed.max(epoch);
}

/// FENCED, which says how far this node's log reaches.
fn tell(state: &mut State, node: u8, slot: u8) {
    let log = state.node(node).log;
    let attempt = state.attempt_mut(slot);
    attempt.fenced |= 1 << node;
    attempt.told[usize::from(node)] = log;
}

fn obey(setting: &Setting, state: &mut State, node: u8, slot: u8) -> Option<()> {
    let at = *state.node(node);
    let attempt = *state.attempt(slot);
    let shared = setting.is(Broken::EpochShared)
        && attempt.epoch == at.fence
        && attempt.fenced & 1 << node == 0;
    let promised = at.promises != 0 && !setting.is(Broken::PromiseIgnored);
    let refused = voters::refuses(setting, at.log, attempt.node);
    if attempt.node == node || !(attempt.epoch > at.fence || shared) || promised || refused {
        return None;
    }
    leave(state, node);
    take_fence(state, node, attempt.epoch);
    if setting.is(Broken::AckAfterFenced) {
        state.node_mut(node).session = at.session;
    }
    if state.node(attempt.node).role == Role::Fences(slot) {
        tell(state, node, slot);
    }
    Some(())
}

fn adopt(setting: &Setting, state: &mut State, node: u8, among: Nodes, change: bool) -> Option<()> {
    let Role::Fences(slot) = state.node(node).role else { return None };
    let attempt = *state.attempt(slot);
    if among & !attempt.fenced != 0 || among & 1 << node == 0 {
        return None;
    }
    let longest = voters::longest(setting, &attempt, among);
    if !voters::enough(setting, state, node, among, longest) {
        return None;
    }
    let (_, newest) = voters::in_force(longest)?;
    if !voters::counts(setting, newest, node) {
        return None;
    }
    cut(state, node, state.node(node).log.fork(longest));
    let attempt = state.attempt_mut(slot);
    attempt.fenced = 0;
    attempt.told = Default::default();
    attempt.sent = longest;
    state.node_mut(node).role = Role::Fetches(slot);
    finish_fetch(setting, state, node, change)
}

fn fetch(setting: &Setting, state: &mut State, node: u8, change: bool) -> Option<()> {
    let at = *state.node(node);
    let Role::Fetches(slot) = at.role else { return None };
    let record = state.attempt(slot).sent.at(at.log.end());
    let at = state.node_mut(node);
    at.log = at.log.and(record);
    at.flushed = at.log.end();
    finish_fetch(setting, state, node, change)
}

/// Once the adopted log is complete, opens the epoch in it. A change of voters is asked for
/// only here, so that no state has to remember it.
fn finish_fetch(setting: &Setting, state: &mut State, node: u8, change: bool) -> Option<()> {
    let at = *state.node(node);
    let slot = at.role.slot()?;
    let attempt = *state.attempt(slot);
    if at.log.end() < attempt.sent.end() {
        return (!change).then_some(());
    }
    let (oldest, mut newest) = voters::in_force_knowing(setting, at.log, at.committed)?;
    if change {
        newest += 1;
        let exists = usize::from(newest) < setting.sets.len();
        if !exists || !voters::counts(setting, newest, node) {
            return None;
        }
    }
    append(state, node, slot, Entry::barrier(attempt.epoch, oldest, newest));
    state.node_mut(node).role = Role::Leads(slot);
    Some(())
}

/// Cuts a node's log, durably.
fn cut(state: &mut State, node: u8, end: u8) {
    let at = state.node_mut(node);
    if end >= at.log.end() {
        return;
    }
    let committed = at.committed;
    at.log = at.log.prefix(end);
    at.flushed = at.flushed.min(end);
    if end < committed {
        state.note(seen::CUT);
    }
}

fn join(setting: &Setting, state: &mut State, node: u8, slot: u8) -> Option<()> {
    let at = *state.node(node);
    let attempt = *state.attempt(slot);
    let may = attempt.epoch > at.fence || attempt.epoch == at.fence && at.role == Role::Follows;
    let refused = voters::refuses(setting, at.log, attempt.node);
    if attempt.node == node || !attempt.led() || !may || at.session == Some(slot) || refused {
        return None;
    }
    leave(state, node);
    let at = state.node_mut(node);
    // The first words speak of what is on disk.
    at.flushed = at.log.end();
    at.fence = attempt.epoch;
    at.session = Some(slot);
    let before = at.log;
    let fork = match setting.broken {
        Some(Broken::MatchByPosition) => before.end().min(attempt.sent.end()),
        Some(Broken::CutToEpoch) => {
            before.prefix(before.fork(attempt.sent)).last_barrier().map_or(0, |(place, _)| place)
        }
        _ => before.fork(attempt.sent),
    };
    cut(state, node, fork);
    let matched = state.node(node).flushed;
    let end = if setting.is(Broken::AckBeforeCut) { before.end() } else { matched };
    acknowledge(state, node, slot, end);
    Some(())
}

fn crash(setting: &Setting, state: &mut State, node: u8, kept: u8) -> Option<()> {
    let at = *state.node(node);
    let end = at.flushed + kept;
    if state.crashes == setting.crashes || end > at.log.end() {
        return None;
    }
    state.crashes += 1;
    let keeps = setting.is(Broken::EpochKept) && matches!(at.role, Role::Leads(_));
    if !keeps {
        leave(state, node);
    }
    let at = state.node_mut(node);
    at.log = at.log.prefix(end);
    at.flushed = end;
    at.session = None;
    if setting.is(Broken::FenceForgotten) {
        at.fence = at.log.last_epoch();
    }
    if setting.is(Broken::PromiseForgotten) {
        at.promises = 0;
    }
    if let (true, Role::Leads(slot), log) = (keeps, at.role, at.log) {
        state.attempt_mut(slot).sent = log;
    }
    Some(())
}

fn wipe(setting: &Setting, state: &mut State, node: u8) -> Option<()> {
    if !setting.is(Broken::WipedVotes) || state.crashes == setting.crashes {
        return None;
    }
    state.crashes += 1;
    leave(state, node);
    *state.node_mut(node) = Default::default();
    Some(())
}

/// Drops what can no longer have an effect, so that states that differ only in it are one.
///
/// Everything sent in an epoch that everybody has obeyed past is refused wherever it arrives.
fn forget(setting: &Setting, state: &mut State) {
    for slot in 0..SLOTS as u8 {
        let attempt = *state.attempt(slot);
        let led_by = state.node(attempt.node).role.slot() == Some(slot);
        let nodes = &state.nodes[..usize::from(setting.nodes)];
        let past = |node: &crate::state::Node| {
            node.fence > attempt.epoch
                && node.session != Some(slot)
                && node.promises & 1 << slot == 0
        };
        if attempt.epoch > 0 && !led_by && nodes.iter().all(past) {
            *state.attempt_mut(slot) = Attempt { epoch: attempt.epoch, ..Attempt::default() };
        }
    }
}
