//! A model of how Towline commits, fences and promotes, small enough to be explored to its end.
//!
//! It is a specification written apart from the code, and shares nothing with it: what the code
//! gets wrong it can not repeat here. Every rule has a sentence in
//! `docs/design/commit.md` and `docs/design/promotion.md`; every rule can be broken
//! ([`setting::Broken`]), and the checker must then find the property that it protects.
//!
//! The argument is Raft's (Ongaro and Ousterhout 2014, §5.4) with terms called epochs and the
//! vote taken by whoever is told to: a candidate fences R voters, adopts the longest log among
//! them, as Neon's walproposer does with its safekeepers, and opens once a BARRIER of its own
//! epoch is committed. Quorums are Flexible Paxos's: W to commit, R = N − W + 1 to fence.
//!
//! [`state`] says what a state is and why no message is missing from it, [`steps`] what can
//! happen, [`voters`] who counts, [`reads`] why a read is current, [`claims`] what must hold.
//! The checker keeps 64 bits of each state, so two states may be taken for one; with 10⁷ states
//! the odds of that are below one in 10⁵.
#![forbid(unsafe_code)]

pub mod claims;
pub mod log;
pub mod reads;
pub mod runs;
pub mod setting;
pub mod state;
pub mod steps;
pub mod voters;

use stateright::{Model, Property};

use log::{Entry, Log};
use setting::{Broken, Reads, Setting};
use state::{Attempt, Node, Role, State};
use steps::Action;

/// A setting as stateright explores it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What is explored.
    pub setting: Setting,
    actions: Vec<Action>,
}

impl Checked {
    /// Everything there is in `setting`.
    #[must_use]
    pub fn new(setting: Setting) -> Self {
        let actions = conceivable(&setting);
        Self { setting, actions }
    }
}

impl Model for Checked {
    type State = State;
    type Action = Action;

    /// Epoch 1 is open on node 0, its BARRIER flushed by all voters and known to be committed.
    fn init_states(&self) -> Vec<State> {
        let set = self.setting.sets[0];
        let barrier = Log::default().and(Entry::barrier(1, 0, 0));
        let mut state = State { chosen: barrier, ..State::default() };
        state.attempts[0] = Attempt { epoch: 1, sent: barrier, committed: 1, ..Default::default() };
        for node in (0..self.setting.nodes).filter(|node| set.members & 1 << node != 0) {
            state.attempts[0].acks[usize::from(node)] = 1;
            *state.node_mut(node) = Node {
                log: barrier,
                flushed: 1,
                fence: 1,
                committed: 1,
                obeyed: 1,
                session: (node > 0).then_some(0),
                ..Node::default()
            };
        }
        state.node_mut(0).role = Role::Leads(0);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let plausible = |action: &&Action| plausible(&self.setting, state, **action);
        actions.extend(self.actions.iter().filter(plausible));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        steps::step(&self.setting, state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        claims::properties(self.setting.reads, self.setting.sets.len() > 1)
    }
}

/// Rules out at a glance most of what is not possible: a step copies the state first.
fn plausible(setting: &Setting, state: &State, action: Action) -> bool {
    match action {
        Action::Receive(node) | Action::Learn(node) => state.node(node).session.is_some(),
        Action::Echo(node) | Action::Promise(node) => {
            setting.reads != Reads::None && state.node(node).session.is_some()
        }
        Action::Evaluate(node) | Action::Answer(node) => {
            setting.reads != Reads::None && matches!(state.node(node).role, Role::Leads(_))
        }
        Action::Write(node) | Action::Commit(node) => {
            matches!(state.node(node).role, Role::Leads(_))
        }
        Action::Flush(node) => state.node(node).flushed < state.node(node).log.end(),
        Action::Campaign(node, epoch) => epoch > state.node(node).fence,
        Action::Obey(node, slot) | Action::Join(node, slot) => {
            let attempt = state.attempt(slot);
            attempt.epoch > 0 && attempt.epoch >= state.node(node).fence
        }
        Action::Adopt(node, among, _) => match state.node(node).role {
            Role::Fences(slot) => among & !state.attempt(slot).fenced == 0,
            _ => false,
        },
        Action::Fetch(node, _) => matches!(state.node(node).role, Role::Fetches(_)),
        Action::Crash(node, kept) => {
            let at = state.node(node);
            state.crashes < setting.crashes && at.flushed + kept <= at.log.end()
        }
        Action::Wipe(_) => setting.is(Broken::WipedVotes),
        Action::Lapse(node, slot) => state.attempt(slot).held & 1 << node != 0,
        Action::Expire(node, slot) => state.node(node).promises & 1 << slot != 0,
    }
}

/// Every action that may be possible in some state.
fn conceivable(setting: &Setting) -> Vec<Action> {
    let mut actions = Vec::new();
    let slots = state::SLOTS as u8;
    for node in 0..setting.nodes {
        actions.extend([Action::Write(node), Action::Receive(node), Action::Flush(node)]);
        actions.extend([Action::Commit(node), Action::Learn(node), Action::Wipe(node)]);
        actions.extend([Action::Evaluate(node), Action::Echo(node), Action::Answer(node)]);
        actions.push(Action::Promise(node));
        actions.extend((2..=setting.epochs).map(|epoch| Action::Campaign(node, epoch)));
        actions.extend((0..slots).map(|slot| Action::Obey(node, slot)));
        actions.extend((0..slots).map(|slot| Action::Join(node, slot)));
        actions.extend((0..slots).map(|slot| Action::Lapse(node, slot)));
        actions.extend((0..slots).map(|slot| Action::Expire(node, slot)));
        actions.extend((0..4).map(|kept| Action::Crash(node, kept)));
        for change in [false, true] {
            actions.push(Action::Fetch(node, change));
            let groups = 1..1 << setting.nodes;
            actions.extend(groups.map(|among| Action::Adopt(node, among, change)));
        }
    }
    actions
}
