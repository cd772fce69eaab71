//! What a person types: arguments, exit codes, and one file per verb.

mod client;
mod exit;
mod failover;
pub mod init;
mod list;
mod node;
mod node_spec;
mod status;
mod survey;
mod wal;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

pub use exit::{Exit, Failure};
pub use node::{NodeArgs, node_main};
pub use node_spec::NodeSpec;

use crate::demo::DemoOptions;
use crate::run::InitialRole;

/// Runs and looks after a replicated key-value store.
#[derive(Debug, Parser)]
#[command(name = "towline", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Found a cluster: make a folder, a configuration and a certificate for every node.
    Init(init::InitArgs),
    /// Show every node: its role, its positions, and whether it can be promoted.
    List(list::ListArgs),
    /// Show everything one node says of itself.
    Status(status::StatusArgs),
    /// Make a node the primary. The longest log of the nodes that can be reached wins; what was
    /// acknowledged is not lost.
    Failover(failover::FailoverArgs),
    /// Read a node's log, of a running node too, and repair that of a stopped one.
    #[command(subcommand)]
    Wal(wal::WalVerb),
    /// Show on this machine that nothing acknowledged is lost: three nodes, writes, a killed
    /// primary, a promotion, and the check.
    Demo(DemoOptions),
    /// Run a node in this process.
    #[command(subcommand, hide = true)]
    Node(NodeVerb),
}

#[derive(Debug, Subcommand)]
enum NodeVerb {
    /// Start as a primary.
    Primary(NodeArgs),
    /// Start as a replica.
    Replica(NodeArgs),
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Runs the verb in this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Init(args) => init::run(&args),
        Verb::List(args) => list::run(&args),
        Verb::Status(args) => status::run(&args),
        Verb::Failover(args) => failover::run(&args),
        Verb::Wal(verb) => wal::run(&verb),
        Verb::Demo(options) => return crate::demo::main(options),
        Verb::Node(NodeVerb::Primary(args)) => return node::run(InitialRole::Primary, &args),
        Verb::Node(NodeVerb::Replica(args)) => return node::run(InitialRole::Replica, &args),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("towline: {failure}");
            failure.exit.into()
        }
    }
}
