//! `towline demo`: the main job in one command, on an empty machine.
//!
//! A primary and two replicas as real processes; writes; the primary killed with SIGKILL while it
//! has a tail that no replica has; a replica promoted; more writes; the old primary back as a
//! replica. Then the verdict, from the new primary's log and every node's state.

mod check;
mod client;
mod cluster;
mod evidence;
mod parent;
mod relay;
mod workload;
mod write;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinSet;

use check::Verdict;
use cluster::DemoCluster;
pub use parent::exit_on_stdin_close;
use workload::{CONNECTIONS, Course, Ledger, write_all};

/// How long the links are held before the primary is killed, so that it has a tail to cut.
const HOLD: Duration = Duration::from_millis(200);
/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(20);
/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// What can be asked of the demo.
#[derive(Args, Clone, Debug)]
pub struct DemoOptions {
    /// How many writes, over 8 connections.
    #[arg(long, default_value_t = 100_000)]
    writes: u64,
    /// The folder for the nodes; must be empty or absent. It is removed afterwards.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leave the nodes up and print what to try, until Ctrl-C.
    #[arg(long)]
    stay: bool,
    /// Keep the folder if anything was lost or differs.
    #[arg(long)]
    keep_failed: bool,
}

/// What the demo found.
struct Outcome {
    verdict: Verdict,
    cut_bytes: u64,
    gap_ms: u64,
    writes_per_s: u64,
}

/// Runs the demo in this process.
#[must_use]
pub fn main(options: DemoOptions) -> ExitCode {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(run(options)),
        Err(error) => {
            eprintln!("towline: no threads for the demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo; the last line it prints is its verdict.
pub async fn run(options: DemoOptions) -> ExitCode {
    let folder = options.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("towline-demo-{}", std::process::id()))
    });
    if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        eprintln!("{} is not empty; name another folder with --dir", folder.display());
        return ExitCode::from(2);
    }
    let code = tokio::select! {
        code = play(&options, &folder) => code,
        () = interrupted() => ExitCode::from(INTERRUPTED),
    };
    if code == ExitCode::SUCCESS || !options.keep_failed {
        remove(&folder).await;
    }
    code
}

async fn play(options: &DemoOptions, folder: &Path) -> ExitCode {
    let mut cluster = match DemoCluster::found(folder).await {
        Ok(cluster) => cluster,
        Err(why) => return failed(&why),
    };
    let outcome = match act(&mut cluster, options.writes, folder).await {
        Ok(outcome) => outcome,
        Err(why) => return failed(&why),
    };
    for finding in &outcome.verdict.findings {
        eprintln!("{finding}");
    }
    if options.stay {
        suggest(&cluster);
    }
    let Outcome { verdict, cut_bytes, gap_ms, writes_per_s } = &outcome;
    let Verdict { acked, lost, diverged, .. } = verdict;
    println!(
        "demo: acked={acked} lost={lost} diverged={diverged} cut={cut_bytes} gap_ms={gap_ms} \
         writes_per_s={writes_per_s}"
    );
    if options.stay {
        std::future::pending::<()>().await;
    }
    let fine = *lost == 0 && *diverged == 0 && *cut_bytes > 0;
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The play itself, top to bottom.
async fn act(cluster: &mut DemoCluster, writes: u64, folder: &Path) -> Result<Outcome, String> {
    println!("three nodes in {}", folder.display());
    cluster.start().await?;
    show_list(cluster).await?;

    let (lead, primary) = watch::channel(cluster.nodes[0].resp);
    let course = Course {
        started: Instant::now(),
        writes: writes / u64::from(CONNECTIONS),
        primary,
        acked: Arc::new(AtomicU64::new(0)),
    };
    let mut writers = Writers::start(course.clone(), progress_bar(writes));

    writers.reach(writes / 2).await?;
    cluster.hold_links(true);
    tokio::time::sleep(HOLD).await;
    cluster.nodes[0].kill().await?;
    let killed_us = course.now_us();
    cluster.hold_links(false);
    writers.say("a killed with SIGKILL in the middle of the writes; promoting b");
    cluster.nodes[1].promote().await?;
    let _ = lead.send(cluster.nodes[1].resp);
    writers.say(&format!("b is primary after {} ms", (course.now_us() - killed_us) / 1_000));

    writers.reach(writes * 3 / 4).await?;
    cluster.nodes[0].start("replica", &[])?;
    writers.say("a started again, as a replica");
    let ledgers = writers.finish().await?;
    let seconds = course.started.elapsed().as_secs_f64();

    let digests = cluster.settled_digests().await?;
    show_list(cluster).await?;
    println!("checking every acknowledged write against the log and every node");
    let verdict = judge(cluster, &ledgers, &digests).await?;
    let resumed = ledgers.iter().filter_map(|ledger| ledger.resumed_us).min();
    let resumed_us = resumed.ok_or("no write was acknowledged after the failover")?;
    Ok(Outcome {
        cut_bytes: cluster.nodes[0].cut_bytes().await?,
        gap_ms: resumed_us.saturating_sub(killed_us).div_ceil(1_000),
        writes_per_s: (verdict.acked as f64 / seconds) as u64,
        verdict,
    })
}

async fn judge(
    cluster: &DemoCluster,
    ledgers: &[Ledger],
    digests: &[(String, Vec<String>)],
) -> Result<Verdict, String> {
    let data_dir = cluster.nodes[1].data_dir();
    let logged = tokio::task::spawn_blocking(move || evidence::logged_writes(&data_dir));
    let logged = logged.await.map_err(|error| error.to_string())??;
    let mut verdict = Verdict::of_log(ledgers, &logged);
    for node in &cluster.nodes {
        let values = evidence::values(node.resp, &logged).await?;
        verdict.check_values(node.name, &logged, &values);
    }
    verdict.check_digests(digests);
    Ok(verdict)
}

/// The writers, and what those saw that are through.
struct Writers {
    course: Course,
    bar: ProgressBar,
    running: JoinSet<Result<Ledger, String>>,
    ledgers: Vec<Ledger>,
}

impl Writers {
    fn start(course: Course, bar: ProgressBar) -> Self {
        let mut running = JoinSet::new();
        for connection in 0..CONNECTIONS {
            running.spawn(write_all(connection, course.clone()));
        }
        Self { course, bar, running, ledgers: Vec::new() }
    }

    /// Moves the bar until so many writes are acknowledged, or every writer is through.
    async fn reach(&mut self, acked: u64) -> Result<(), String> {
        while self.course.acked.load(Ordering::Relaxed) < acked && !self.running.is_empty() {
            self.bar.set_position(self.course.acked.load(Ordering::Relaxed));
            tokio::select! {
                Some(ended) = self.running.join_next() => {
                    self.ledgers.push(ended.map_err(|error| error.to_string())??);
                }
                () = tokio::time::sleep(TICK) => {}
            }
        }
        Ok(())
    }

    /// Says something above the bar.
    fn say(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }

    /// Waits for every writer.
    async fn finish(mut self) -> Result<Vec<Ledger>, String> {
        self.reach(u64::MAX).await?;
        self.bar.finish_and_clear();
        Ok(self.ledgers)
    }
}

async fn show_list(cluster: &DemoCluster) -> Result<(), String> {
    // Any node's file names all nodes; the second is up from the first line to the last.
    let config = &cluster.nodes[1].config;
    let mut list = tokio::process::Command::new(cluster::own_program()?);
    let said = list.arg("list").arg("--config").arg(config).output().await;
    let said = said.map_err(|error| error.to_string())?;
    print!("{}", String::from_utf8_lossy(&said.stdout));
    if said.stdout.is_empty() {
        return Err(format!("towline list: {}", String::from_utf8_lossy(&said.stderr)));
    }
    Ok(())
}

fn progress_bar(writes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} writes, {per_sec}, {elapsed}");
    ProgressBar::new(writes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn suggest(cluster: &DemoCluster) {
    let ports: Vec<_> = cluster.nodes.iter().map(|node| node.resp.port()).collect();
    println!("the nodes stay up until Ctrl-C; try");
    println!("  redis-cli -p {} set hello world", ports[1]);
    println!("  redis-cli -p {} wait 2 1000", ports[1]);
    println!("  redis-cli -p {} get hello", ports[2]);
    println!(
        "  redis-cli -p {} set hello again       # a replica refuses, and says who leads",
        ports[2]
    );
    println!("  towline list --config {}", cluster.nodes[1].config.display());
    println!("  towline failover --to c --config {}", cluster.nodes[1].config.display());
}

fn failed(why: &str) -> ExitCode {
    eprintln!("demo failed: {why}");
    ExitCode::FAILURE
}

/// Ctrl-C, or the polite form of kill.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Removes the folder; nodes that were killed a moment ago may still hold it.
async fn remove(folder: &Path) {
    for _ in 0..10 {
        if std::fs::remove_dir_all(folder).is_ok() || !folder.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("could not remove {}", folder.display());
}
