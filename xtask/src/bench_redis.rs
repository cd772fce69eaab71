//! `cargo xtask bench-redis`: Towline and redis-server on the same machine, in one interleaved
//! run, both with one replica and both syncing every write.
//!
//! What differs stays different and is printed: Towline answers once two nodes have synced, Redis
//! once the primary has; its replica follows asynchronously.

mod report;
mod rival;

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::process::{Folder, build_towline, check_interrupted, output};
use report::Report;
use rival::Rival;

/// Rounds; in each both are measured, in alternating order.
const ROUNDS: usize = 3;
/// Requests per measurement, whole and `--quick`.
const REQUESTS: [&str; 2] = ["100000", "10000"];
/// Connections, and bytes per value.
const SHAPE: [&str; 4] = ["-c", "50", "-d", "128"];
/// Requests per connection on the wire at once.
const PIPELINES: [&str; 2] = ["1", "16"];

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let quick = arguments.flag("--quick");
    arguments.finish()?;
    for program in ["redis-server", "redis-benchmark"] {
        if !crate::tools::has(program) {
            bail!("{program} is not installed: apt-get install redis-server redis-tools");
        }
    }
    let towline = build_towline("release")?;
    let folder = Folder::new("bench-redis")?;
    let cluster = Cluster::start(&towline, &folder, &["a", "b"], 2).context("towline")?;
    let rival = Rival::start(&folder).context("redis-server")?;
    let requests = REQUESTS[usize::from(quick)];
    println!("redis-benchmark -n {requests} {} -t set,get, {ROUNDS} rounds", SHAPE.join(" "));
    println!("towline: primary + 1 replica, OK after 2 nodes have synced");
    println!("redis:   primary + 1 replica, appendfsync always on both, OK after 1 has synced");
    let mut report = Report::default();
    for round in 0..ROUNDS {
        for pipeline in PIPELINES {
            let mut order = [("towline", cluster.primary()), ("redis", rival.primary())];
            if round % 2 == 1 {
                order.reverse();
            }
            for (server, address) in order {
                check_interrupted()?;
                measure(&mut report, server, address, requests, pipeline)?;
            }
        }
        eprintln!("round {} of {ROUNDS} done", round + 1);
    }
    print!("{}", report.table());
    Ok(())
}

fn measure(
    report: &mut Report,
    server: &'static str,
    address: SocketAddr,
    requests: &str,
    pipeline: &str,
) -> Result<()> {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(["-t", "set,get", "-n", requests, "-P", pipeline, "--csv"]).args(SHAPE);
    let text = output(&mut command)?;
    report.add(server, pipeline, &text).with_context(|| format!("{server}:\n{text}"))
}
