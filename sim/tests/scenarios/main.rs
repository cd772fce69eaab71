//! What the tests of other replicated systems check, as scenarios of our own: which of theirs each
//! covers is in docs/design/scenarios.md.
//!
//! Every scenario runs from several seeds. The seed decides only how long packets and disks take,
//! so what is asserted must hold in every order of events. All the schedules' checks run as well.

#![allow(clippy::unwrap_used, missing_docs)]

mod commit;
mod connections;
mod disk;
mod end_of_wal;
mod forge;
mod grants;
mod hand_over;
mod leases;
mod loss;
mod promotion;
mod rejoin;
mod voters;

use towline_protocol::epoch::Epoch;
use towline_protocol::machine::{Failover, Failure};
use towline_sim::script::Cluster;

/// How many orders of events each scenario is run in.
const SEEDS: u64 = 12;
/// How long anything may take that must happen, in virtual milliseconds.
const PATIENCE_MS: u64 = 5_000;
/// Longer than any wait of the rules: what has not happened by then does not happen.
const LONG_MS: u64 = 2_500;

/// Promote although a primary may be alive.
const FORCE: Failover = Failover { force: true, accept_loss: false, grant: None };
/// Promote unless a primary is alive.
const CAREFUL: Failover = Failover { force: false, accept_loss: false, grant: None };

/// Promote although what only others hold is lost; they are stopped.
const LOSS: Failover = Failover { force: true, accept_loss: true, grant: None };

/// Runs `scenario` from every seed.
fn each(scenario: impl Fn(u64)) {
    (0..SEEDS).for_each(scenario);
}

/// A cluster of `nodes` voters that works, with some writes in it; node 0 is its primary.
fn working(seed: u64, nodes: usize) -> Cluster {
    let mut cluster = Cluster::found(seed, nodes);
    assert_eq!(cluster.primary_within(PATIENCE_MS), 0, "the node that is founded as primary leads");
    for key in 0..5 {
        cluster.write(0, key);
    }
    let caught_up = cluster.run_until(PATIENCE_MS, |cluster| {
        let flushed = (0..nodes).all(|node| cluster.flushed(node) == cluster.appended(0));
        flushed && (1..nodes).all(|node| cluster.streams(node))
    });
    assert!(caught_up, "every replica follows");
    cluster
}

/// Has the operator ask again until it is done: those who follow lag by a moment, and a change is
/// refused rather than begun on too few of them.
fn insist(cluster: &mut Cluster, ask: impl Fn(&mut Cluster) -> Result<(), Failure>) {
    let ended_ms = cluster.now_ms() + PATIENCE_MS;
    while let Err(refused) = ask(cluster) {
        assert!(cluster.now_ms() < ended_ms, "still refused: {refused}");
        cluster.run_for(1);
    }
}

/// Has the operator promote `node` until it leads. A call of an earlier candidate that comes late
/// may outrun the first attempt.
fn take_over(cluster: &mut Cluster, node: usize, how: Failover) -> Epoch {
    let ended_ms = cluster.now_ms() + PATIENCE_MS;
    loop {
        match cluster.promoted(node, how) {
            Ok(epoch) => return epoch,
            Err(Failure::AlreadyPrimary(epoch)) if cluster.is_open(node) => return epoch,
            Err(failure) => {
                assert!(cluster.now_ms() < ended_ms, "n{node} does not lead: {failure}")
            }
        }
        cluster.run_for(50);
    }
}
