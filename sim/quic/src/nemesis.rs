//! Faults, and an operator who makes them worse.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use towline::Failover;

use crate::cluster::{Cluster, End};
use crate::network::Weather;
use crate::random::Random;

/// How long an operator waits for a promotion.
const PROMOTION: Duration = Duration::from_secs(5);

/// Troubles the cluster for so long. Whatever it began has ended on return, but what it broke may
/// be broken still.
pub(crate) async fn trouble(cluster: Arc<Cluster>, mut random: Random, lasts: Duration) {
    let mut faults = JoinSet::new();
    while cluster.trace.elapsed() < lasts {
        let fault_random = random.fork("fault");
        random.next();
        faults.spawn(fault(Arc::clone(&cluster), fault_random));
        sleep(random.millis(20, 1_500)).await;
    }
    faults.join_all().await;
}

async fn fault(cluster: Arc<Cluster>, mut random: Random) {
    let n = any(&cluster, &mut random);
    match random.below(100) {
        0..15 => {
            let how = if random.chance(500) { End::Kill } else { End::PowerCut };
            down(&cluster, &mut random, n, how).await;
        }
        15..20 => blackout(&cluster, &mut random).await,
        20..30 => {
            let group = 1 + random.below((1 << cluster.size()) - 2);
            partition(&cluster, group);
            mend_later(&cluster, &mut random).await;
        }
        30..40 => {
            one_way(&cluster, &mut random);
            mend_later(&cluster, &mut random).await;
        }
        40..48 => storm(&cluster, &mut random).await,
        48..51 => {
            cluster.fail_a_sync(n);
            sleep(random.millis(50, 1_000)).await;
            down(&cluster, &mut random, n, End::PowerCut).await;
        }
        51..53 => {
            cluster.set_full(n, true);
            sleep(random.millis(50, 3_000)).await;
            cluster.set_full(n, false);
        }
        53..64 => failover(&cluster, n, random.chance(700)).await,
        64..80 => usurp(&cluster, &mut random).await,
        80..92 => overtake(&cluster, &mut random).await,
        _ => restart(&cluster, &mut random, n).await,
    }
}

fn any(cluster: &Cluster, random: &mut Random) -> usize {
    random.below(cluster.size() as u64) as usize
}

/// The node that leads, or any.
fn primary(cluster: &Cluster, random: &mut Random) -> usize {
    cluster.leading().unwrap_or_else(|| any(cluster, random))
}

fn another(cluster: &Cluster, random: &mut Random, than: usize) -> usize {
    (than + 1 + random.below(cluster.size() as u64 - 1) as usize) % cluster.size()
}

async fn down(cluster: &Cluster, random: &mut Random, n: usize, how: End) {
    cluster.end(n, how);
    sleep(random.millis(1, 3_000)).await;
    cluster.start(n).await;
}

/// Every machine loses power at once, and each comes back when it likes.
async fn blackout(cluster: &Cluster, random: &mut Random) {
    (0..cluster.size()).for_each(|n| cluster.end(n, End::PowerCut));
    let first = any(cluster, random);
    for n in 0..cluster.size() {
        sleep(random.millis(0, 700)).await;
        cluster.start((first + n) % cluster.size()).await;
    }
}

async fn restart(cluster: &Cluster, random: &mut Random, n: usize) {
    cluster.trace.event(format_args!("restart of {n}"));
    cluster.stop(n).await;
    sleep(random.millis(0, 500)).await;
    cluster.start(n).await;
}

/// The primary is not heard, or does not hear, while another is made primary.
async fn usurp(cluster: &Cluster, random: &mut Random) {
    let old = primary(cluster, random);
    let new = another(cluster, random, old);
    let (hears, heard) = [(false, false), (true, false), (false, true)][random.below(3) as usize];
    cluster
        .trace
        .event(format_args!("{new} usurps {old}, which hears: {hears}, is heard: {heard}"));
    for other in (0..cluster.size()).filter(|other| *other != old) {
        if !heard {
            cluster.network.cut(cluster.address(old), cluster.address(other));
        }
        if !hears {
            cluster.network.cut(cluster.address(other), cluster.address(old));
        }
    }
    sleep(random.millis(0, 800)).await;
    failover(cluster, new, true).await;
    sleep(random.millis(0, 1_000)).await;
    if random.chance(300) {
        let third = another(cluster, random, new);
        failover(cluster, third, true).await;
    }
    cluster.trace.event("mended");
    cluster.network.mend();
}

/// A replica falls behind; then the primary goes, and the replica shall lead.
async fn overtake(cluster: &Cluster, random: &mut Random) {
    let old = primary(cluster, random);
    let behind = another(cluster, random, old);
    cluster.trace.event(format_args!("{behind} falls behind {old}"));
    partition(cluster, 1 << behind);
    sleep(random.millis(50, 1_000)).await;
    let how = if random.chance(500) { End::Kill } else { End::PowerCut };
    cluster.end(old, how);
    cluster.network.mend();
    sleep(random.millis(0, 300)).await;
    failover(cluster, behind, random.chance(500)).await;
    sleep(random.millis(0, 1_500)).await;
    cluster.start(old).await;
}

async fn storm(cluster: &Cluster, random: &mut Random) {
    cluster.trace.event("storm");
    cluster.network.set_weather(Weather::STORM);
    sleep(random.millis(50, 2_000)).await;
    cluster.network.set_weather(Weather::CLEAR);
}

async fn mend_later(cluster: &Cluster, random: &mut Random) {
    sleep(random.millis(50, 4_000)).await;
    cluster.trace.event("mended");
    cluster.network.mend();
}

/// The nodes of a group, by their bits, and the others do not hear each other.
fn partition(cluster: &Cluster, group: u64) {
    cluster.trace.event(format_args!("partition {group:b}"));
    for from in 0..cluster.size() {
        for to in 0..cluster.size() {
            if (group >> from) & 1 != (group >> to) & 1 {
                cluster.network.cut(cluster.address(from), cluster.address(to));
            }
        }
    }
}

/// One node is not heard by another, or by any, though it hears them.
fn one_way(cluster: &Cluster, random: &mut Random) {
    let from = any(cluster, random);
    let to = another(cluster, random, from);
    let by_any = random.chance(500);
    cluster.trace.event(format_args!("{from} is not heard by {to}, by any: {by_any}"));
    for other in (0..cluster.size()).filter(|other| by_any || *other == to) {
        cluster.network.cut(cluster.address(from), cluster.address(other));
    }
}

async fn failover(cluster: &Cluster, n: usize, force: bool) {
    let Some(node) = cluster.node(n) else { return };
    cluster.trace.event(format_args!("failover to {}, force: {force}", node.id()));
    let ended = match node.failover(Failover { force, timeout: PROMOTION }).await {
        Ok(promoted) => format!("leads in {}", promoted.epoch),
        Err(error) => format!("does not: {error}"),
    };
    cluster.trace.event(format_args!("failover: {} {ended}", node.id()));
}
