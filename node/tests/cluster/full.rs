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
    let ready = cluster.log_dir("a").join(format!("{:020}.wal", SIZE.bytes()));
    while !ready.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let taken = fill_up(&cluster, "a");
    let (node, epoch) = (cluster.node("a").clone(), cluster.epoch("a"));
    let left = |end: Lsn| 2 * SIZE.bytes() - end.get();
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
