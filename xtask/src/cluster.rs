//! A Towline cluster on this machine, founded as a person would found it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{Folder, Running, output, sleep};
use crate::resp::{Reply, Resp};

/// How long a cluster may take to come up.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long one command may take; longer than every delay the tests inject.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// One node.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) resp: SocketAddr,
    running: Running,
    log: PathBuf,
}

/// The nodes, primary first. They end with this handle.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// Founds a cluster of `names` in `folder`, of which `w` must flush before a write is
    /// acknowledged, and starts it; the first becomes primary.
    pub(crate) fn start(
        towline: &Path,
        folder: &Folder,
        names: &[&'static str],
        w: usize,
    ) -> Result<Self> {
        let founded = folder.path().join("cluster");
        let addresses: Vec<_> =
            names.iter().map(|_| Ok((free_tcp()?, free_udp()?))).collect::<Result<_>>()?;
        let mut init = Command::new(towline);
        init.arg("init").args(["--cluster", "xtask", "--w", &w.to_string(), "--dir"]).arg(&founded);
        for (name, (resp, repl)) in names.iter().zip(&addresses) {
            init.args(["--node", &format!("{name}={repl},{resp}")]);
        }
        output(&mut init)?;
        let mut nodes = Vec::new();
        for (index, (name, (resp, _))) in names.iter().zip(&addresses).enumerate() {
            let role = if index == 0 { "primary" } else { "replica" };
            let config = founded.join(name).join("towline.toml");
            let log = folder.path().join(format!("{name}.log"));
            let mut command = Command::new(towline.with_file_name(role));
            let running = Running::serve(command.arg("--config").arg(config), &log)?;
            nodes.push(Node { name, resp: *resp, running, log });
        }
        let mut cluster = Self { nodes };
        cluster.wait_until_open()?;
        Ok(cluster)
    }

    /// The primary's client address.
    pub(crate) fn primary(&self) -> SocketAddr {
        self.nodes[0].resp
    }

    /// A connection to the primary.
    pub(crate) fn connect(&self) -> Result<Resp> {
        Resp::connect(self.primary(), CALL_LIMIT)
    }

    /// Waits until a write is acknowledged and every replica is streaming.
    fn wait_until_open(&mut self) -> Result<()> {
        let started = Instant::now();
        let replicas = (self.nodes.len() - 1).to_string();
        loop {
            for node in &mut self.nodes {
                if let Some(status) = node.running.ended()? {
                    let said = std::fs::read_to_string(&node.log).unwrap_or_default();
                    bail!("node {} ended with {status}:\n{said}", node.name);
                }
            }
            let why = match self.is_open(&replicas) {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            if started.elapsed() > START_LIMIT {
                return Err(why).context("the cluster did not open");
            }
            sleep(Duration::from_millis(50))?;
        }
    }

    fn is_open(&self, replicas: &str) -> Result<()> {
        let mut resp = Resp::connect(self.primary(), Duration::from_secs(2))?;
        let written = resp.call(&["SET", "xtask:open", "1"])?;
        if written != Reply::Text("OK".to_owned()) {
            bail!("SET answered {written:?}");
        }
        let applied = resp.call(&["WAIT", replicas, "1000"])?;
        if applied != Reply::Text(replicas.to_owned()) {
            bail!("WAIT {replicas} answered {applied:?}");
        }
        Ok(())
    }
}

impl Node {
    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }
}

/// A TCP address of this machine that is free now.
pub(crate) fn free_tcp() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn free_udp() -> Result<SocketAddr> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
