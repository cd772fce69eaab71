//! Whole clusters on one thread, in their own time.
//!
//! The nodes are the product's: its log, its rules, its shipper and receiver over its QUIC. What is
//! simulated is the machine below them: the network, the disks, and the clock. Everything follows
//! from a seed, so what a seed shows it shows again.

#![forbid(unsafe_code)]

mod certificates;
mod clients;
mod cluster;
mod disk;
mod engine;
mod ledger;
mod logs;
mod nemesis;
mod network;
mod panics;
mod random;
mod run;
mod socket;
mod trace;

pub use panics::{command, name_seed, report_panics};
pub use run::{Outcome, run};
pub use trace::Prints;

/// Credentials for the nodes of every run; made once, because keys take time.
#[must_use]
pub fn credentials() -> Vec<towline_transport::Credentials> {
    certificates::issue(cluster::cluster_id(), &cluster::names(cluster::NAMES.len()))
}
