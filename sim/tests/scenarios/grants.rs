//! Voters' disks that are replaced, above all where every voter commits: and the replaced ones that
//! come back.

use towline_protocol::machine::{Failover, Failure, RoleView};
use towline_sim::script::Cluster;

use crate::{FORCE, LONG_MS, PATIENCE_MS, each, insist, take_over, working};

/// Three voters, all of which commit; node 2 has another disk, which was granted. Its old one is on
/// the shelf. Node 0 leads.
fn granted(seed: u64) -> Cluster {
    let mut cluster = all_commit(seed);
    cluster.replace_disk(2);
    assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_up(2)));
    cluster.kill(0);
    cluster.restart(0);
    let tries = |cluster: &Cluster| cluster.role(0) == Some(RoleView::Primary { open: false });
    assert!(cluster.run_until(PATIENCE_MS, tries));
    grant_by_failover(&mut cluster, 0);
    cluster.write(0, 0);
    cluster
}

/// Node `primary` opens an epoch in which the new disk of node 2 counts.
fn grant_by_failover(cluster: &mut Cluster, primary: usize) {
    let grant = Some(("n2".parse().unwrap(), cluster.incarnation(2)));
    let counts = |cluster: &Cluster| cluster.is_open(primary) && cluster.votes(2);
    // Who can not open tries again and again as well, and may outrun the first attempts.
    let granted = (0..5).any(|_| {
        let _again = cluster.promote(primary, Failover { force: true, grant, ..FORCE });
        cluster.run_until(LONG_MS, counts)
    });
    assert!(granted, "n{primary} opens no epoch in which the new disk counts");
}

fn all_commit(seed: u64) -> Cluster {
    let mut cluster = Cluster::found_as(seed, 3, 3, Some(3));
    assert_eq!(cluster.primary_within(PATIENCE_MS), 0);
    cluster.write(0, 0);
    cluster
}

#[test]
fn where_every_voter_commits_a_new_disk_does_not_until_it_is_granted() {
    each(|seed| {
        let mut cluster = all_commit(seed);
        cluster.replace_disk(2);
        let waits = cluster.execute(0, 1).unwrap();
        let refilled = |cluster: &Cluster| cluster.is_up(2) && cluster.acked_by(0, 2) >= waits.end;
        assert!(cluster.run_until(PATIENCE_MS, refilled));
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&waits), "three disks hold it, two of them count");
        // What the primary would grant it could not commit; a new epoch can.
        cluster.kill(0);
        cluster.restart(0);
        grant_by_failover(&mut cluster, 1);
        cluster.ends_well();
    });
}

/// Its END would need all three, of which one is gone.
#[test]
fn where_every_voter_commits_a_grant_at_the_primary_is_refused_before_anything_moves() {
    each(|seed| {
        let mut cluster = all_commit(seed);
        cluster.replace_disk(2);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_up(2)));
        let refilled = |cluster: &Cluster| cluster.streams(2);
        assert!(cluster.run_until(PATIENCE_MS, refilled));
        let (open, refused) = (cluster.is_open(0), cluster.grant(0, 2));
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!(cluster.is_open(0), open);
        assert!(!cluster.votes(2));
        grant_by_failover(&mut cluster, 1);
        cluster.write(1, 0);
        cluster.ends_well();
    });
}

#[test]
fn where_every_voter_commits_a_failover_grants_a_new_disk() {
    each(|seed| {
        let mut cluster = all_commit(seed);
        cluster.kill(0);
        cluster.replace_disk(2);
        cluster.restart(0);
        cluster.run_for(LONG_MS);
        assert_eq!(cluster.open_nodes(), [], "no BARRIER is on all three disks that count");
        grant_by_failover(&mut cluster, 1);
        cluster.write(1, 0);
        cluster.ends_well();
    });
}

#[test]
fn a_replaced_disk_that_returns_where_every_voter_commits_wins_nobody() {
    each(|seed| {
        let mut cluster = granted(seed);
        cluster.exchange_disk(2);
        assert!(cluster.votes(2), "it takes itself for a voter, and could fence alone");
        cluster.promote(2, FORCE).unwrap();
        let waits = cluster.execute(0, 1);
        for _ in 0..LONG_MS {
            cluster.run_for(1);
            assert!(!cluster.is_open(2));
            let obeys = |node: usize| cluster.fence(node).incarnation == cluster.incarnation(2);
            assert!(!obeys(0) && !obeys(1), "only it obeys itself");
        }
        if let Some(waits) = waits {
            assert!(!cluster.is_acknowledged(&waits), "and it does not count");
        }
        cluster.exchange_disk(2);
        let primary = cluster.primary_within(PATIENCE_MS);
        cluster.write(primary, 2);
        cluster.ends_well();
    });
}

#[test]
fn a_replaced_disk_that_returns_is_served_and_learns_that_it_does_not_count() {
    each(|seed| {
        let mut cluster = granted(seed);
        let waits = {
            cluster.kill(2);
            cluster.execute(0, 1).unwrap()
        };
        cluster.exchange_disk(2);
        let served = |cluster: &Cluster| cluster.flushed(2) >= waits.end;
        assert!(cluster.run_until(PATIENCE_MS, served));
        assert!(!cluster.votes(2), "by the log that it holds now");
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&waits));
        assert_eq!(cluster.promoted(2, FORCE), Err(Failure::NotVoter("n2".parse().unwrap())));
        cluster.exchange_disk(2);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_acknowledged(&waits)));
        cluster.ends_well();
    });
}

#[test]
fn a_replaced_disk_that_returns_beside_one_voter_of_three_is_refused() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.replace_disk(2);
        let refilled = |cluster: &Cluster| {
            cluster.is_up(2) && cluster.streams(2) && cluster.acked_by(0, 2) == cluster.appended(0)
        };
        assert!(cluster.run_until(PATIENCE_MS, refilled));
        insist(&mut cluster, |cluster| cluster.grant(0, 2));
        let counts = |cluster: &Cluster| cluster.is_open(0) && cluster.votes(2);
        assert!(cluster.run_until(PATIENCE_MS, counts));
        let kept = cluster.write(0, 0);
        // Who does not know that the grant is committed has to ask the old set as well.
        let known = |cluster: &Cluster| cluster.committed(1).min(cluster.committed(2)) >= kept.end;
        assert!(cluster.run_until(PATIENCE_MS, known));
        cluster.kill(0);
        cluster.exchange_disk(2);
        let refused = cluster.promoted(2, FORCE);
        assert!(refused.is_err(), "two of three answer, and one of them counts: {refused:?}");
        assert_eq!(cluster.open_nodes(), []);
        let refused = cluster.promoted(1, FORCE);
        assert_eq!(refused, Err(Failure::TooFew { reached: 1, needed: 2 }));
        cluster.exchange_disk(2);
        if cluster.primary().is_none() {
            take_over(&mut cluster, 1, FORCE);
        }
        cluster.restart(0);
        let cluster = cluster.ends_well();
        assert_eq!(cluster.value(2, 0), kept.value());
    });
}

#[test]
fn a_wiped_primary_leads_no_empty_log() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        let kept = cluster.write(0, 0);
        cluster.wipe(0);
        assert!(cluster.run_until(PATIENCE_MS, |cluster| cluster.is_up(0)));
        cluster.run_for(LONG_MS);
        assert_eq!(cluster.open_nodes(), [], "nobody was promoted, and an empty folder never is");
        assert_eq!(cluster.role(0), Some(RoleView::Replica { streaming: false }));
        assert!(matches!(cluster.promoted(0, FORCE), Err(Failure::NotVoter(_))));
        take_over(&mut cluster, 1, FORCE);
        let streams = |cluster: &Cluster| cluster.streams(0) && cluster.streams(2);
        assert!(cluster.run_until(PATIENCE_MS, streams));
        assert_eq!(cluster.value(1, 0), kept.value());
        insist(&mut cluster, |cluster| cluster.grant(1, 0));
        cluster.ends_well();
    });
}
