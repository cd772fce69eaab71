//! `towline list`.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::Output;
use super::exit::{Exit, Failure};
use super::survey::{ClusterArgs, Seen, ask_all};

/// How long a node may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// A sync that lasts longer, in milliseconds, tells of a disk that stalls.
const SYNC_STALLS_MS: u64 = 1_000;
const HEADINGS: [&str; 9] =
    ["NODE", "ROLE", "ADDRESS", "STATE", "EPOCH", "FLUSHED", "APPLIED", "LAG", "CAN PROMOTE"];

/// Arguments of `towline list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Wait up to so many seconds until all is well, and print it then.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

/// How often a waiting list asks again.
const WAIT_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn run(args: &ListArgs) -> Result<Exit, Failure> {
    let config = args.cluster.load()?;
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    let (nodes, problems) = loop {
        let nodes = ask_all(&config, ASK_TIMEOUT);
        let problems = problems(&nodes);
        if problems.is_empty() || Instant::now() >= deadline {
            break (nodes, problems);
        }
        std::thread::sleep(WAIT_PAUSE);
    };
    match args.output {
        Output::Table => print!("{}", table(&config.cluster, &nodes, &problems)),
        Output::Json => println!("{}", as_json(&config.cluster, &nodes, &problems)),
    }
    Ok(if nodes.iter().all(|seen| seen.status.is_err()) {
        Exit::Unreachable
    } else if problems.is_empty() {
        Exit::Ok
    } else {
        Exit::Degraded
    })
}

/// What keeps the cluster from being well, for people.
fn problems(nodes: &[Seen]) -> Vec<String> {
    let mut problems = Vec::new();
    if !nodes.iter().any(Seen::is_open) {
        problems.push("no primary".to_owned());
    }
    for seen in nodes {
        match &seen.status {
            Err(_) => problems.push(format!("{} unreachable", seen.node)),
            Ok(_) if seen.is_open() || seen.text("state") == "streaming" => {}
            Ok(_) => problems.push(format!("{} {}", seen.node, seen.text("state"))),
        }
        if let Some(ms) = seen.number("sync_in_flight_ms").filter(|ms| *ms >= SYNC_STALLS_MS) {
            problems.push(format!("{} waits for its disk since {ms} ms", seen.node));
        }
        let damaged = seen.status.as_ref().ok().and_then(|status| status["damaged"].as_array());
        if damaged.is_some_and(|damaged| !damaged.is_empty()) {
            problems.push(format!("{} has a damaged log: see its status", seen.node));
        }
    }
    problems
}

fn table(cluster: &str, nodes: &[Seen], problems: &[String]) -> String {
    let epoch = nodes.iter().filter_map(|seen| seen.number("epoch_number")).max().unwrap_or(0);
    let quorum = nodes.iter().find_map(|seen| Some((seen.number("w")?, seen.number("n")?)));
    let quorum = quorum.map_or(String::new(), |(w, n)| format!("  commit={w} of {n}"));
    let health = if problems.is_empty() {
        "ok".to_owned()
    } else {
        format!("DEGRADED: {}", problems.join(", "))
    };
    let mut text = format!("CLUSTER {cluster}  epoch {epoch}{quorum}  {health}\n");
    let rows: Vec<[String; HEADINGS.len()]> = std::iter::once(HEADINGS.map(str::to_owned))
        .chain(nodes.iter().map(|seen| row(seen, nodes)))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..HEADINGS.len()).map(|column| width(column).unwrap_or(0)).collect();
    for row in &rows {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(seen: &Seen, nodes: &[Seen]) -> [String; HEADINGS.len()] {
    let none = || "-".to_owned();
    let number = |key: &str| seen.number(key).map_or_else(none, |number| number.to_string());
    let (role, state) = match &seen.status {
        Err(_) => (none(), "unreachable".to_owned()),
        Ok(_) if seen.is_open() => ("primary".to_owned(), "writable".to_owned()),
        Ok(_) => ("replica".to_owned(), seen.text("state").to_owned()),
    };
    [
        seen.node.to_string(),
        role,
        seen.address.clone(),
        state,
        number("epoch_number"),
        number("flushed"),
        number("applied"),
        lag(seen, nodes).map_or_else(none, bytes),
        can_promote(seen, nodes),
    ]
}

/// What the primary says of a replica's lag.
fn lag(seen: &Seen, nodes: &[Seen]) -> Option<u64> {
    let primary = nodes.iter().find(|node| node.is_open())?.status.as_ref().ok()?;
    let replicas = primary["replicas"].as_array()?;
    let known = replicas.iter().find(|replica| replica["node"] == seen.node.as_str())?;
    known["lag_bytes"].as_u64()
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let (mut scaled, mut unit) = (count, 0);
    while scaled >= 10 * 1024 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    format!("{scaled} {}", UNITS[unit])
}

/// Whether a failover to this node would go through now, and else why not.
fn can_promote(seen: &Seen, nodes: &[Seen]) -> String {
    let status = match &seen.status {
        Err(error) => return format!("no: {error}"),
        Ok(status) => status,
    };
    if seen.is_open() {
        return "-".to_owned();
    }
    let voters: Vec<_> =
        status["voters"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !voters.contains(&seen.node.as_str()) {
        return "no: it has no vote".to_owned();
    }
    if matches!(seen.text("state"), "quarantined" | "failed") {
        return format!("no: {}", seen.text("reason"));
    }
    let reachable = |voter: &&&str| {
        nodes.iter().any(|node| node.status.is_ok() && node.node.as_str() == **voter)
    };
    let (up, n) = (voters.iter().filter(reachable).count(), voters.len());
    let needed = n + 1 - seen.number("w").map_or(n, |w| w as usize);
    if up < needed {
        return format!("no: {up} of {needed} voters that it needs can be reached");
    }
    match lag(seen, nodes) {
        Some(lag) if lag > 0 => format!("yes, after fetching {}", bytes(lag)),
        _ => "yes".to_owned(),
    }
}

fn as_json(cluster: &str, nodes: &[Seen], problems: &[String]) -> Value {
    let nodes: Vec<Value> = nodes
        .iter()
        .map(|seen| {
            json!({
                "node": seen.node.as_str(),
                "address": seen.address,
                "reachable": seen.status.is_ok(),
                "error": seen.status.as_ref().err(),
                "can_promote": can_promote(seen, nodes),
                "status": seen.status.as_ref().ok(),
            })
        })
        .collect();
    json!({ "cluster": cluster, "problems": problems, "nodes": nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, status: Result<Value, String>) -> Seen {
        Seen { node: name.parse().unwrap(), address: format!("{name}:1"), status }
    }

    fn cluster() -> Vec<Seen> {
        let primary = json!({
            "state": "primary", "open": "2.0", "epoch_number": 2, "flushed": 900, "applied": 900,
            "w": 2, "n": 3, "voters": ["a", "b", "c"],
            "replicas": [{ "node": "b", "lag_bytes": 20_480 }],
        });
        let replica = json!({
            "state": "streaming", "open": null, "epoch_number": 2, "flushed": 800, "applied": 800,
            "w": 2, "n": 3, "voters": ["a", "b", "c"],
        });
        vec![
            seen("a", Ok(primary)),
            seen("b", Ok(replica)),
            seen("c", Err("connection refused".to_owned())),
        ]
    }

    #[test]
    fn a_disk_that_stalls_and_a_log_that_rots_are_problems() {
        let mut nodes = cluster();
        let status = |nodes: &mut Vec<Seen>, key: &str, value: Value| {
            nodes[0].status.as_mut().unwrap()[key] = value;
        };
        status(&mut nodes, "sync_in_flight_ms", json!(999));
        status(&mut nodes, "damaged", json!([]));
        assert_eq!(problems(&nodes), ["c unreachable"]);
        status(&mut nodes, "sync_in_flight_ms", json!(1_500));
        status(&mut nodes, "damaged", json!([{ "from": 1, "to": 2 }]));
        let told = problems(&nodes).join("; ");
        assert!(told.contains("a waits for its disk since 1500 ms"), "{told}");
        assert!(told.contains("a has a damaged log"), "{told}");
    }

    #[test]
    fn the_table_says_who_can_be_promoted_and_why_not() {
        let nodes = cluster();
        let problems = problems(&nodes);
        assert_eq!(problems, ["c unreachable"]);
        let expected = "\
CLUSTER orders  epoch 2  commit=2 of 3  DEGRADED: c unreachable
NODE  ROLE     ADDRESS  STATE        EPOCH  FLUSHED  APPLIED  LAG     CAN PROMOTE
a     primary  a:1      writable     2      900      900      -       -
b     replica  b:1      streaming    2      800      800      20 KiB  yes, after fetching 20 KiB
c     -        c:1      unreachable  -      -        -        -       no: connection refused
";
        assert_eq!(table("orders", &nodes, &problems), expected);
    }

    #[test]
    fn a_replica_alone_cannot_be_promoted() {
        let mut nodes = cluster();
        nodes[0].status = Err("connection refused".to_owned());
        let reason = can_promote(&nodes[1], &nodes);
        assert_eq!(reason, "no: 1 of 2 voters that it needs can be reached");
        assert_eq!(problems(&nodes), ["no primary", "a unreachable", "c unreachable"]);
    }
}
