//! Who commits and who is fenced, while a voter set takes the place of another.
//!
//! The set is log state. A BARRIER carries a list: the older sets that may still matter and the
//! newest, and is committed by W of each (the joint quorum of Raft §4.3, in one record); what
//! follows it by W of the newest. A candidate fences R of each. This is Flexible Paxos (Howard,
//! Malkhi, Spiegelman 2016): a quorum that decides need only meet every later quorum that asks.

use crate::log::Log;
use crate::setting::{Broken, Nodes, Setting};
use crate::state::{Attempt, State};

/// The voter sets a log has in force: the oldest and the newest, as places in the setting's list.
#[must_use]
pub fn in_force(log: Log) -> Option<(u8, u8)> {
    log.last_barrier().and_then(|(_, entry)| entry.sets())
}

/// The sets in force in `log` for one who knows `committed`: whatever is older than a set that is
/// known to be committed matters no more.
#[must_use]
pub fn in_force_knowing(setting: &Setting, log: Log, committed: u8) -> Option<(u8, u8)> {
    let (oldest, newest) = in_force(log)?;
    if setting.is(Broken::SetDropped) {
        return Some((newest, newest));
    }
    let is_committed = |set: &u8| log.introduced(*set).is_some_and(|place| place < committed);
    let known = (oldest..=newest).rev().find(is_committed);
    Some((known.unwrap_or(oldest), newest))
}

/// Whether so much of the primary's log is committed.
#[must_use]
pub fn commits(setting: &Setting, attempt: &Attempt, log: Log, end: u8) -> bool {
    let Some((barrier, entry)) = log.last_barrier() else { return false };
    let Some((oldest, newest)) = entry.sets() else { return false };
    let voted = |set: u8, end: u8| {
        let set = setting.sets[usize::from(set)];
        set.count(attempt.holders(end)) >= set.w
    };
    if setting.is(Broken::BarrierNotRequired) {
        return voted(newest, end);
    }
    let opened = match setting.broken {
        Some(Broken::NewSetCommits) => voted(newest, barrier + 1),
        Some(Broken::OldSetCommits) => voted(oldest, barrier + 1),
        _ => (oldest..=newest)
            .all(|set| consents(setting, set, newest, attempt.holders(barrier + 1))),
    };
    let by = if setting.is(Broken::OldSetGoesOn) { oldest } else { newest };
    opened && (end == barrier + 1 || voted(by, end))
}

/// Whether a set has voted for a BARRIER that makes `newest` the newest.
///
/// A set one of whose disks is being replaced can not wait for that disk: min(W, N − 1) of the
/// *others* do. Where W < N they still meet every R, which may count the lost disk. Where W = N
/// they need not, and [`refuses`] closes the gap.
fn consents(setting: &Setting, set: u8, newest: u8, holders: Nodes) -> bool {
    let newer = &setting.sets[usize::from(set) + 1..=usize::from(newest)];
    let lost = newer.iter().fold(0, |lost, newer| lost | newer.replaces);
    let set = setting.sets[usize::from(set)];
    if set.members & lost == 0 {
        return set.count(holders) >= set.w;
    }
    set.count(holders & !lost) >= set.w.min(set.n() - 1)
}

/// The longest of the logs that were told: the highest (epoch of the last record, end), as in
/// Raft's vote (§5.4.1) and in what Neon's walproposer adopts from its safekeepers.
#[must_use]
pub fn longest(setting: &Setting, attempt: &Attempt, among: Nodes) -> Log {
    let told = (0..setting.nodes).filter(|node| among & 1 << node != 0);
    let logs = told.map(|node| attempt.told[usize::from(node)]);
    let height = |log: &Log| {
        let epoch = if setting.is(Broken::AdoptByLength) { 0 } else { log.last_epoch() };
        (epoch, log.end())
    };
    logs.max_by_key(height).unwrap_or_default()
}

/// Whether those who obey are enough to adopt `longest`: R of every set it has in force.
#[must_use]
pub fn enough(setting: &Setting, state: &State, node: u8, obeying: Nodes, longest: Log) -> bool {
    let Some((oldest, newest)) = in_force_knowing(setting, longest, state.node(node).committed)
    else {
        return false;
    };
    let fenced = |set: u8| {
        let set = setting.sets[usize::from(set)];
        let needed = set.r() - u32::from(setting.is(Broken::FenceOneLess));
        set.count(obeying) >= needed
    };
    match setting.broken {
        Some(Broken::OldSetFenced) => fenced(in_force(longest).map_or(0, |(oldest, _)| oldest)),
        Some(Broken::OwnSetFenced) => {
            in_force(state.node(node).log).is_some_and(|(_, newest)| fenced(newest))
        }
        _ => (oldest..=newest).all(fenced),
    }
}

/// Whether a node counts in a set.
#[must_use]
pub fn counts(setting: &Setting, set: u8, node: u8) -> bool {
    setting.sets[usize::from(set)].members & 1 << node != 0
}

/// Whether a node whose log says that `other`'s disk was replaced neither obeys nor follows it.
///
/// Needed only where W = N: there R = 1, and the lost disk, should it come back, is a fence set
/// by itself.
#[must_use]
pub fn refuses(setting: &Setting, log: Log, other: u8) -> bool {
    let Some((_, newest)) = in_force(log) else { return false };
    let mut pairs = setting.sets[..=usize::from(newest)].windows(2);
    !setting.is(Broken::ReplacedServed)
        && pairs.any(|pair| pair[0].w == pair[0].n() && pair[1].replaces & 1 << other != 0)
}
