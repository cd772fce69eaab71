//! `cargo xtask strace-test`: no OK before two disks.
//!
//! Three nodes, W = 2. strace delays every sync of some of them on entry. A write that was
//! sent at `t` reaches a node's log after `t`, so a sync that covers it begins after `t` and
//! returns no earlier than `t + delay`: an OK before that came before that node's disk.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::cluster::{Cluster, Node};
use crate::process::{Folder, Running, build_towline};
use crate::resp::{Reply, Resp};

/// What is put in front of every sync of a delayed node.
const DELAY: Duration = Duration::from_millis(500);
/// An OK that waits for no delayed disk comes well before this.
const QUICK: Duration = Duration::from_millis(250);
/// Writes per scenario.
const WRITES: usize = 5;
/// strace says so when it has attached.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

/// What a write must take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    /// Two fast disks are left: the best write is quick.
    Quick,
    /// Only one is: every write waits for a delayed disk.
    Delayed,
}

/// The delayed nodes, and what a write then takes. The primary is `a`.
const SCENARIOS: [(&[&str], Expected); 8] = [
    (&[], Expected::Quick),
    (&["b", "c"], Expected::Delayed),
    (&["b"], Expected::Quick),
    (&["c"], Expected::Quick),
    // Both replicas' disks are two disks, whatever the primary's own does.
    (&["a"], Expected::Quick),
    (&["a", "b"], Expected::Delayed),
    (&["a", "c"], Expected::Delayed),
    (&[], Expected::Quick),
];

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let profile = arguments.profile()?;
    arguments.finish()?;
    check(&profile)
}

/// Runs every scenario.
pub(crate) fn check(profile: &str) -> Result<()> {
    let towline = build_towline(profile)?;
    let mut folder = Folder::new("strace-test")?;
    let done = scenarios(&towline, &folder);
    if done.is_err() {
        folder.keep();
        eprintln!("the nodes' logs are in {}", folder.path().display());
    }
    done
}

fn scenarios(towline: &std::path::Path, folder: &Folder) -> Result<()> {
    let cluster = Cluster::start(towline, folder, &["a", "b", "c"], 2)?;
    let mut resp = cluster.connect()?;
    for (delayed, expected) in SCENARIOS {
        let nodes = cluster.nodes.iter().filter(|node| delayed.contains(&node.name));
        let tracers = nodes.map(delay_syncs).collect::<Result<Vec<_>>>()?;
        let times = (0..WRITES).map(|_| write(&mut resp)).collect::<Result<Vec<_>>>()?;
        for mut tracer in tracers {
            // It detaches; the node goes on.
            tracer.end_by("INT")?;
        }
        judge(delayed, expected, &times)?;
        println!("strace-test: delayed {delayed:?}: {expected:?}, {times:.0?}");
    }
    println!("strace-test: ok, no OK before two disks");
    Ok(())
}

/// Puts [`DELAY`] in front of every sync of a running node.
fn delay_syncs(node: &Node) -> Result<Running> {
    let delay_us = DELAY.as_micros();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", "trace=fdatasync,msync", "-e"]);
    strace.arg(format!("inject=fdatasync,msync:delay_enter={delay_us}"));
    strace.args(["-p", &node.pid().to_string()]).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut tracer = Running::spawn(&mut strace)?;
    let Some(said) = tracer.take_stderr() else { bail!("strace has no stderr") };
    let (attached, wait) = mpsc::channel();
    std::thread::spawn(move || {
        // Reads on to the end, so that strace never blocks on its own messages.
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            if attached.send(line).is_err() {
                continue;
            }
        }
    });
    match wait.recv_timeout(ATTACH_LIMIT) {
        Ok(line) if line.contains("attached") => Ok(tracer),
        Ok(line) => bail!("strace cannot attach to node {}: {line}", node.name),
        Err(_) => bail!("strace did not attach to node {} in {ATTACH_LIMIT:?}", node.name),
    }
}

/// One write, and how long its OK took.
fn write(resp: &mut Resp) -> Result<Duration> {
    let sent = Instant::now();
    let reply = resp.call(&["SET", "strace", "1"])?;
    let took = sent.elapsed();
    if reply != Reply::Text("OK".to_owned()) {
        bail!("SET answered {reply:?} after {took:?}");
    }
    Ok(took)
}

fn judge(delayed: &[&str], expected: Expected, times: &[Duration]) -> Result<()> {
    let (best, worst) = (times.iter().min().copied(), times.iter().max().copied());
    let (Some(best), Some(_)) = (best, worst) else { bail!("no writes") };
    match expected {
        Expected::Delayed if best < DELAY => bail!(
            "with the syncs of {delayed:?} delayed by {DELAY:?} an OK came after {best:?}: before \
             a second disk"
        ),
        // A sync that began before the delay was lifted may still hold the first writes up.
        Expected::Quick if best > QUICK => bail!(
            "with the syncs of {delayed:?} delayed two fast disks are left, but no OK came \
             before {best:?}"
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_ok_fails_and_so_does_one_that_waits_for_a_slow_disk_it_does_not_need() {
        let times = |times: &[u64]| times.iter().copied().map(Duration::from_millis).collect();
        let fine: Vec<Duration> = times(&[510, 900, 505]);
        assert!(judge(&["b", "c"], Expected::Delayed, &fine).is_ok());
        let one_early: Vec<Duration> = times(&[510, 3, 505]);
        assert!(judge(&["b", "c"], Expected::Delayed, &one_early).is_err());
        assert!(judge(&["b"], Expected::Quick, &one_early).is_ok());
        assert!(judge(&["b"], Expected::Quick, &fine).is_err());
    }
}
