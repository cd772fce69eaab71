//! Nodes of one process, with real logs and real QUIC on loopback, and a map for an engine.

#![allow(clippy::unwrap_used)]

mod fixture;
mod full;
mod liar;
mod upkeep;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixture::Cluster;
use towline::{Failover, PromotionContext, PromotionError, PromotionHook, Veto, WaitError};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_on_every_node_once_it_is_committed_and_applied() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.start_all().await;
    let primary = cluster.primary(PATIENCE).await;
    for n in 0..200 {
        cluster.write(&primary, &format!("k{n}"), "v").await.unwrap();
    }
    cluster.converge(PATIENCE).await;
    assert_eq!(cluster.state("c").len(), 200);
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_node_that_is_stopped_as_soon_as_it_is_started_stops() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.start("a").await;
    tokio::time::timeout(PATIENCE, cluster.stop_all()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_primary_and_its_return() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.start_all().await;
    let old = cluster.primary(PATIENCE).await;
    for n in 0..100 {
        cluster.write(&old, &format!("k{n}"), "before").await.unwrap();
    }
    cluster.kill("a").await;
    let how = Failover { force: false, timeout: PATIENCE };
    let promoted = cluster.node("b").failover(how).await.unwrap();
    let new = cluster.primary(PATIENCE).await;
    assert_eq!(new, "b");
    assert!(promoted.epoch > towline_protocol::epoch::Epoch::NONE);
    for n in 0..50 {
        cluster.write(&new, &format!("k{n}"), "after").await.unwrap();
    }
    cluster.start("a").await;
    cluster.converge(PATIENCE).await;
    let state = cluster.state("a");
    assert_eq!(state.len(), 100);
    assert_eq!(state["k7"], "after");
    assert_eq!(state["k99"], "before");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_hands_over_and_every_write_under_way_is_answered() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.start_all().await;
    let old = cluster.primary(PATIENCE).await;
    let epoch = cluster.epoch(&old);
    let node = cluster.node(&old).clone();
    let mut ends = Vec::new();
    for n in 0..50 {
        ends.push(node.propose(epoch, format!("k{n}=v").as_bytes()).unwrap().end);
    }
    let last = *ends.last().unwrap();
    let wait = node.committed(epoch, last);
    let (answered, opened) =
        tokio::join!(wait, node.hand_over(Some("c".parse().unwrap()), PATIENCE));
    answered.expect("what was executed before is answered");
    assert!(opened.unwrap() > epoch);
    assert_eq!(cluster.primary(PATIENCE).await, "c");
    assert!(node.propose(epoch, b"late=v").is_err(), "behind the END nothing is appended");
    cluster.converge(PATIENCE).await;
    assert_eq!(cluster.state("b").len(), 50);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_comes_back_with_everything() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.start_all().await;
    let primary = cluster.primary(PATIENCE).await;
    for n in 0..100 {
        cluster.write(&primary, &format!("k{n}"), "v").await.unwrap();
    }
    for node in ["a", "b", "c"] {
        cluster.kill(node).await;
    }
    cluster.forget_states();
    cluster.start_all().await;
    let primary = cluster.primary(PATIENCE).await;
    cluster.write(&primary, "more", "v").await.unwrap();
    cluster.converge(PATIENCE).await;
    assert_eq!(cluster.state("b").len(), 101);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_without_its_quorum_acknowledges_nothing() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.start_all().await;
    let primary = cluster.primary(PATIENCE).await;
    cluster.write(&primary, "k", "v").await.unwrap();
    cluster.kill("b").await;
    cluster.kill("c").await;
    let refused = cluster.write(&primary, "k", "lonely").await;
    assert!(matches!(refused, Err(WaitError::Timeout | WaitError::Deposed)), "{refused:?}");
    cluster.start("c").await;
    let primary = cluster.primary(PATIENCE).await;
    cluster.write(&primary, "k", "w").await.unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_is_refused_while_the_primary_lives_and_without_enough_voters() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.start_all().await;
    cluster.primary(PATIENCE).await;
    let how = Failover { force: false, timeout: PATIENCE };
    let refused = cluster.node("b").failover(how).await;
    assert!(matches!(refused, Err(PromotionError::Refused(_))), "{refused:?}");
    cluster.kill("a").await;
    cluster.kill("c").await;
    let refused = cluster.node("b").failover(how).await;
    assert!(matches!(refused, Err(PromotionError::Unreachable(_))), "{refused:?}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_voter_alone_commits_alone() {
    let mut cluster = Cluster::found(&["a"], None);
    cluster.start_all().await;
    let primary = cluster.primary(PATIENCE).await;
    cluster.write(&primary, "k", "v").await.unwrap();
    cluster.node("a").read_round(cluster.epoch("a")).await.unwrap();
    cluster.stop_all().await;
}

/// Notes every call, and refuses in the phase it is told to.
struct Witness {
    refuses: Mutex<&'static str>,
    calls: Mutex<Vec<(&'static str, PromotionContext)>>,
}

impl Witness {
    fn call(&self, phase: &'static str, context: &PromotionContext) -> Result<(), Veto> {
        self.calls.lock().unwrap().push((phase, *context));
        let refused = *self.refuses.lock().unwrap() == phase;
        if refused { Err(Veto("not today".to_owned())) } else { Ok(()) }
    }
}

impl PromotionHook for Witness {
    fn check(&self, context: &PromotionContext) -> Result<(), Veto> {
        self.call("check", context)
    }

    fn pre_promote(&self, context: &PromotionContext) -> Result<(), Veto> {
        self.call("pre_promote", context)
    }

    fn post_promote(&self, context: &PromotionContext) {
        let _ = self.call("post_promote", context);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_may_veto_before_anything_moves_and_before_the_epoch_opens() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.start("a").await;
    let witness = Arc::new(Witness { refuses: Mutex::new("check"), calls: Mutex::new(Vec::new()) });
    cluster.hook = Arc::clone(&witness) as Arc<dyn PromotionHook>;
    cluster.start("b").await;
    cluster.start("c").await;
    let primary = cluster.primary(PATIENCE).await;
    cluster.write(&primary, "k", "v").await.unwrap();
    cluster.converge(PATIENCE).await;

    let how = Failover { force: true, timeout: PATIENCE };
    let fence = cluster.node("b").leadership().borrow().fence;
    let refused = cluster.node("b").failover(how).await;
    assert!(matches!(&refused, Err(PromotionError::Refused(why)) if why.contains("not today")));
    assert_eq!(cluster.node("b").leadership().borrow().fence, fence, "nothing moved");

    *witness.refuses.lock().unwrap() = "pre_promote";
    cluster.kill("a").await;
    let refused = cluster.node("b").failover(how).await;
    assert!(matches!(&refused, Err(PromotionError::Refused(why)) if why.contains("not today")));
    assert!(cluster.node("b").leadership().borrow().open.is_none());

    *witness.refuses.lock().unwrap() = "";
    let promoted = cluster.node("b").failover(how).await.unwrap();
    let calls = witness.calls.lock().unwrap().clone();
    let phases: Vec<_> = calls.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases[..5], ["check", "check", "pre_promote", "check", "pre_promote"]);
    let (_, prepared) = calls[4];
    assert_eq!((prepared.new_epoch, prepared.final_lsn), (promoted.epoch, promoted.final_lsn));
    assert!(prepared.old_epoch < prepared.new_epoch && !prepared.planned);
    cluster.stop_all().await;
}
