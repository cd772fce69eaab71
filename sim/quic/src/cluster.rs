//! The nodes of a run: founding, starting and ending them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use towline::platform::{Platform, Simulated};
use towline::{Engine, NoHook, Node, NodeConfig, NodeState, Peer, TlsFiles};
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::SegmentSize;
use towline_protocol::voters::{Voter, Voters};
use towline_transport::{Credentials, TransportConfig};
use towline_wal::{Founding, Role};

use crate::disk::{HostDisk, LoggedRecord};
use crate::engine::List;
use crate::ledger::Ledger;
use crate::network::Network;
use crate::random::Random;
use crate::socket::Socket;
use crate::trace::Trace;

const CLUSTER: ClusterId = ClusterId(7);
const LOG: LogId = LogId(8);
/// As small as they get, so that a run fills many.
const SEGMENT: SegmentSize = SegmentSize::MIN;

/// Names of nodes, in the order of founding.
pub(crate) const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What all nodes of a run share, and the nodes.
pub(crate) struct Cluster {
    pub(crate) network: Network,
    pub(crate) trace: Trace,
    pub(crate) ledger: Arc<Ledger>,
    peers: BTreeMap<NodeId, Peer>,
    members: Vec<Member>,
}

/// A node with its machine.
struct Member {
    name: NodeId,
    address: SocketAddr,
    credentials: Credentials,
    disk: HostDisk,
    state: Mutex<State>,
}

struct State {
    random: Random,
    engine: Arc<List>,
    node: Option<Node>,
    /// Whether its process is about to end in order; until then none can take its place.
    stopping: bool,
    /// Grows with every life; whoever waits for a node learns of its end.
    life: watch::Sender<u64>,
}

/// A node that says it is open for clients.
pub(crate) struct OpenNode {
    pub(crate) node: Node,
    pub(crate) engine: Arc<List>,
    pub(crate) epoch: Epoch,
    /// Changes when the node's process ends.
    pub(crate) life: watch::Receiver<u64>,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is killed; what it stored is still there.
    Kill,
    /// Its machine loses power; only what was synced is still there.
    PowerCut,
}

impl Cluster {
    /// Founds a cluster of so many voters. Nothing runs yet.
    pub(crate) fn found(
        size: usize,
        credentials: &[Credentials],
        random: &Random,
        trace: &Trace,
    ) -> Arc<Self> {
        let names: Vec<NodeId> = names(size);
        let voter = |(n, node): (usize, &NodeId)| Voter {
            node: *node,
            incarnation: Incarnation(100 + n as u64),
            zone: String::new(),
        };
        let voters = Voters::new(names.iter().enumerate().map(voter).collect(), None)
            .expect("a majority commits");
        let ledger = Arc::new(Ledger::new(trace.clone()));
        let (mut peers, mut members) = (BTreeMap::new(), Vec::new());
        for (n, (name, credentials)) in names.iter().zip(credentials).enumerate() {
            let address = SocketAddr::from(([10, 0, 0, n as u8 + 1], 7000));
            let repl = address.to_string();
            peers.insert(*name, Peer { resp: repl.clone(), repl });
            let random = random.fork(name.as_str());
            let founding = Founding {
                cluster: CLUSTER,
                cluster_name: "simulated".to_owned(),
                log: LOG,
                node: *name,
                incarnation: Incarnation(100 + n as u64),
                segment_size: SEGMENT,
                role: if n == 0 { Role::Primary } else { Role::Replica },
                voters: voters.clone(),
            };
            let disk = HostDisk::found(random.fork("disk").next(), &founding);
            let engine = Arc::new(List::new(*name, Arc::clone(&ledger)));
            let life = watch::Sender::new(0);
            let state = Mutex::new(State { random, engine, node: None, stopping: false, life });
            members.push(Member {
                name: *name,
                address,
                credentials: credentials.clone(),
                disk,
                state,
            });
        }
        let network = Network::new(random.fork("network"), trace.clone());
        Arc::new(Self { network, trace: trace.clone(), ledger, peers, members })
    }

    /// How many nodes there are.
    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn address(&self, n: usize) -> SocketAddr {
        self.members[n].address
    }

    pub(crate) fn node(&self, n: usize) -> Option<Node> {
        self.members[n].state().node.clone()
    }

    /// The open node of the highest epoch.
    pub(crate) fn leading(&self) -> Option<usize> {
        let open = |member: &Member| member.state().node.as_ref()?.leadership().borrow().open;
        let open =
            self.members.iter().enumerate().filter_map(|(n, member)| Some((open(member)?, n)));
        open.max().map(|(_, n)| n)
    }

    /// Starts a node's process, unless it runs.
    pub(crate) async fn start(&self, n: usize) {
        let member = &self.members[n];
        let (platform, engine) = {
            let mut state = member.state();
            if state.node.is_some() || state.stopping {
                return;
            }
            (self.platform(member, &mut state.random), Arc::clone(&state.engine))
        };
        let config = NodeConfig {
            cluster: "simulated".to_owned(),
            node: member.name,
            data_dir: member.disk.data_dir().to_owned(),
            listen: member.address,
            peers: self.peers.clone(),
            tls: TlsFiles { ca: PathBuf::new(), cert: PathBuf::new(), key: PathBuf::new() },
            heartbeat: Duration::from_millis(100),
            commit_timeout: Duration::from_secs(2),
            candidate_deadline: Duration::from_secs(5),
            hook_deadline: Duration::from_secs(5),
            upkeep: towline::Upkeep::default(),
        };
        self.trace.event(format_args!("{} starts", member.name));
        match Node::start_on(platform, config, engine, Arc::new(NoHook)).await {
            Ok(node) => member.state().node = Some(node),
            Err(error) => {
                self.network.unplug(member.address);
                let what = format!("{} does not start: {error}", member.name);
                // An operator tries again.
                if member.disk.fails() {
                    self.trace.event(what)
                } else {
                    self.ledger.violated(what)
                }
            }
        }
    }

    fn platform(&self, member: &Member, random: &mut Random) -> Platform {
        let seed = random.next();
        let delays = Mutex::new(Random::new(seed));
        let slow = random.chance(150);
        let transport = TransportConfig { rng_seed: Some(random.bytes()), ..Default::default() };
        Platform::simulated(Simulated {
            disk: member.disk.disk(),
            socket: Socket::plug(&self.network, member.address),
            credentials: member.credentials.clone(),
            transport,
            sync_delay: Box::new(move || sync_delay(&mut lock(&delays), slow)),
        })
    }

    /// Ends a node's process, if it runs.
    pub(crate) fn end(&self, n: usize, how: End) {
        let member = &self.members[n];
        let mut state = member.state();
        let Some(node) = state.node.take() else { return };
        self.trace.event(format_args!("{}: {how:?}", member.name));
        node.abort();
        self.network.unplug(member.address);
        member.disk.end(how);
        state.life.send_modify(|life| *life += 1);
        let holds = state.engine.applied().len() as u64;
        let keep = if state.random.chance(500) { holds } else { state.random.below(holds + 1) };
        state.engine = Arc::new(state.engine.reborn(keep as usize));
    }

    /// The next sync on a node's disk fails.
    pub(crate) fn fail_a_sync(&self, n: usize) {
        let member = &self.members[n];
        self.trace.event(format_args!("{}: the next sync fails", member.name));
        member.disk.fail_a_sync();
    }

    /// A node's disk is full, or has room again.
    pub(crate) fn set_full(&self, n: usize, full: bool) {
        let member = &self.members[n];
        self.trace.event(format_args!("{}: its disk is full: {full}", member.name));
        member.disk.set_full(full);
    }

    /// No disk fails any more. A node that its disk made give up only a restart helps, and it
    /// gets one; no other may have given up.
    pub(crate) fn mend_disks(&self) {
        for (n, member) in self.members.iter().enumerate() {
            let node = member.state().node.clone();
            let failed =
                node.is_some_and(|node| node.status().leadership.state == NodeState::Failed);
            if failed && !member.disk.fails() {
                self.ledger.violated(format!("{} failed:\n{}", member.name, self.report()));
            }
            if failed {
                self.end(n, End::Kill);
            }
            member.disk.mend();
        }
    }

    /// Stops a node in order.
    pub(crate) async fn stop(&self, n: usize) {
        let member = &self.members[n];
        let node = {
            let mut state = member.state();
            state.stopping |= state.node.is_some();
            state.node.take()
        };
        let Some(node) = node else { return };
        node.shutdown().await;
        self.network.unplug(member.address);
        let mut state = member.state();
        state.stopping = false;
        state.life.send_modify(|life| *life += 1);
    }

    /// The nodes that say they are open; more than one while a primary does not know yet that it
    /// was replaced.
    pub(crate) fn open_nodes(&self) -> Vec<OpenNode> {
        let open = |member: &Member| {
            let state = member.state();
            let node = state.node.clone()?;
            let epoch = node.leadership().borrow().open?;
            let (engine, life) = (Arc::clone(&state.engine), state.life.subscribe());
            Some(OpenNode { node, engine, epoch, life })
        };
        self.members.iter().filter_map(open).collect()
    }

    /// Whether every node follows or leads, and all have applied the same, which is everything.
    pub(crate) fn settled(&self) -> bool {
        let mut ends = Vec::new();
        for member in &self.members {
            let state = member.state();
            let Some(node) = &state.node else { return false };
            let (marks, now) = (node.watermarks(), node.leadership().borrow().state);
            if !matches!(now, NodeState::Primary | NodeState::Streaming)
                || marks.applied != marks.appended
            {
                return false;
            }
            ends.push((marks, Engine::applied(&*state.engine)));
        }
        ends.windows(2).all(|pair| pair[0].0.applied == pair[1].0.applied)
            && ends.windows(2).all(|pair| pair[0].1 == pair[1].1)
    }

    /// What every node says of itself.
    pub(crate) fn report(&self) -> String {
        let mut report = String::new();
        for member in &self.members {
            let state = member.state();
            let (name, engine) = (member.name, Engine::applied(&*state.engine));
            let line = match &state.node {
                None => format!("  {name}: down\n"),
                Some(node) => {
                    let status = node.status();
                    format!(
                        "  {name}: {:?}, last epoch {}, {:?}, engine {engine}; {}\n",
                        status.leadership, status.epoch, status.watermarks, status.reason
                    )
                }
            };
            report.push_str(&line);
        }
        report
    }

    /// Compares what every node holds with what clients and engines saw.
    pub(crate) fn compare(&self) {
        for member in &self.members {
            let state = member.state();
            self.ledger.settle(member.name, &state.engine.applied());
        }
    }

    /// Compares the logs of nodes that are stopped, record by record, and each with its engine.
    pub(crate) fn compare_logs(&self) {
        let mut first: Option<Vec<LoggedRecord>> = None;
        for member in &self.members {
            let records = match member.disk.records() {
                Ok(records) => records,
                Err(error) => {
                    self.ledger.violated(format!("the log of {}: {error}", member.name));
                    continue;
                }
            };
            let logged = records.iter().filter_map(LoggedRecord::value);
            if !logged.eq(member.state().engine.applied().iter().copied()) {
                self.ledger.violated(format!("{}: log and engine differ", member.name));
            }
            if *first.get_or_insert_with(|| records.clone()) != records {
                self.ledger.violated(format!("the log of {} differs", member.name));
            }
        }
    }
}

impl Member {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names of so many nodes.
pub(crate) fn names(size: usize) -> Vec<NodeId> {
    NAMES[..size].iter().map(|name| name.parse().expect("it is a name")).collect()
}

/// The cluster every run is of.
pub(crate) const fn cluster_id() -> ClusterId {
    CLUSTER
}

/// Mostly that of a good disk; sometimes one that is busy.
const fn sync_delay(random: &mut Random, slow: bool) -> Duration {
    if slow || random.chance(20) { random.millis(20, 200) } else { random.micros(200, 3_000) }
}
