//! The three nodes: real processes with their own folders, addresses and certificates.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::client::{Client, Reply};
use super::relay::{Relay, Side};

/// The nodes' names; the first begins as primary.
pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
/// How long the cluster may take to reach a state it must reach.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(50);

/// One node, up or down.
pub(super) struct DemoNode {
    pub(super) name: &'static str,
    pub(super) resp: SocketAddr,
    pub(super) repl: SocketAddr,
    /// Its configuration file.
    pub(super) config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// The nodes, and the links to and from the first. All end with this handle.
pub(super) struct DemoCluster {
    pub(super) nodes: Vec<DemoNode>,
    links: Vec<Relay>,
}

impl DemoCluster {
    /// Founds a cluster of three in `folder`, two of which must flush every write.
    pub(super) async fn found(folder: &Path) -> Result<Self, String> {
        let mut init = Command::new(own_program()?);
        init.args(["init", "--cluster", "demo", "--w", "2", "--dir"]).arg(folder);
        let mut nodes = Vec::new();
        for name in NAMES {
            let (resp, repl) = free_addresses().map_err(|error| error.to_string())?;
            init.args(["--node", &format!("{name}={repl},{resp}")]);
            let config = folder.join(name).join("towline.toml");
            let log = folder.join(format!("{name}.log"));
            nodes.push(DemoNode { name, resp, repl, config, log, child: None });
        }
        let said = init.output().await.map_err(|error| error.to_string())?;
        if !said.status.success() {
            return Err(format!("towline init: {}", String::from_utf8_lossy(&said.stderr)));
        }
        Ok(Self { nodes, links: Vec::new() })
    }

    /// Starts all three, the first as primary and behind links that can be held.
    pub(super) async fn start(&mut self) -> Result<(), String> {
        let mut detours: [Vec<(String, SocketAddr)>; 3] = Default::default();
        for index in 1..NAMES.len() {
            for (from, to) in [(0, index), (index, 0)] {
                let first = if from == 0 { Side::Dialer } else { Side::Peer };
                let relay = Relay::open(self.nodes[to].repl, first).await;
                let relay = relay.map_err(|error| format!("a link: {error}"))?;
                detours[from].push((variable(NAMES[to]), relay.address()));
                self.links.push(relay);
            }
        }
        for (index, detours) in detours.iter().enumerate() {
            self.nodes[index].start(if index == 0 { "primary" } else { "replica" }, detours)?;
        }
        self.settle("two replicas to follow", async |cluster| {
            let mut client = Client::connect(cluster.nodes[0].resp).await.ok()?;
            let written = client.call(&[b"SET", b"ready", b"1"]).await.ok()?;
            let applied = client.call(&[b"WAIT", b"2", b"1000"]).await.ok()?;
            let open = written == Reply::Status("OK".to_owned()) && applied == Reply::Integer(2);
            open.then_some(())
        })
        .await
    }

    /// Holds or releases what the first node sends to the others.
    pub(super) fn hold_links(&self, held: bool) {
        for link in &self.links {
            link.hold(held);
        }
    }

    /// Waits until every node has applied the same, and returns (position, keys, digest) of each.
    pub(super) async fn settled_digests(&self) -> Result<Vec<(String, Vec<String>)>, String> {
        self.settle("all nodes to catch up", async |cluster| {
            let mut digests = Vec::new();
            for node in &cluster.nodes {
                digests.push((node.name.to_owned(), node.digest().await?));
            }
            let equal = digests.windows(2).all(|pair| pair[0].1[0] == pair[1].1[0]);
            equal.then_some(digests)
        })
        .await
    }

    async fn settle<T>(
        &self,
        what: &str,
        mut ask: impl AsyncFnMut(&Self) -> Option<T>,
    ) -> Result<T, String> {
        let started = Instant::now();
        while started.elapsed() < SETTLE_LIMIT {
            if let Some(settled) = ask(self).await {
                return Ok(settled);
            }
            tokio::time::sleep(POLL).await;
        }
        Err(format!("waited {SETTLE_LIMIT:?} in vain for {what}; the nodes' logs say why"))
    }
}

impl DemoNode {
    /// Starts it. `detours` are settings that lead its links through relays.
    pub(super) fn start(
        &mut self,
        role: &str,
        detours: &[(String, SocketAddr)],
    ) -> Result<(), String> {
        let wrong = |error: std::io::Error| format!("node {}: {error}", self.name);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(wrong)?;
        let mut command = Command::new(own_program()?);
        command.args(["node", role, "--exit-on-stdin-close", "--config"]).arg(&self.config);
        command.envs(detours.iter().map(|(name, address)| (name, address.to_string())));
        // The pipe closes when the demo ends, however it ends, and the node with it.
        command.stdin(Stdio::piped()).stdout(log.try_clone().map_err(wrong)?).stderr(log);
        self.child = Some(command.kill_on_drop(true).spawn().map_err(wrong)?);
        Ok(())
    }

    /// The folder of its log and state, as `towline init` lays it out.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.config.with_file_name("data")
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub(super) async fn kill(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        child.kill().await.map_err(|error| format!("node {}: {error}", self.name))
    }

    /// Makes it the primary.
    pub(super) async fn promote(&self) -> Result<(), String> {
        match self.ask(&[b"TOWLINE", b"FAILOVER", b"TIMEOUT", b"10000"]).await? {
            Reply::Error(why) => Err(format!("TOWLINE FAILOVER on {}: {why}", self.name)),
            _ => Ok(()),
        }
    }

    /// Bytes cut from its log since it was last started.
    pub(super) async fn cut_bytes(&self) -> Result<u64, String> {
        let status = self.ask(&[b"TOWLINE", b"STATUS"]).await?.text().unwrap_or_default();
        let status: serde_json::Value =
            serde_json::from_str(&status).map_err(|error| format!("{status}: {error}"))?;
        status["cut_bytes"].as_u64().ok_or_else(|| format!("no cut_bytes in {status}"))
    }

    /// Its applied position, how many keys it holds, and the digest of its state.
    async fn digest(&self) -> Option<Vec<String>> {
        match self.ask(&[b"TOWLINE", b"DIGEST"]).await.ok()? {
            Reply::Array(parts) if parts.len() == 3 => parts.iter().map(Reply::text).collect(),
            _ => None,
        }
    }

    async fn ask(&self, words: &[&[u8]]) -> Result<Reply, String> {
        let wrong = |error: std::io::Error| format!("node {} at {}: {error}", self.name, self.resp);
        let mut client = Client::connect(self.resp).await.map_err(wrong)?;
        client.call(words).await.map_err(wrong)
    }
}

/// This very program.
pub(super) fn own_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))
}

/// The variable that overrides where a peer is dialed.
fn variable(peer: &str) -> String {
    format!("TOWLINE_PEERS__{}__REPL", peer.to_uppercase())
}

fn free_addresses() -> std::io::Result<(SocketAddr, SocketAddr)> {
    let resp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let repl = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    Ok((resp, repl))
}
