//! Starts a node that is expected to be a primary; its disk decides.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use towline_server::cli;
use towline_server::run::InitialRole;

fn main() -> ExitCode {
    cli::node_main(InitialRole::Primary)
}
