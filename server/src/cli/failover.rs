//! `towline failover`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use towline_protocol::id::NodeId;

use super::client::{self, Answer};
use super::exit::{Exit, Failure};
use super::survey::ClusterArgs;

/// How much longer than the node the command waits for its answer.
const GRACE: Duration = Duration::from_secs(5);

/// Arguments of `towline failover`.
#[derive(Debug, Args)]
pub(super) struct FailoverArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The node that becomes the primary.
    #[arg(long, value_name = "NODE")]
    to: NodeId,
    /// Take over even though the primary is alive and has its quorum.
    #[arg(long)]
    force: bool,
    /// How long it may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &FailoverArgs) -> Result<Exit, Failure> {
    let config = args.cluster.load()?;
    let peer = config.peers.get(&args.to).ok_or_else(|| {
        let message = format!("there is no node {} in {}", args.to, config.path.display());
        Failure::new(Exit::Usage, message)
    })?;
    if !args.yes && io::stdin().is_terminal() && !confirmed(args.to, &config.cluster) {
        return Err(Failure::new(Exit::Refused, "nothing was changed"));
    }
    let timeout = Duration::from_secs(args.timeout);
    let timeout_ms = timeout.as_millis().to_string();
    let mut request = vec!["TOWLINE", "FAILOVER"];
    if args.force {
        request.push("FORCE");
    }
    request.extend(["TIMEOUT", &timeout_ms]);
    match client::ask(&peer.resp, &request, timeout + GRACE) {
        Ok(Answer::Array(fields)) => {
            println!("{} is the primary of {}: {}", args.to, config.cluster, in_words(&fields));
            Ok(Exit::Ok)
        }
        Ok(Answer::Error(error)) => Err(Failure::new(exit_of(&error), error)),
        Ok(_) => Err(Failure::new(Exit::Error, format!("{} is no node", peer.resp))),
        Err(error) if is_timeout(&error) => Err(Failure::new(
            Exit::Timeout,
            format!("{} has not answered; see towline list for how it ended", args.to),
        )),
        Err(error) => Err(Failure::new(
            Exit::Unreachable,
            format!("{} at {} cannot be reached: {error}", args.to, peer.resp),
        )),
    }
}

fn confirmed(to: NodeId, cluster: &str) -> bool {
    print!("make {to} the primary of {cluster}? [y/N] ");
    let mut answer = String::new();
    let asked = io::stdout().flush().and_then(|()| io::stdin().lock().read_line(&mut answer));
    asked.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// `epoch 3.…, final_lsn 8192`
fn in_words(fields: &[Answer]) -> String {
    let word = |answer: &Answer| match answer {
        Answer::Text(text) | Answer::Error(text) => text.clone(),
        Answer::Integer(number) => number.to_string(),
        Answer::Null | Answer::Array(_) => String::new(),
    };
    let words: Vec<_> =
        fields.chunks(2).map(|pair| pair.iter().map(word).collect::<Vec<_>>().join(" ")).collect();
    words.join(", ")
}

fn exit_of(error: &str) -> Exit {
    match error.split(' ').next() {
        Some("REFUSED") => Exit::Refused,
        Some("UNREACHABLE") => Exit::Unreachable,
        Some("TIMEOUT") => Exit::Timeout,
        _ => Exit::Error,
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}
