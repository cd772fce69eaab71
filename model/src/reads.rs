//! How a primary makes sure that a read is current: by a round of echoes, or by promises.
//!
//! # Time, without clocks
//!
//! A lease compares two clocks: a voter promises for `lease_ms` from when it *receives* a frame,
//! the primary counts `lease_ms` from when it *sent* it. As long as clocks run at one speed, the
//! primary's count ends first. That order is all a lease rests on, and all that is modelled:
//! [`lapse`] may come at any time, [`expire`] only after it.

use crate::setting::{Broken, Reads, Setting};
use crate::state::{Read, Role, State, seen};

/// Begins and evaluates a read on an open primary, not knowing whether it still is the only one.
pub fn evaluate(setting: &Setting, state: &mut State, node: u8) -> Option<()> {
    let slot = state.open(node)?;
    if setting.reads == Reads::None || state.read != Read::Idle {
        return None;
    }
    // The hardest case: evaluated the moment it began. Earlier, less would be required of it.
    let (required, end) = (state.acknowledged(), state.node(node).log.end());
    state.read = Read::Evaluated { slot, required, seen: end, echoes: 0 };
    Some(())
}

/// A voter in a session echoes the number of a frame that was sent after the evaluation.
pub fn echo(setting: &Setting, state: &mut State, node: u8) -> Option<()> {
    let at = *state.node(node);
    let Read::Evaluated { slot, echoes, .. } = &mut state.read else { return None };
    if setting.reads != Reads::Round || at.session != Some(*slot) || *echoes & 1 << node != 0 {
        return None;
    }
    *echoes |= 1 << node;
    Some(())
}

/// Answers once what was seen is committed and the primary is sure that it was current.
pub fn answer(setting: &Setting, state: &mut State, node: u8) -> Option<()> {
    let Read::Evaluated { slot, required, seen: end, echoes } = state.read else { return None };
    let at = *state.node(node);
    if at.role != Role::Leads(slot) {
        return None;
    }
    if at.committed < end && !setting.is(Broken::ReadUncommitted) {
        return None;
    }
    let attempt = state.attempt(slot);
    let sure = match setting.broken {
        Some(Broken::ReadWithoutRound) => u8::MAX,
        Some(Broken::RoundTooEarly) => attempt.holders(1),
        _ if setting.reads == Reads::Lease => attempt.held | 1 << node,
        _ => echoes | 1 << node,
    };
    let (_, newest) = crate::voters::in_force(at.log)?;
    let set = setting.sets[usize::from(newest)];
    if set.count(sure) < set.w {
        return None;
    }
    let saw = at.log.prefix(end);
    if (1..=setting.writes).any(|number| required & 1 << (number - 1) != 0 && !saw.holds(number)) {
        state.note(seen::STALE);
    }
    if !saw.is_prefix_of(state.chosen) {
        state.note(seen::DIRTY);
    }
    state.note(seen::ANSWERED);
    state.read = Read::Over;
    Some(())
}

/// Refuses a read whose primary is none any more.
pub fn abandon(state: &mut State, left: u8) {
    if matches!(state.read, Read::Evaluated { slot, .. } if slot == left) {
        state.read = Read::Over;
    }
}

/// A voter acknowledges a frame with a promise: no FENCED until it has run out.
pub fn promise(setting: &Setting, state: &mut State, node: u8) -> Option<()> {
    let slot = state.node(node).session?;
    let attempt = *state.attempt(slot);
    let leads = state.node(attempt.node).role == Role::Leads(slot);
    if setting.reads != Reads::Lease || !leads || attempt.held & 1 << node != 0 {
        return None;
    }
    state.node_mut(node).promises |= 1 << slot;
    state.attempt_mut(slot).held |= 1 << node;
    Some(())
}

/// The primary's count of a promise ends.
pub fn lapse(state: &mut State, node: u8, slot: u8) -> Option<()> {
    let held = &mut state.attempt_mut(slot).held;
    if *held & 1 << node == 0 {
        return None;
    }
    *held &= !(1 << node);
    Some(())
}

/// A promise runs out, after the primary has ceased to count on it.
pub fn expire(setting: &Setting, state: &mut State, node: u8, slot: u8) -> Option<()> {
    let counted = state.attempt(slot).held & 1 << node != 0;
    let promises = &mut state.node_mut(node).promises;
    if *promises & 1 << slot == 0 || counted && !setting.is(Broken::LeaseFromReceipt) {
        return None;
    }
    *promises &= !(1 << slot);
    Some(())
}
