//! Clients: they write values and read, at whoever says it is open.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, OpenNode};
use crate::engine::payload;
use crate::random::Random;

/// The longest pause between two calls of a client, in milliseconds.
const PAUSE_MS: u64 = 80;
/// How long a read waits for the engine, once it knows that its node leads.
const APPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest usual record, and a rare one, in bytes.
const RECORD_LEN: u64 = 2_000;
const LARGE_RECORD_LEN: u64 = 40_000;

/// Calls until `stop`.
pub(crate) async fn client(
    cluster: Arc<Cluster>,
    mut random: Random,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let pause = random.millis(1, PAUSE_MS);
        tokio::select! {
            biased;
            _ = stop.changed() => return,
            () = sleep(pause) => {}
        }
        let open = cluster.open_nodes();
        if open.is_empty() {
            continue;
        }
        let chosen = random.pick(&open);
        let mut life = chosen.life.clone();
        let call = async {
            if random.chance(600) {
                write(&cluster, &mut random, chosen).await;
            } else {
                read(&cluster, chosen).await;
            }
        };
        tokio::select! {
            biased;
            // Its node is gone, and what became of the call nobody knows.
            _ = life.changed() => {}
            () = call => {}
        }
    }
}

async fn write(cluster: &Cluster, random: &mut Random, at: &OpenNode) {
    let bound = if random.chance(20) { LARGE_RECORD_LEN } else { RECORD_LEN };
    let len = random.below(bound) as usize;
    let call = cluster.ledger.writes();
    let Ok(proposed) = at.node.propose(at.epoch, &payload(call.value, len)) else { return };
    if at.node.committed(at.epoch, proposed.end).await.is_ok() {
        cluster.ledger.wrote(call, at.node.id(), at.epoch, proposed.end);
    }
}

/// What is committed now, shown once the node knows that it still leads, and has applied it.
async fn read(cluster: &Cluster, at: &OpenNode) {
    let call = cluster.ledger.reads();
    let settled = at.node.watermarks().committed;
    if at.node.read_round(at.epoch).await.is_err() {
        return;
    }
    let mut applied = at.node.watch_applied();
    let reached = applied.wait_for(|applied| *applied >= settled);
    if timeout(APPLY_TIMEOUT, reached).await.is_ok_and(|reached| reached.is_ok()) {
        let seen =
            at.engine.applied().last().map_or(towline_protocol::lsn::Lsn::ZERO, |last| last.0);
        cluster.ledger.read(call, at.node.id(), at.epoch, seen);
    }
}
