//! Disks without room for another segment: nobody is lost for that, and nobody waits for ever.

use std::path::PathBuf;
use std::time::Duration;

use towline_protocol::lsn::{Lsn, SegmentSize};

use crate::PATIENCE;
use crate::fixture::Cluster;

const SIZE: SegmentSize = SegmentSize::new(1 << 20).unwrap();
/// What ends a full segment, and a record's header.
const SEAL_LEN: u64 = 48;
const HEADER_LEN: u64 = 32;

/// Nobody can make a segment where the name of a new one is a folder's.
fn fill_up(cluster: &Cluster, name: &str) -> PathBuf {
    let taken = cluster.log_dir(name).join("segment.new");
    std::fs::create_dir(&taken).unwrap();
    taken
}

/// How many segments are ready behind the one that is written.
fn ready(cluster: &Cluster, name: &str) -> usize {
    let end = cluster.node(name).watermarks().appended;
    let first = SIZE.next_base(SIZE.base_of(end)).get();
    let dir = cluster.log_dir(name);
    let bases = (first..).step_by(usize::try_from(SIZE.bytes()).unwrap());
    bases.take_while(|base| dir.join(format!("{base:020}.wal")).exists()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_waits_for_room_can_be_stopped() {
    let mut cluster = Cluster::found(&["a"], None);
    fill_up(&cluster, "a");
    cluster.start("a").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::time::timeout(PATIENCE, cluster.stop_all()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_without_room_for_its_end_leaves_a_primary_behind() {
    let mut cluster = Cluster::found(&["a"], None);
    cluster.start("a").await;
    assert_eq!(cluster.primary(PATIENCE).await, "a");
    while ready(&cluster, "a") < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.stop_all().await;
    let taken = fill_up(&cluster, "a");
    // Each epoch takes one of those that are ready, which nothing else may take.
    for left in [1, 0] {
        cluster.start("a").await;
        assert_eq!(cluster.primary(PATIENCE).await, "a");
        assert_eq!(ready(&cluster, "a"), left);
        if left > 0 {
            cluster.stop_all().await;
        }
    }
    let (node, epoch) = (cluster.node("a").clone(), cluster.epoch("a"));
    let next = SIZE.next_base(SIZE.base_of(node.watermarks().appended));
    let left = |end: Lsn| next.distance_from(end);
    let record = |len: u64| format!("k={}", "v".repeat(len as usize - 2));
    while left(node.watermarks().appended) > SIZE.max_payload() {
        node.propose(epoch, record(10_000).as_bytes()).unwrap();
    }
    // Only a SEAL has room behind this one.
    let last = left(node.watermarks().appended) - HEADER_LEN - SEAL_LEN;
    let proposed = node.propose(epoch, record(last).as_bytes()).unwrap();
    assert_eq!(left(proposed.end), SEAL_LEN);
    node.committed(epoch, proposed.end).await.unwrap();
    assert!(node.hand_over(None, PATIENCE).await.is_err());
    std::fs::remove_dir(&taken).unwrap();
    assert_eq!(cluster.primary(2 * PATIENCE).await, "a");
    cluster.write("a", "k", "again").await.unwrap();
    cluster.stop_all().await;
}
