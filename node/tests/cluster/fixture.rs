//! A cluster in one process.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use towline::{
    Engine, EngineError, NoHook, Node, NodeConfig, NodeError, NodeState, Peer, PromotionHook,
    TlsFiles, Upkeep, WaitError,
};
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::voters::{Voter, Voters};
use towline_transport::{CertificateAuthority, Credentials, Endpoint, TransportConfig};
use towline_wal::{Control, Founding, Role};

/// A map whose records are `key=value`.
#[derive(Default)]
pub(crate) struct Map {
    state: Mutex<(Lsn, BTreeMap<String, String>)>,
}

impl Engine for Map {
    fn apply(&self, end: Lsn, payload: &[u8]) -> Result<(), EngineError> {
        let text = std::str::from_utf8(payload).map_err(EngineError::new)?;
        let (key, value) = text.split_once('=').ok_or_else(|| EngineError::new("no pair"))?;
        let mut state = self.state.lock().unwrap();
        assert!(end > state.0, "{end} was applied before");
        state.0 = end;
        state.1.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn applied(&self) -> Lsn {
        self.state.lock().unwrap().0
    }

    fn durable(&self) -> Lsn {
        self.applied()
    }

    fn snapshot(&self, _out: &mut dyn Write) -> Result<Lsn, EngineError> {
        Err(EngineError::new("a map takes no snapshots"))
    }

    fn restore(&self, _from: &mut dyn Read) -> Result<Lsn, EngineError> {
        Err(EngineError::new("a map takes no snapshots"))
    }
}

struct Member {
    dir: PathBuf,
    engine: Arc<Map>,
    node: Option<Node>,
}

pub(crate) struct Cluster {
    /// The promotion hook of nodes that are started from now on.
    pub(crate) hook: Arc<dyn PromotionHook>,
    pub(crate) upkeep: Upkeep,
    folder: TempDir,
    peers: BTreeMap<NodeId, Peer>,
    members: BTreeMap<String, Member>,
}

impl Cluster {
    pub(crate) fn found(names: &[&str], w: Option<u8>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, log) = (ClusterId(7), LogId(8));
        let authority = CertificateAuthority::new(&cluster, "test").unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.cert_pem()).unwrap();
        let voter = |(n, name): (usize, &&str)| Voter {
            node: name.parse().unwrap(),
            incarnation: Incarnation(100 + n as u64),
            zone: String::new(),
        };
        let voters = Voters::new(names.iter().enumerate().map(voter).collect(), w).unwrap();
        let (mut peers, mut members) = (BTreeMap::new(), BTreeMap::new());
        for (n, name) in names.iter().enumerate() {
            let node: NodeId = name.parse().unwrap();
            let dir = folder.path().join(name);
            let founding = Founding {
                cluster,
                cluster_name: "test".to_owned(),
                log,
                node,
                incarnation: Incarnation(100 + n as u64),
                segment_size: SegmentSize::new(1 << 20).unwrap(),
                role: if n == 0 { Role::Primary } else { Role::Replica },
                voters: voters.clone(),
            };
            towline_wal::found(&dir.join("logs").join(log.to_string()), &founding).unwrap();
            let issued = authority.issue(node).unwrap();
            std::fs::write(dir.join("cert.pem"), issued.cert_pem).unwrap();
            std::fs::write(dir.join("key.pem"), issued.key_pem).unwrap();
            let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            peers.insert(node, Peer { repl: free.to_string(), resp: free.to_string() });
            let engine = Arc::new(Map::default());
            members.insert((*name).to_owned(), Member { dir, engine, node: None });
        }
        Self { hook: Arc::new(NoHook), upkeep: Upkeep::default(), folder, peers, members }
    }

    pub(crate) async fn start(&mut self, name: &str) {
        let node: NodeId = name.parse().unwrap();
        let member = self.members.get_mut(name).unwrap();
        let config = NodeConfig {
            cluster: "test".to_owned(),
            node,
            data_dir: member.dir.clone(),
            listen: self.peers[&node].repl.parse().unwrap(),
            peers: self.peers.clone(),
            tls: TlsFiles {
                ca: self.folder.path().join("ca.pem"),
                cert: member.dir.join("cert.pem"),
                key: member.dir.join("key.pem"),
            },
            heartbeat: Duration::from_millis(50),
            commit_timeout: Duration::from_secs(2),
            candidate_deadline: Duration::from_secs(5),
            hook_deadline: Duration::from_secs(5),
            upkeep: self.upkeep,
        };
        let engine: Arc<dyn Engine> = member.engine.clone();
        let deadline = Instant::now() + Duration::from_secs(10);
        member.node = loop {
            match Node::start(config.clone(), Arc::clone(&engine), Arc::clone(&self.hook)).await {
                Ok(node) => break Some(node),
                // The last tasks of a node that was stopped may hold its socket for a moment.
                Err(NodeError::Io { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.peers[&name.parse().unwrap()].repl.parse().unwrap()
    }

    /// Where the log of a node lies.
    pub(crate) fn log_dir(&self, name: &str) -> PathBuf {
        self.members[name].dir.join("logs").join(LogId(8).to_string())
    }

    /// What the control file of a node says.
    pub(crate) fn control(&self, name: &str) -> Control {
        towline_wal::read_control(&self.log_dir(name)).unwrap()
    }

    /// An endpoint with the certificate of a node that is not running.
    pub(crate) fn impostor(&self, name: &str, listen: SocketAddr) -> Endpoint {
        let dir = &self.members[name].dir;
        let read = |path: PathBuf| std::fs::read(path).unwrap();
        let (ca, cert) = (read(self.folder.path().join("ca.pem")), read(dir.join("cert.pem")));
        let shown = Credentials::from_pem(&ca, &cert, &read(dir.join("key.pem"))).unwrap();
        let socket = UdpSocket::bind(listen).unwrap();
        Endpoint::bind(socket, shown, &TransportConfig::default()).unwrap()
    }

    pub(crate) async fn start_all(&mut self) {
        for name in self.members.keys().cloned().collect::<Vec<_>>() {
            self.start(&name).await;
        }
    }

    /// Ends a node; what its disk holds is what a crash of the process would leave.
    pub(crate) async fn kill(&mut self, name: &str) {
        let node = self.members.get_mut(name).unwrap().node.take().unwrap();
        node.shutdown().await;
    }

    pub(crate) async fn stop_all(&mut self) {
        for member in self.members.values_mut() {
            if let Some(node) = member.node.take() {
                node.shutdown().await;
            }
        }
    }

    /// The engines lose their state, as memory does.
    pub(crate) fn forget_states(&mut self) {
        for member in self.members.values_mut() {
            member.engine = Arc::new(Map::default());
        }
    }

    pub(crate) fn node(&self, name: &str) -> &Node {
        self.members[name].node.as_ref().unwrap()
    }

    pub(crate) fn epoch(&self, name: &str) -> Epoch {
        self.node(name).leadership().borrow().open.unwrap()
    }

    pub(crate) fn state(&self, name: &str) -> BTreeMap<String, String> {
        self.members[name].engine.state.lock().unwrap().1.clone()
    }

    /// Waits for a node that is open for clients and says that it has its quorum.
    pub(crate) async fn primary(&self, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        loop {
            for (name, member) in &self.members {
                let Some(node) = &member.node else { continue };
                let open = node.leadership().borrow().open;
                let Some(epoch) = open else { continue };
                if node.read_round(epoch).await.is_ok() {
                    return name.clone();
                }
            }
            assert!(Instant::now() < deadline, "no primary: {}", self.report());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn write(
        &self,
        primary: &str,
        key: &str,
        value: &str,
    ) -> Result<(), WaitError> {
        let node = self.node(primary);
        let open = node.leadership().borrow().open;
        let epoch = open.ok_or(WaitError::Deposed)?;
        let record = format!("{key}={value}");
        let proposed = node.propose(epoch, record.as_bytes()).map_err(|_| WaitError::Deposed)?;
        node.committed(epoch, proposed.end).await
    }

    /// Waits until every running node has applied the same.
    pub(crate) async fn converge(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let running = self.members.values().filter(|member| member.node.is_some());
            let states: Vec<_> =
                running.map(|member| member.engine.state.lock().unwrap().clone()).collect();
            let settled = self.members.values().flat_map(|member| &member.node).all(|node| {
                let state = node.leadership().borrow().state;
                let marks = node.watermarks();
                matches!(state, NodeState::Primary | NodeState::Streaming)
                    && marks.applied == marks.appended
            });
            if settled && states.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            assert!(Instant::now() < deadline, "not settled: {}", self.report());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn report(&self) -> String {
        let nodes = self.members.values().flat_map(|member| &member.node);
        nodes.map(|node| format!("{:#?}\n", node.status())).collect()
    }
}
