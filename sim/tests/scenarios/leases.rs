//! A primary that may read without asking, and what a promotion must wait for.

use towline_sim::script::Cluster;

use crate::{FORCE, LONG_MS, PATIENCE_MS, each, insist, working};

/// The length of the leases here, in milliseconds.
const LEASE_MS: u32 = 300;

/// Three voters; node 0 leads and has a lease.
fn leased(seed: u64) -> Cluster {
    let mut cluster = working(seed, 3);
    insist(&mut cluster, |cluster| cluster.set_lease(0, LEASE_MS));
    wait_for_lease(&mut cluster);
    cluster
}

fn wait_for_lease(cluster: &mut Cluster) {
    let ended_ms = cluster.now_ms() + PATIENCE_MS;
    while !cluster.has_lease(0) {
        assert!(cluster.now_ms() < ended_ms, "no lease");
        cluster.run_for(1);
    }
}

/// Node 1 takes over from node 0, which is cut off: not before the lease is over.
fn taken_over(cluster: &mut Cluster) {
    cluster.promote(1, FORCE).unwrap();
    let mut leased_ms = 0;
    for _ in 0..LONG_MS {
        cluster.run_for(1);
        let (leased, opened) = (cluster.has_lease(0), cluster.is_open(1));
        assert!(!leased || !opened, "two nodes answer reads, {leased_ms} ms after the call");
        leased_ms += u64::from(leased);
    }
    assert!(leased_ms > u64::from(LEASE_MS) / 2, "it did have a lease: {leased_ms} ms");
    assert!(cluster.is_open(1), "and a promotion waits no longer than it must");
}

#[test]
fn a_promotion_waits_until_the_lease_of_a_primary_that_is_cut_off_is_over() {
    each(|seed| {
        let mut cluster = leased(seed);
        cluster.isolate(0);
        taken_over(&mut cluster);
        cluster.write(1, 0);
        cluster.heal();
        cluster.ends_well();
    });
}

#[test]
fn voters_that_restart_keep_what_they_promised() {
    each(|seed| {
        let mut cluster = leased(seed);
        cluster.isolate(0);
        for node in [1, 2] {
            cluster.kill(node);
            cluster.restart(node);
        }
        taken_over(&mut cluster);
        cluster.heal();
        cluster.ends_well();
    });
}

#[test]
fn a_lease_runs_from_when_it_was_asked_for_however_long_the_answer_takes() {
    each(|seed| {
        let mut cluster = leased(seed);
        cluster.weather(0, 0, 60);
        for _ in 0..4 {
            cluster.run_for(100);
            if !cluster.has_lease(0) {
                continue;
            }
            cluster.isolate(0);
            cluster.promote(1, FORCE).ok();
            for _ in 0..LONG_MS {
                cluster.run_for(1);
                assert!(!cluster.has_lease(0) || !cluster.is_open(1), "two nodes answer reads");
            }
            break;
        }
        cluster.weather(0, 0, 4);
        cluster.heal();
        cluster.ends_well();
    });
}

#[test]
fn a_hand_over_gives_the_lease_back_at_once() {
    each(|seed| {
        let mut cluster = leased(seed);
        let begun_ms = cluster.now_ms();
        cluster.hand_over(0, Some(1)).unwrap();
        let opened = cluster.run_until(PATIENCE_MS, |cluster| cluster.is_open(1));
        assert!(opened && !cluster.has_lease(0));
        let took_ms = cluster.now_ms() - begun_ms;
        assert!(took_ms < u64::from(LEASE_MS), "nobody waits for the lease to end: {took_ms} ms");
        cluster.ends_well();
    });
}
