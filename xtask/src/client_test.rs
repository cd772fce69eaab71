//! `cargo xtask client-test`: the clients people use, unmodified, against a running cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::process::{Folder, build_towline, output};
use crate::tools;

/// What redis-py does in a program of its own, on a primary and a replica.
const PYTHON: &str = include_str!("client_test/redis_py.py");

/// What one types into redis-cli, and what it answers.
const REDIS_CLI: [(&[&str], &str); 10] = [
    (&["ping"], "PONG"),
    (&["set", "cli:a", "1"], "OK"),
    (&["incrby", "cli:a", "41"], "42"),
    (&["get", "cli:a"], "42"),
    (&["mset", "cli:b", "x", "cli:c", "y"], "OK"),
    (&["mget", "cli:b", "cli:c"], "x\ny"),
    (&["strlen", "cli:b"], "1"),
    (&["del", "cli:b", "cli:c", "cli:d"], "2"),
    (&["-3", "set", "cli:e", "1", "nx"], "OK"),
    (&["wait", "1", "1000"], "1"),
];

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let profile = arguments.profile()?;
    arguments.finish()?;
    for missing in check(&profile)? {
        println!("SKIPPED: {missing}");
    }
    Ok(())
}

/// Runs every client that is there; returns those that are not.
pub(crate) fn check(profile: &str) -> Result<Vec<String>> {
    let towline = build_towline(profile)?;
    let mut folder = Folder::new("client-test")?;
    let cluster = Cluster::start(&towline, &folder, &["a", "b"], 2)?;
    let done = clients(&cluster);
    if done.is_err() {
        folder.keep();
        eprintln!("the nodes' logs are in {}", folder.path().display());
    }
    done
}

fn clients(cluster: &Cluster) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    let (primary, replica) = (cluster.nodes[0].resp, cluster.nodes[1].resp);
    if tools::has("redis-cli") {
        redis_cli(primary, replica).context("redis-cli")?;
        println!("client-test: redis-cli ok");
    } else {
        missing.push("redis-cli is not installed".to_owned());
    }
    if tools::has("redis-benchmark") {
        redis_benchmark(primary).context("redis-benchmark")?;
        println!("client-test: redis-benchmark ok");
    } else {
        missing.push("redis-benchmark is not installed".to_owned());
    }
    match tools::python_with_redis() {
        Ok(python) => {
            redis_py(&python, primary, replica).context("redis-py")?;
            println!("client-test: redis-py ok");
        }
        Err(error) => missing.push(format!("redis-py cannot be installed: {error:#}")),
    }
    Ok(missing)
}

fn to(program: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command
}

fn redis_cli(primary: SocketAddr, replica: SocketAddr) -> Result<()> {
    for (words, expected) in REDIS_CLI {
        let said = output(to("redis-cli", primary).args(words))?;
        if said.trim_end() != expected {
            bail!("{}: answered {said:?}, not {expected:?}", words.join(" "));
        }
    }
    let refused = output(to("redis-cli", replica).args(["set", "cli:a", "2"]))?;
    if !refused.contains("READONLY") || !refused.contains(&primary.to_string()) {
        bail!("a replica answered a write with {refused:?}: no READONLY that names {primary}");
    }
    let unknown = output(to("redis-cli", primary).args(["nonsense", "x"]))?;
    if !unknown.contains("ERR unknown command") {
        bail!("an unknown command was answered with {unknown:?}");
    }
    Ok(())
}

fn redis_benchmark(primary: SocketAddr) -> Result<()> {
    for pipeline in ["1", "16"] {
        let mut command = to("redis-benchmark", primary);
        command.args(["-t", "ping,set,get,incr,mset", "-n", "2000", "-c", "20", "-q"]);
        let said = output(command.args(["-P", pipeline]))?;
        let finished = said.matches("requests per second").count();
        // PING is run twice, inline and as an array.
        if finished != 6 || said.contains("Error") || said.contains("WARNING") {
            bail!("with -P {pipeline} it finished {finished} of 6 tests:\n{said}");
        }
    }
    Ok(())
}

fn redis_py(python: &Path, primary: SocketAddr, replica: SocketAddr) -> Result<()> {
    let mut command = Command::new(python);
    command.args(["-c", PYTHON]);
    for address in [primary, replica] {
        command.arg(address.port().to_string());
    }
    let said = output(&mut command)?;
    if said.trim_end() != "ok" {
        bail!("it said {said:?}");
    }
    Ok(())
}
