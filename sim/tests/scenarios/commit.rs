//! When a write is acknowledged, and when it is not.

use towline_sim::script::Cluster;

use crate::{LONG_MS, PATIENCE_MS, each, working};

#[test]
fn a_commit_waits_while_fewer_than_w_voters_live() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.kill(1);
        cluster.kill(2);
        let written = cluster.execute(0, 0).unwrap();
        cluster.run_for(LONG_MS);
        assert_eq!(cluster.flushed(0), written.end, "it is on the primary's own disk");
        assert!(!cluster.is_acknowledged(&written));
        assert!(cluster.committed(0) < written.end);
        cluster.restart(2);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.committed(2) >= written.end));
        cluster.restart(1);
        cluster.ends_well();
    });
}

#[test]
fn an_asynchronous_replica_is_not_counted() {
    each(|seed| {
        // Three vote; the fourth and the fifth only follow.
        let mut cluster = Cluster::found_as(seed, 5, 3, None);
        assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
        cluster.write(0, 0);
        cluster.kill(1);
        cluster.kill(2);
        let written = cluster.execute(0, 1).unwrap();
        let acked = |cluster: &Cluster| cluster.acked_by(0, 3).min(cluster.acked_by(0, 4));
        assert!(cluster.run_until(PATIENCE_MS, |cluster| acked(cluster) >= written.end));
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&written), "three disks hold it, but only one counts");
        cluster.restart(1);
        cluster.restart(2);
        cluster.ends_well();
    });
}
