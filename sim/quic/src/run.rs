//! One seed: a cluster, clients, trouble, and then peace.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use towline_transport::Credentials;

use crate::clients::client;
use crate::cluster::Cluster;
use crate::nemesis::trouble;
use crate::network::Weather;
use crate::panics::panics;
use crate::random::Random;
use crate::trace::{Prints, Trace};

/// How long a cluster in peace may take to open again and to commit.
const REOPEN: Duration = Duration::from_secs(30);
/// How long all nodes may then take to hold the same.
const SETTLE: Duration = Duration::from_secs(30);

/// How a seed ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The number of everything that happened: the same in every run of the seed.
    pub trace: u64,
    /// Packets sent.
    pub packets: u64,
    /// Writes and reads acknowledged.
    pub acknowledged: (u64, u64),
    /// How long it took in the cluster's own time.
    pub virtual_time: Duration,
    /// What happened that must not; empty if all is well.
    pub violations: Vec<String>,
}

/// Runs one seed. `prints` what happens.
///
/// # Panics
/// If the system gives it no runtime.
#[must_use]
pub fn run(seed: u64, credentials: &[Credentials], prints: Prints) -> Outcome {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().expect("a runtime without I/O needs nothing of the system");
    let logs = matches!(prints, Prints::Events | Prints::Packets);
    let _logs = logs.then(crate::logs::print);
    runtime.block_on(play(seed, credentials, prints))
}

async fn play(seed: u64, credentials: &[Credentials], prints: Prints) -> Outcome {
    let trace = Trace::new(prints);
    let mut random = Random::new(seed);
    let size = if random.chance(250) { 5 } else { 3 };
    let cluster = Cluster::found(size, credentials, &random, &trace);
    for n in 0..size {
        cluster.start(n).await;
    }
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for n in 0..3 {
        let random = random.fork(&format!("client {n}"));
        clients.spawn(client(Arc::clone(&cluster), random, stopped.clone()));
    }
    let lasts = random.millis(6_000, 14_000);
    trouble(Arc::clone(&cluster), random.fork("nemesis"), lasts).await;
    make_peace(&cluster).await;
    let acknowledged = cluster.ledger.counts().0;
    let commits = async {
        while cluster.ledger.counts().0 == acknowledged {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(REOPEN, commits).await.is_err() {
        cluster.ledger.violated(format!("nothing commits for {REOPEN:?}:\n{}", cluster.report()));
    }
    stop.send_replace(true);
    clients.join_all().await;
    let settles = async {
        while !cluster.settled() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(SETTLE, settles).await.is_err() {
        cluster.ledger.violated(format!("not settled for {SETTLE:?}:\n{}", cluster.report()));
    } else {
        cluster.compare();
    }
    let virtual_time = trace.elapsed();
    for n in 0..size {
        cluster.stop(n).await;
    }
    if cluster.ledger.violations().is_empty() {
        cluster.compare_logs();
    }
    if panics() > 0 {
        cluster.ledger.violated(format!("{} panics", panics()));
    }
    let (hash, packets) = trace.sum();
    Outcome {
        trace: hash,
        packets,
        acknowledged: cluster.ledger.counts(),
        virtual_time,
        violations: cluster.ledger.violations(),
    }
}

async fn make_peace(cluster: &Cluster) {
    cluster.trace.event("peace");
    cluster.network.mend();
    cluster.network.set_weather(Weather::CLEAR);
    cluster.mend_disks();
    for n in 0..cluster.size() {
        cluster.start(n).await;
    }
}
