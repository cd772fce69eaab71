//! `towline status`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use towline_protocol::id::NodeId;

use super::Output;
use super::client::{self, Answer};
use super::exit::{Exit, Failure};
use super::survey::ClusterArgs;

/// How long the node may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Arguments of `towline status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Which node; the one whose configuration it is, if none is named.
    #[arg(long)]
    node: Option<NodeId>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let config = args.cluster.load()?;
    let node = args.node.unwrap_or(config.node);
    let peer = config.peers.get(&node).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("there is no node {node} in {}", config.path.display()))
    })?;
    let answer = client::ask(&peer.resp, &["TOWLINE", "STATUS"], ASK_TIMEOUT);
    let text = match answer {
        Ok(Answer::Text(text)) => text,
        Ok(Answer::Error(error)) => return Err(Failure::new(Exit::Error, error)),
        Ok(_) => return Err(Failure::new(Exit::Error, format!("{} is no node", peer.resp))),
        Err(error) => {
            let message = format!("{node} at {} cannot be reached: {error}", peer.resp);
            return Err(Failure::new(Exit::Unreachable, message));
        }
    };
    let status: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(Exit::Error, format!("its status is no JSON: {error}")))?;
    match args.output {
        Output::Table => print_lines(&status),
        Output::Json => println!("{status}"),
    }
    let well = status["open"].is_string() || status["state"] == "streaming";
    Ok(if well { Exit::Ok } else { Exit::Degraded })
}

fn print_lines(status: &Value) {
    for (key, value) in status.as_object().into_iter().flatten() {
        match value {
            Value::String(text) => println!("{key:<12} {text}"),
            other => println!("{key:<12} {other}"),
        }
    }
}
