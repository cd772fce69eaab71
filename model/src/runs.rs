//! What is explored: every setting with all rules in place, and every broken rule in the smallest
//! setting that shows what it is for.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::Checked;
use crate::claims::{AGREES, CLEAN, CURRENT, NO_CUT, NO_LATE_ACK, ONCE, SURVIVES};
use crate::setting::{Broken, Reads, Set, Setting};
use crate::steps::Action;

/// One exploration.
#[derive(Clone, Debug)]
pub struct Run {
    /// What is explored.
    pub setting: Setting,
    /// The property that must be refuted; without one, all must hold.
    pub refutes: Option<&'static str>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// How many states there are: all that can be reached, unless a refutation ended the run.
    pub states: usize,
    /// How many steps the longest of the shortest ways to a state has.
    pub depth: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// The shortest way to what was to be refuted.
    pub counterexample: Option<Vec<Action>>,
    /// What is not as it must be.
    pub failures: Vec<String>,
}

impl Run {
    /// Explores; to the end, unless a property is to be refuted.
    ///
    /// One thread, so that states come in the order of their distance and a counterexample is one
    /// of the shortest.
    #[must_use]
    pub fn explore(&self) -> Outcome {
        let began = Instant::now();
        let model = Checked::new(self.setting.clone());
        let mut builder = model.checker().threads(1);
        if let Some(claim) = self.refutes {
            builder = builder.finish_when(HasDiscoveries::AnyOf([claim].into()));
        }
        let checker = builder.spawn_bfs().join();
        let mut counterexample = None;
        let mut failures = Vec::new();
        for property in checker.model().properties() {
            let found = checker.discovery(property.name).map(stateright::Path::into_actions);
            let bad = property.expectation.discovery_is_failure();
            match (self.refutes, found) {
                (Some(claim), found) if claim == property.name => match found {
                    Some(actions) => counterexample = Some(actions),
                    None => failures.push(format!("not refuted: {claim}")),
                },
                (Some(_), _) => {}
                (None, Some(actions)) if bad => {
                    failures.push(format!("refuted: {} by {actions:?}", property.name));
                }
                (None, None) if !bad => failures.push(format!("never seen: {}", property.name)),
                (None, _) => {}
            }
        }
        Outcome {
            states: checker.unique_state_count(),
            depth: checker.max_depth(),
            elapsed: began.elapsed(),
            counterexample,
            failures,
        }
    }
}

/// Everything there is to run; `deep` adds what takes minutes.
#[must_use]
pub fn all(deep: bool) -> Vec<Run> {
    let holding = holding().into_iter().chain(if deep { deeper() } else { Vec::new() });
    let holding = holding.map(|setting| Run { setting, refutes: None });
    holding.chain(broken()).collect()
}

/// `{a}`, then `{a, b}`, then `{b}`: every disk is new in the end.
fn chain(name: &'static str) -> Setting {
    let sets = vec![Set::new(0b01, 1), Set::new(0b11, 2), Set::new(0b10, 1)];
    Setting { nodes: 2, sets, ..Setting::three(name) }
}

/// `{a, b, c}`, then `{a, b, d}`, two of which commit.
fn exchange(name: &'static str) -> Setting {
    let sets = vec![Set::new(0b0111, 2), Set::new(0b1011, 2)];
    Setting { nodes: 4, sets, epochs: 2, crashes: 0, ..Setting::three(name) }
}

/// `{a, b}`, both of which commit; then b's disk is replaced, and comes back.
fn replace(name: &'static str) -> Setting {
    let newer = Set { members: 0b101, w: 2, replaces: 0b010 };
    Setting { sets: vec![Set::new(0b011, 2), newer], crashes: 0, ..Setting::three(name) }
}

/// `{a, b, c}`, then c's disk is replaced: two others commit that.
fn replace_of_three(name: &'static str) -> Setting {
    let mut setting = exchange(name);
    setting.sets[1].replaces = 0b100;
    setting
}

/// The settings in which everything must hold.
fn holding() -> Vec<Setting> {
    let three = Setting::three;
    let (both, either) = (Set::new(0b11, 2), Set::new(0b11, 1));
    let two = |name, sets: &[Set]| Setting { nodes: 2, sets: sets.into(), ..three(name) };
    vec![
        three("three voters, two failovers"),
        Setting { epochs: 2, writes: 2, ..three("three voters, two writes") },
        Setting { crashes: 0, reads: Reads::Round, ..three("reads by round") },
        Setting { epochs: 2, reads: Reads::Round, ..three("reads by round, a crash") },
        Setting { epochs: 2, reads: Reads::Lease, ..three("reads by lease, a crash") },
        exchange("one of three voters changes"),
        replace_of_three("one of three disks is replaced"),
        replace("one of two disks is replaced"),
        Setting { epochs: 2, crashes: 1, ..replace("one of two disks is replaced, a crash") },
        Setting { epochs: 4, ..chain("one voter moves to another disk") },
        Setting { writes: 2, crashes: 2, ..two("two voters, W = 2", &[both]) },
        Setting { crashes: 2, ..two("two voters, W = 1", &[either]) },
        Setting { epochs: 4, ..two("W falls from 2 to 1", &[both, either]) },
        Setting { epochs: 4, ..two("W rises from 1 to 2", &[either, both]) },
        Setting { epochs: 4, ..two("one of two voters leaves", &[both, Set::new(0b10, 1)]) },
        Setting {
            sets: vec![either, Set::new(0b111, 1)],
            crashes: 0,
            ..three("a third voter, W = 1")
        },
    ]
}

/// The same with wider bounds.
fn deeper() -> Vec<Setting> {
    let three = Setting::three;
    let grown = vec![Set::new(0b011, 1), Set::new(0b111, 1)];
    vec![
        Setting { crashes: 2, ..three("three voters, two failovers, two crashes") },
        Setting { reads: Reads::Round, ..three("reads by round, two failovers, a crash") },
        Setting { crashes: 0, reads: Reads::Lease, ..three("reads by lease, two failovers") },
        Setting { crashes: 1, ..exchange("one of three voters changes, a crash") },
        Setting { crashes: 1, ..replace("one of two disks is replaced, two failovers, a crash") },
        Setting { epochs: 4, writes: 2, ..chain("one voter moves to another disk, two writes") },
        Setting { sets: grown, ..three("a third voter, W = 1, a crash") },
        Setting {
            epochs: 2,
            reads: Reads::Round,
            ..exchange("reads by round while a voter changes")
        },
    ]
}

/// Every broken rule, with the property it protects.
fn broken() -> Vec<Run> {
    let three = || Setting::three("three voters");
    let calm = || Setting { crashes: 0, ..three() };
    let two_writes = || Setting { epochs: 2, writes: 2, ..three() };
    let round = || Setting { epochs: 2, crashes: 0, reads: Reads::Round, ..three() };
    let lease = || Setting { epochs: 2, crashes: 0, reads: Reads::Lease, ..three() };
    let lease_crash = || Setting { crashes: 1, ..lease() };
    let moves = |epochs, sets: [Set; 2]| Setting {
        nodes: 2,
        sets: sets.into(),
        epochs,
        crashes: 0,
        ..Setting::three("a voter set takes the place of another")
    };
    let (both_of_two, one_of_two, second) =
        (Set::new(0b11, 2), Set::new(0b11, 1), Set::new(0b10, 1));
    let grows = || Setting { nodes: 3, crashes: 1, ..moves(3, [one_of_two, Set::new(0b111, 1)]) };
    let pair = || replace("one of two disks is replaced");
    let mut runs = Vec::new();
    runs.extend([
        (Broken::FenceForgotten, NO_LATE_ACK, three()),
        (Broken::FenceForgotten, SURVIVES, three()),
        (Broken::EpochShared, ONCE, Setting { epochs: 2, ..calm() }),
        (Broken::AckAfterFenced, NO_LATE_ACK, three()),
        (Broken::AckAfterFenced, SURVIVES, three()),
        (Broken::AckBeforeFlush, SURVIVES, three()),
        (Broken::AdoptByLength, AGREES, Setting { writes: 2, ..calm() }),
        (Broken::FenceOneLess, SURVIVES, three()),
        (Broken::BarrierNotRequired, AGREES, Setting { epochs: 4, ..calm() }),
        (Broken::AckBeforeCut, AGREES, calm()),
        (Broken::CutToEpoch, NO_CUT, three()),
        (Broken::MatchByPosition, AGREES, three()),
        (Broken::EpochKept, AGREES, two_writes()),
    ]);
    runs.extend([
        (Broken::ReadWithoutRound, CURRENT, round()),
        (Broken::RoundTooEarly, CURRENT, round()),
        (Broken::ReadUncommitted, CLEAN, round()),
        (Broken::LeaseFromReceipt, CURRENT, lease()),
        (Broken::PromiseIgnored, CURRENT, lease()),
        (Broken::OwnPromiseIgnored, CURRENT, lease()),
        (Broken::PromiseForgotten, CURRENT, lease_crash()),
    ]);
    runs.extend([
        (Broken::NewSetCommits, SURVIVES, moves(3, [both_of_two, second])),
        (Broken::OldSetCommits, AGREES, moves(4, [one_of_two, both_of_two])),
        (Broken::OldSetGoesOn, SURVIVES, moves(3, [one_of_two, both_of_two])),
        (Broken::OldSetFenced, SURVIVES, moves(3, [both_of_two, one_of_two])),
        (Broken::OwnSetFenced, SURVIVES, grows()),
        (Broken::SetDropped, SURVIVES, moves(4, [both_of_two, second])),
        (Broken::WipedVotes, SURVIVES, Setting { epochs: 2, ..three() }),
        (Broken::ReplacedServed, SURVIVES, pair()),
    ]);
    let runs = runs.into_iter();
    runs.map(|(broken, claim, setting)| Run {
        setting: Setting { broken: Some(broken), ..setting },
        refutes: Some(claim),
    })
    .collect()
}
