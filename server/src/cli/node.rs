//! Starting a node, for all three binaries.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};
use tracing_subscriber::EnvFilter;

use super::exit::{Exit, Failure};
use crate::config::{Config, Overrides};
use crate::run::{InitialRole, run_node};

/// What is logged unless `TOWLINE_LOG_FILTER` says otherwise.
const LOG_FILTER_DEFAULT: &str = "info";
const LOG_FILTER_VARIABLE: &str = "TOWLINE_LOG_FILTER";

/// The arguments of a node. Each overrides its `TOWLINE_…` variable, which overrides the file.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// The node's towline.toml, as towline init wrote it.
    #[arg(long, value_name = "FILE", env = "TOWLINE_CONFIG")]
    pub config: PathBuf,
    /// The folder of its log and state.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where clients connect.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen_resp: Option<String>,
    /// Where other nodes connect.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen_repl: Option<String>,
    /// End when the standard input is closed: the demo's nodes end with the demo.
    #[arg(long, hide = true)]
    pub exit_on_stdin_close: bool,
}

/// Starts a node. The role only counts for a folder that has none yet: it is state on disk.
#[derive(Debug, Parser)]
#[command(version)]
struct NodeCli {
    #[command(flatten)]
    args: NodeArgs,
}

/// The whole of the `primary` and `replica` binaries.
#[must_use]
pub fn node_main(role: InitialRole) -> ExitCode {
    run(role, &NodeCli::parse().args)
}

/// Runs a node in this process until it is told to stop.
pub(super) fn run(role: InitialRole, args: &NodeArgs) -> ExitCode {
    if args.exit_on_stdin_close {
        crate::demo::exit_on_stdin_close();
    }
    let overrides = Overrides {
        data_dir: args.data_dir.clone(),
        resp: args.listen_resp.clone(),
        repl: args.listen_repl.clone(),
    };
    let started = log_to_stderr().and_then(|()| {
        Config::load(&args.config, std::env::vars_os(), &overrides).map_err(Failure::from)
    });
    match started {
        Ok(config) => run_node(role, config),
        Err(failure) => {
            eprintln!("towline: {failure}");
            failure.exit.into()
        }
    }
}

fn log_to_stderr() -> Result<(), Failure> {
    let filter =
        std::env::var(LOG_FILTER_VARIABLE).unwrap_or_else(|_| LOG_FILTER_DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        Failure::new(
            Exit::Config,
            format!(
                "the environment variable {LOG_FILTER_VARIABLE} is {filter:?}: {error}\n  \
                 fix: write a level such as info or debug"
            ),
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    Ok(())
}
