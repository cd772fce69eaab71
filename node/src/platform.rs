//! What a node stands on: where its log lies, what its packets go through, and where its slow
//! steps run. The real machine in production; a simulator hands in parts of its own.
//!
//! The clock is tokio's on both, so that a simulator may stop it.

use std::fmt;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use towline_transport::simulation::AsyncUdpSocket;
use towline_transport::{Credentials, Endpoint, TransportConfig};
use towline_wal::{Disk, FileDisk};

use crate::config::NodeConfig;
use crate::error::NodeError;

/// What a node stands on.
#[derive(Clone, Debug)]
pub struct Platform {
    simulated: Option<Arc<Simulated>>,
}

/// A machine that is simulated: nothing of the node blocks, and nothing runs on a thread of its
/// own, so that one thread runs whole clusters, and runs them the same way again.
pub struct Simulated {
    /// Stands in for the disk.
    pub disk: Arc<dyn Disk>,
    /// Stands in for the UDP socket.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Stands in for the files with the certificate.
    pub credentials: Credentials,
    /// The settings of QUIC.
    pub transport: TransportConfig,
    /// How long the next sync of the log takes.
    pub sync_delay: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Platform {
    /// This machine.
    #[must_use]
    pub const fn real() -> Self {
        Self { simulated: None }
    }

    /// A simulated machine.
    #[must_use]
    pub fn simulated(parts: Simulated) -> Self {
        Self { simulated: Some(Arc::new(parts)) }
    }

    /// The disk.
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        match &self.simulated {
            None => Arc::new(FileDisk),
            Some(simulated) => Arc::clone(&simulated.disk),
        }
    }

    /// Whether the node may have threads of its own.
    pub(crate) const fn has_threads(&self) -> bool {
        self.simulated.is_none()
    }

    /// Runs a step that waits for the disk or for an embedder's code, where that holds up nobody
    /// else.
    ///
    /// # Errors
    /// The step panicked.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match &self.simulated {
            None => tokio::task::spawn_blocking(step).await,
            Some(_) => Ok(step()),
        }
    }

    /// What somebody who syncs the log waits for; `None` where the log has a thread to sync it.
    pub(crate) fn sync_delay(&self) -> Option<Duration> {
        self.simulated.as_ref().map(|simulated| (simulated.sync_delay)())
    }

    /// The node's certificate, from its files.
    pub(crate) fn credentials(&self, config: &NodeConfig) -> Result<Credentials, NodeError> {
        if let Some(simulated) = &self.simulated {
            return Ok(simulated.credentials.clone());
        }
        let pem = |path: &std::path::Path| {
            let what = format!("reading {}", path.display());
            std::fs::read(path).map_err(|source| NodeError::Io { what, source })
        };
        let tls = &config.tls;
        Credentials::from_pem(&pem(&tls.ca)?, &pem(&tls.cert)?, &pem(&tls.key)?)
            .map_err(|error| NodeError::Transport(error.to_string()))
    }

    /// The endpoint at the configured address.
    pub(crate) fn endpoint(
        &self,
        config: &NodeConfig,
        credentials: Credentials,
    ) -> Result<Endpoint, NodeError> {
        let bound = match &self.simulated {
            None => {
                let what = format!("listening for replication at {}", config.listen);
                let socket = UdpSocket::bind(config.listen)
                    .map_err(|source| NodeError::Io { what, source })?;
                Endpoint::bind(socket, credentials, &TransportConfig::default())
            }
            Some(simulated) => {
                let socket = Arc::clone(&simulated.socket);
                Endpoint::with_socket(socket, credentials, &simulated.transport)
            }
        };
        bound.map_err(|error| NodeError::Transport(error.to_string()))
    }
}
