//! Faults, and an operator who makes them worse.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use towline::Failover;

use crate::cluster::{Cluster, End};
use crate::network::Weather;
use crate::random::Random;

/// Troubles the cluster for so long. Whatever it began is over on return, but dead nodes stay dead
/// and cut ways cut.
pub(crate) async fn trouble(cluster: Arc<Cluster>, mut random: Random, lasts: Duration) {
    let mut faults = JoinSet::new();
    while cluster.trace.elapsed() < lasts {
        let random_here = random.fork("fault");
        random.next();
        faults.spawn(fault(Arc::clone(&cluster), random_here));
        sleep(random.millis(50, 1_500)).await;
    }
    faults.join_all().await;
}

async fn fault(cluster: Arc<Cluster>, mut random: Random) {
    let n = random.below(cluster.size() as u64) as usize;
    match random.below(100) {
        0..20 => {
            cluster.end(n, End::Kill);
            sleep(random.millis(1, 3_000)).await;
            cluster.start(n).await;
        }
        20..35 => {
            cluster.end(n, End::PowerCut);
            sleep(random.millis(1, 3_000)).await;
            cluster.start(n).await;
        }
        35..38 => {
            let all = 0..cluster.size();
            all.clone().for_each(|n| cluster.end(n, End::PowerCut));
            for n in all {
                sleep(random.millis(0, 500)).await;
                cluster.start(n).await;
            }
        }
        38..55 => {
            partition(&cluster, &mut random);
            sleep(random.millis(50, 4_000)).await;
            cluster.trace.event("mended");
            cluster.network.mend();
        }
        55..68 => {
            one_way(&cluster, &mut random);
            sleep(random.millis(50, 4_000)).await;
            cluster.trace.event("mended");
            cluster.network.mend();
        }
        68..78 => {
            cluster.trace.event("storm");
            cluster.network.set_weather(Weather::STORM);
            sleep(random.millis(50, 2_000)).await;
            cluster.network.set_weather(Weather::CLEAR);
        }
        _ => failover(&cluster, n, random.chance(700)).await,
    }
}

/// Parts the nodes into two halves that do not hear each other.
fn partition(cluster: &Cluster, random: &mut Random) {
    let halves = 1 + random.below((1 << cluster.size()) - 2);
    cluster.trace.event(format_args!("partition {halves:b}"));
    for from in 0..cluster.size() {
        for to in 0..cluster.size() {
            if (halves >> from) & 1 != (halves >> to) & 1 {
                cluster.network.cut(cluster.address(from), cluster.address(to));
            }
        }
    }
}

/// One node is not heard by another, or by any, though it hears them.
fn one_way(cluster: &Cluster, random: &mut Random) {
    let n = random.below(cluster.size() as u64) as usize;
    let silent = random.chance(500);
    let whom = random.below(cluster.size() as u64) as usize;
    cluster.trace.event(format_args!("one way: {n} to {whom}, or all ({silent})"));
    for to in (0..cluster.size()).filter(|to| silent || *to == whom) {
        cluster.network.cut(cluster.address(n), cluster.address(to));
    }
}

async fn failover(cluster: &Cluster, n: usize, force: bool) {
    let Some(node) = cluster.node(n) else { return };
    cluster.trace.event(format_args!("failover to {}, force {force}", node.id()));
    let how = Failover { force, timeout: Duration::from_secs(5) };
    let ended = match node.failover(how).await {
        Ok(promoted) => format!("leads in {}", promoted.epoch),
        Err(error) => format!("does not: {error}"),
    };
    cluster.trace.event(format_args!("failover: {} {ended}", node.id()));
}
