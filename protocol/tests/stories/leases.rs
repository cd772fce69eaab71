//! What a primary may make of the promises it asks for.

use towline_protocol::epoch::{Epoch, History};
use towline_protocol::frame::Ack;
use towline_protocol::machine::Action;
use towline_protocol::terms::{Terms, VoterSets};

use crate::{BARRIER_END, ack, actions, alone, candidate_of, new_primary, node, positions, voters};

const LEASE_MS: u32 = 200;

/// A primary numbered its heartbeats before it was open, when they ask for no promise yet. An echo
/// of such a one came with the ack that opened it, and passed for a lease.
#[test]
fn a_heartbeat_that_asked_for_nothing_renews_no_lease() {
    let voters = voters(&["a", "b", "c"]);
    let (mut machine, epoch) = new_primary(&voters);
    let terms = Terms { sets: VoterSets::of(voters), lease_ms: LEASE_MS };
    machine.handle_history(History::default(), terms);
    machine.handle_timeout(50);
    let (_, early, news) = machine.heartbeat().expect("it leads");
    assert_eq!(news.lease_ms, 0, "it is not open");

    let echo = |seen| Ack { seen, ..ack(1, BARRIER_END) };
    assert!(machine.handle_ack(node("b"), epoch, &echo(early), 60));
    machine.handle_applied(BARRIER_END);
    let opened = Action::Open(epoch);
    assert!(actions(&mut machine).contains(&opened));
    assert!(!machine.has_lease(61), "nobody has promised anything");

    let (_, number, news) = machine.heartbeat().expect("it leads");
    assert!(number > early, "what asks for a promise has a number of its own");
    assert_eq!(news.lease_ms, LEASE_MS);
    assert!(machine.handle_ack(node("b"), epoch, &echo(number), 70));
    assert!(machine.has_lease(71));
    let (sent_ms, usable_ms) = (60, u64::from(LEASE_MS) * 7 / 8);
    assert!(machine.has_lease(sent_ms + usable_ms - 1));
    assert!(!machine.has_lease(sent_ms + usable_ms), "it runs from the sending");
}

/// The heartbeat with which leases begin was echoed by nobody where there is nobody else: reads
/// waited for its round until something was written.
#[test]
fn a_single_voter_reads_as_soon_as_it_is_open() {
    let mut machine = alone();
    let round = machine.request_round().expect("it leads");
    assert!(machine.rounds_seen() >= round);
}

/// Voters keep silent for as long as their promises bind them; a candidate that gave up before
/// could never be promoted at all.
#[test]
fn a_candidate_waits_for_as_long_as_promises_bind() {
    let voters = voters(&["a", "b", "c"]);
    let mut machine = candidate_of(&voters, LEASE_MS);
    let epoch = machine.fence();
    machine.handle_obeyed(epoch, BARRIER_END, 2);
    actions(&mut machine);
    machine.handle_timeout(crate::TIMING.candidate_ms + 10);
    machine.handle_fenced(node("b"), epoch, positions(&voters, epoch, None), 600);
    let prepares = |action: &Action| matches!(action, Action::Prepare { old: Epoch::NONE, .. });
    assert!(actions(&mut machine).iter().any(prepares), "it goes on with a late answer");
}
