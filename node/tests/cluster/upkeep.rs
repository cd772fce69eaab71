//! Logs whose beginnings are taken off, because an operator bounds what is kept.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use towline::{NodeState, Upkeep};
use towline_protocol::lsn::Lsn;

use crate::PATIENCE;
use crate::fixture::Cluster;

const SEGMENT: u64 = 1 << 20;
const KEEP: u64 = 2 * SEGMENT;

fn trimming() -> Upkeep {
    Upkeep {
        keep_bytes_max: Some(KEEP),
        every: Duration::from_millis(20),
        scrub_bytes_per_s: NonZeroU64::new(1 << 30),
        scrub_every: Duration::from_millis(50),
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn write_segments(cluster: &Cluster, primary: &str, segments: u64) {
    let value = "x".repeat(60_000);
    for n in 0..segments * SEGMENT / 60_000 {
        cluster.write(primary, &format!("k{}", n % 7), &value).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_needs_is_taken_off_on_every_node_and_the_rest_goes_on() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.upkeep = trimming();
    cluster.start_all().await;
    let primary = cluster.primary(PATIENCE).await;
    write_segments(&cluster, &primary, 8).await;
    for name in ["a", "b", "c"] {
        until("a later beginning", || cluster.node(name).status().oldest.get() > 4 * SEGMENT).await;
        let status = cluster.node(name).status();
        assert!(status.stored_bytes <= KEEP + 3 * SEGMENT, "{}", status.stored_bytes);
        assert!(status.oldest <= status.watermarks.committed);
        assert!(status.damage.is_empty());
    }
    // Who was away for less than the bound catches up, and every log opens again.
    cluster.kill("c").await;
    write_segments(&cluster, &primary, 1).await;
    cluster.start("c").await;
    cluster.converge(PATIENCE).await;
    cluster.stop_all().await;
    cluster.start_all().await;
    let primary = cluster.primary(PATIENCE).await;
    write_segments(&cluster, &primary, 1).await;
    cluster.converge(PATIENCE).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_past_the_bound_is_told_that_it_needs_a_snapshot() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.upkeep = trimming();
    cluster.start_all().await;
    let primary = cluster.primary(PATIENCE).await;
    write_segments(&cluster, &primary, 1).await;
    cluster.converge(PATIENCE).await;
    let left_at = cluster.node("c").watermarks().flushed;
    cluster.kill("c").await;
    write_segments(&cluster, &primary, 9).await;
    until("the others' loss of patience", || {
        ["a", "b"].iter().all(|name| cluster.node(name).status().oldest > left_at)
    })
    .await;
    let slot = |cluster: &Cluster| {
        let slots = cluster.node(&primary).status().slots;
        slots.into_iter().find(|slot| slot.name == "c")
    };
    assert!(slot(&cluster).is_none_or(|slot| slot.lagged), "it holds up what it can not use");
    cluster.start("c").await;
    until("a reason", || cluster.node("c").status().reason.contains("snapshot")).await;
    let status = cluster.node("c").status();
    assert_ne!(status.leadership.state, NodeState::Streaming);
    assert_eq!(status.watermarks.flushed, left_at, "nothing was skipped");
    write_segments(&cluster, &primary, 1).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_bound_the_whole_log_is_kept() {
    let mut cluster = Cluster::found(&["a"], None);
    cluster.upkeep = Upkeep { keep_bytes_max: None, ..trimming() };
    cluster.start_all().await;
    let primary = cluster.primary(PATIENCE).await;
    write_segments(&cluster, &primary, 6).await;
    let engine_is_held = || cluster.node("a").status().slots.len() == 1;
    until("the engine's slot", engine_is_held).await;
    assert_eq!(cluster.node("a").status().oldest, Lsn::ZERO);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rots_is_shown_with_what_mends_it_until_it_is_mended() {
    let mut cluster = Cluster::found(&["a"], None);
    cluster.upkeep = Upkeep { keep_bytes_max: None, ..trimming() };
    cluster.start_all().await;
    let primary = cluster.primary(PATIENCE).await;
    write_segments(&cluster, &primary, 6).await;
    assert!(cluster.node("a").status().damage.is_empty());
    let file = cluster.log_dir("a").join(format!("{:020}.wal", SEGMENT));
    let whole = std::fs::read(&file).unwrap();
    let mut rotten = whole.clone();
    rotten[100_000] ^= 1;
    std::fs::write(&file, rotten).unwrap();
    until("the damage", || !cluster.node("a").status().damage.is_empty()).await;
    let status = cluster.node("a").status();
    let (from, to) = (status.damage[0].from.get(), status.damage[0].to.get());
    assert!((from..to).contains(&(SEGMENT + 100_000)), "{:?}", status.damage);
    assert_eq!(status.damage[0].path, file);
    assert!(status.repair_command.starts_with("towline wal repair "));
    std::fs::write(&file, whole).unwrap();
    until("the all-clear", || cluster.node("a").status().damage.is_empty()).await;
    cluster.stop_all().await;
}
