//! What all connections share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use towline::Node;
use towline_engine::Store;
use towline_protocol::id::NodeId;

use crate::clients::Clients;
use crate::config::Config;
use crate::write_path::WritePath;

/// The version of Redis whose behaviour clients may expect.
pub const REDIS_VERSION: &str = "7.0.15";

/// A running server.
pub struct Server {
    /// The node it serves.
    pub node: Node,
    /// The node's engine.
    pub store: Arc<Store>,
    /// The path of every command that touches keys.
    pub write_path: WritePath,
    /// Who is connected.
    pub clients: Clients,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Its configuration.
    pub config: Config,
    started: Instant,
    commands: AtomicU64,
}

impl Server {
    /// A server for `node`, whose engine is `store`.
    #[must_use]
    pub fn new(node: Node, store: Arc<Store>, config: Config, address: SocketAddr) -> Self {
        let commit_timeout = config.timing.commit_timeout;
        Self {
            write_path: WritePath::new(node.clone(), Arc::clone(&store), commit_timeout),
            node,
            store,
            clients: Clients::default(),
            address,
            config,
            started: Instant::now(),
            commands: AtomicU64::new(0),
        }
    }

    /// A node's host and port for clients, as the configuration has them; none and 0 for a
    /// stranger.
    #[must_use]
    pub fn address_of(&self, node: NodeId) -> (String, String) {
        let peer = self.node.peers().get(&node).and_then(|peer| peer.resp.rsplit_once(':'));
        peer.map_or_else(
            || (String::new(), "0".to_owned()),
            |(host, port)| (host.to_owned(), port.to_owned()),
        )
    }

    /// How long it has been running, in seconds.
    #[must_use]
    pub fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Counts a command.
    pub fn count_command(&self) {
        self.commands.fetch_add(1, Ordering::Relaxed);
    }

    /// How many commands have come since the start.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }
}
