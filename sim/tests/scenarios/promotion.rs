//! Who becomes primary, and who is one no longer.

use towline_protocol::machine::{Failure, Verdict};

use crate::{CAREFUL, FORCE, LONG_MS, PATIENCE_MS, each, working};

#[test]
fn an_old_primary_frozen_past_its_replacement_acknowledges_nothing() {
    each(|seed| {
        let mut cluster = working(seed, 3);
        cluster.pause(0, LONG_MS);
        let opened = cluster.promoted(1, FORCE).unwrap();
        let kept = cluster.write(1, 0);
        assert!(cluster.is_open(0), "it still thinks that it leads");
        // What its clients want of it the moment it wakes, before it hears anything.
        let (late, asked) = (cluster.execute(0, 0).unwrap(), cluster.read(0, 0).unwrap());
        assert!(late.epoch < opened && asked.value == late.value());
        cluster.run_for(LONG_MS);
        assert!(!cluster.is_acknowledged(&late));
        assert!(!cluster.is_answered(&asked), "nor does it answer reads");
        assert!(!cluster.is_open(0));
        let cluster = cluster.ends_well();
        assert_eq!(cluster.value(0, 0), kept.value());
        assert_eq!(cluster.verdict(1, &late), Verdict::Lost);
    });
}

#[test]
fn two_promotions_at_once_leave_one_primary() {
    each(|seed| {
        let mut cluster = working(seed, 5);
        cluster.kill(0);
        for node in [1, 2, 3] {
            cluster.promote(node, FORCE).unwrap();
        }
        cluster.run_for(LONG_MS);
        let ends: Vec<_> = [1, 2, 3].map(|node| cluster.last_ended(node).unwrap()).into();
        assert!(ends.iter().filter(|ended| ended.is_ok()).count() <= 1, "{ends:?}");
        let outrun = |ended: &&Result<_, Failure>| matches!(ended, Err(Failure::Outrun(_)));
        assert!(ends.iter().filter(outrun).count() >= 1, "{ends:?}");
        if cluster.primary().is_none() {
            cluster.promoted(1, CAREFUL).unwrap();
        }
        assert_eq!(cluster.open_nodes().len(), 1);
        let primary = cluster.primary_within(PATIENCE_MS);
        cluster.write(primary, 0);
        cluster.restart(0);
        cluster.ends_well();
    });
}
