//! How a node is set up: addresses, files and patience. Who votes is not among it: that is log
//! state.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use towline_protocol::id::NodeId;
use towline_protocol::machine::Timing;

use crate::upkeep::Upkeep;

/// Files with a node's certificate.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The cluster's authority, PEM.
    pub ca: PathBuf,
    /// The node's certificate, PEM.
    pub cert: PathBuf,
    /// The node's key, PEM.
    pub key: PathBuf,
}

/// Where a node is reached. Names are resolved at every dial.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its replication address, `host:port`.
    pub repl: String,
    /// Its clients' address, `host:port`.
    pub resp: String,
}

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster's name; must be the one in the data folder.
    pub cluster: String,
    /// The node's name; must be the one in the data folder.
    pub node: NodeId,
    /// The node's folder. Its log lies in `logs/<log id>` below it.
    pub data_dir: PathBuf,
    /// The address to take replication connections at.
    pub listen: SocketAddr,
    /// Every node of the cluster, this one included.
    pub peers: BTreeMap<NodeId, Peer>,
    /// The node's certificate.
    pub tls: TlsFiles,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// How long a write waits for its commit before its client is told that it is not known.
    pub commit_timeout: Duration,
    /// How long a candidate may try, and how long the others leave it alone.
    pub candidate_deadline: Duration,
    /// How long the promotion hook may take.
    pub hook_deadline: Duration,
    /// How it looks after its log.
    pub upkeep: Upkeep,
}

impl NodeConfig {
    pub(crate) fn timing(&self) -> Timing {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Timing {
            heartbeat_ms: ms(self.heartbeat).max(1),
            ask_ms: Timing::DEFAULT.ask_ms,
            candidate_ms: ms(self.candidate_deadline),
        }
    }
}
