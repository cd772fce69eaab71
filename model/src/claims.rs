//! What must never happen, and what must happen sometimes.

use stateright::Property;

use crate::Checked;
use crate::setting::Reads;
use crate::state::{NODES, State, seen};
use crate::voters;

/// A write that a client was told is safe stands in the log of every primary of a later epoch.
pub const SURVIVES: &str = "an acknowledged write is in every later open primary's log";
/// State machine safety.
pub const AGREES: &str = "what two nodes hold as committed agrees";
/// An epoch has one primary.
pub const ONCE: &str = "one attempt acknowledges per epoch";
/// A voter that said FENCED is lost to everything below.
pub const NO_LATE_ACK: &str = "no ack leaves below an epoch said to be obeyed";
/// The engine applied it; it can not be undone.
pub const NO_CUT: &str = "nothing known to be committed is cut";
/// Linearizable reads, by round or by lease.
pub const CURRENT: &str = "a read sees every write acknowledged before it began";
/// No dirty reads.
pub const CLEAN: &str = "a read sees nothing that is not committed";
/// Not vacuous: a failover.
pub const FAILS_OVER: &str = "sometimes a write is acknowledged after a failover";
/// Not vacuous: a change of voters.
pub const CHANGES: &str = "sometimes a primary is open and its newest voter set is the last";
/// Not vacuous: a read.
pub const ANSWERS: &str = "sometimes a read is answered";

/// The properties of a setting.
#[must_use]
pub fn properties(reads: Reads, changes: bool) -> Vec<Property<Checked>> {
    let mut claims = vec![
        Property::always(SURVIVES, |model: &Checked, state: &State| survives(model, state)),
        Property::always(AGREES, |_, state: &State| !state.saw(seen::DIVERGED)),
        Property::always(ONCE, |_, state: &State| !state.saw(seen::TWICE)),
        Property::always(NO_LATE_ACK, |_, state: &State| !state.saw(seen::LATE_ACK)),
        Property::always(NO_CUT, |_, state: &State| !state.saw(seen::CUT)),
        Property::sometimes(FAILS_OVER, |_, state: &State| {
            state.acked.iter().any(|epoch| *epoch > 1)
        }),
    ];
    if reads != Reads::None {
        claims.push(Property::always(CURRENT, |_, state: &State| !state.saw(seen::STALE)));
        claims.push(Property::always(CLEAN, |_, state: &State| !state.saw(seen::DIRTY)));
        claims.push(Property::sometimes(ANSWERS, |_, state: &State| state.saw(seen::ANSWERED)));
    }
    if changes {
        claims.push(Property::sometimes(CHANGES, changed));
    }
    claims
}

fn survives(model: &Checked, state: &State) -> bool {
    (0..model.setting.nodes).all(|node| {
        let Some(slot) = state.open(node) else { return true };
        let epoch = state.attempt(slot).epoch;
        let log = state.node(node).log;
        let acked = (1..).zip(state.acked).filter(|(_, acked)| *acked > 0 && *acked < epoch);
        acked.into_iter().all(|(number, _)| log.holds(number))
    })
}

fn changed(model: &Checked, state: &State) -> bool {
    let last = model.setting.sets.len() as u8 - 1;
    (0..NODES as u8).any(|node| {
        state.open(node).is_some()
            && voters::in_force(state.node(node).log).is_some_and(|(_, newest)| newest == last)
    })
}
