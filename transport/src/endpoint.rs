//! A node's one socket: dials peers and accepts them.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Runtime, TokioRuntime, VarInt};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use towline_protocol::id::NodeId;
use tracing::{debug, info, warn};

use crate::connection::Connection;
use crate::error::{BindError, Closed, ConnectError};
use crate::settings::TransportConfig;
use crate::tls::{Credentials, Verdict};

/// Handshakes under way at once; more are refused, and their dialers try again.
const PENDING_MAX: usize = 64;
/// With this many under way, a dialer must first show that its address is its own.
const PENDING_UNPROVED_MAX: usize = 16;
/// Connections and refusals kept for [`Endpoint::accept`].
const ACCEPTED_MAX: usize = 16;
/// How long [`Endpoint::close`] waits for peers to hear of it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What an accepting side sends first, so that the dialling side knows it was let in: under TLS
/// 1.3 the dialer's half of the handshake ends before the other side has seen its certificate.
const WELCOME: &[u8] = b"towline";

/// A node's endpoint. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    context: Context,
    accepted: Mutex<mpsc::Receiver<Result<Connection, ConnectError>>>,
    acceptor: AbortHandle,
}

/// What every handshake needs.
#[derive(Debug, Clone)]
struct Context {
    quic: quinn::Endpoint,
    credentials: Credentials,
    transport: Arc<quinn::TransportConfig>,
    handshake_timeout: Duration,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Endpoint {
    /// An endpoint on a socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(
        socket: UdpSocket,
        credentials: Credentials,
        config: &TransportConfig,
    ) -> Result<Self, BindError> {
        size_buffers(&socket, config.socket_buffer as usize);
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        Self::with_socket(socket, credentials, config)
    }

    /// An endpoint on anything that behaves as a UDP socket.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn with_socket(
        socket: Arc<dyn quinn::AsyncUdpSocket>,
        credentials: Credentials,
        config: &TransportConfig,
    ) -> Result<Self, BindError> {
        config.check()?;
        let transport = config.connection();
        // Replaced for every handshake; this one tells QUIC that connections are accepted.
        let server = server_config(&credentials, &transport, &Verdict::default());
        let quic = quinn::Endpoint::new_with_abstract_socket(
            config.endpoint(),
            Some(server),
            socket,
            Arc::new(TokioRuntime),
        )?;
        let context =
            Context { quic, credentials, transport, handshake_timeout: config.handshake_timeout() };
        let (tell, accepted) = mpsc::channel(ACCEPTED_MAX);
        let acceptor = tokio::spawn(accept_all(context.clone(), tell)).abort_handle();
        Ok(Self { inner: Arc::new(Inner { context, accepted: Mutex::new(accepted), acceptor }) })
    }

    /// The address the socket is bound to.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.inner.context.quic.local_addr()
    }

    /// Dials the node `expect` at `addr`. On return both sides have accepted each other.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(
        &self,
        addr: SocketAddr,
        expect: NodeId,
    ) -> Result<Connection, ConnectError> {
        let dialled = self.inner.context.dial(addr, expect).await;
        if let Err(error) = &dialled {
            report(error);
        }
        dialled
    }

    /// The next peer that dialled, or why one was not let in; `None` once the endpoint is closed.
    /// Handshakes go on side by side whether or not this is called, up to a bound. Cancel-safe.
    pub async fn accept(&self) -> Option<Result<Connection, ConnectError>> {
        self.inner.accepted.lock().await.recv().await
    }

    /// Closes every connection, tells the peers why, and accepts no more.
    pub async fn close(&self, code: u32, text: &str) {
        let quic = &self.inner.context.quic;
        quic.close(VarInt::from_u32(code), text.as_bytes());
        // A peer that is gone is not waited for.
        let _ = timeout(CLOSE_TIMEOUT, quic.wait_idle()).await;
    }
}

/// Asks for socket buffers. A smaller grant is slower under load, not wrong.
fn size_buffers(socket: &UdpSocket, wanted: usize) {
    let options = socket2::SockRef::from(socket);
    // The kernel may clamp without an error, so what counts is what it says afterwards.
    let receive = options.set_recv_buffer_size(wanted).and_then(|()| options.recv_buffer_size());
    let send = options.set_send_buffer_size(wanted).and_then(|()| options.send_buffer_size());
    for (name, limit, granted) in
        [("receive", "net.core.rmem_max", receive), ("send", "net.core.wmem_max", send)]
    {
        let granted = granted.unwrap_or(0);
        if granted < wanted {
            info!("UDP {name} buffer is {granted} bytes, {wanted} were asked for: raise {limit}");
        }
    }
}

fn server_config(
    credentials: &Credentials,
    transport: &Arc<quinn::TransportConfig>,
    verdict: &Verdict,
) -> quinn::ServerConfig {
    let tls = QuicServerConfig::try_from(credentials.accepting(verdict))
        .expect("the provider has the suite QUIC starts with");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(transport.clone()).max_incoming(PENDING_MAX);
    config
}

/// Refusals need a person; that a peer is down is for the caller to judge.
fn report(error: &ConnectError) {
    match error {
        ConnectError::Refused { .. } | ConnectError::RefusedByPeer { .. } => warn!("{error}"),
        other => debug!("{other}"),
    }
}

async fn accept_all(context: Context, tell: mpsc::Sender<Result<Connection, ConnectError>>) {
    let mut handshakes = JoinSet::new();
    loop {
        // In this order, not at random: how many strangers knock is then nothing that a simulation
        // could come to depend on. What has ended is few, so nobody waits for long.
        let incoming = tokio::select! {
            biased;
            Some(_) = handshakes.join_next() => continue,
            incoming = context.quic.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let proved = incoming.remote_address_validated() || !incoming.may_retry();
        if handshakes.len() >= PENDING_MAX {
            incoming.refuse();
        } else if handshakes.len() >= PENDING_UNPROVED_MAX && !proved {
            // It fails only if the address was proved already.
            let _ = incoming.retry();
        } else {
            handshakes.spawn(admit(context.clone(), incoming, tell.clone()));
        }
    }
    while handshakes.join_next().await.is_some() {}
}

async fn admit(
    context: Context,
    incoming: quinn::Incoming,
    tell: mpsc::Sender<Result<Connection, ConnectError>>,
) {
    match context.answer(incoming).await {
        // Nobody listens any more only when the endpoint is gone.
        Ok(connection) => drop(tell.send(Ok(connection)).await),
        Err(error) => {
            report(&error);
            // Without waiting: strangers must not hold places that belong to peers.
            let _ = tell.try_send(Err(error));
        }
    }
}

impl Context {
    fn failed(
        &self,
        addr: SocketAddr,
        verdict: &Verdict,
        error: &quinn::ConnectionError,
    ) -> ConnectError {
        let after_ms = self.handshake_timeout.as_millis() as u64;
        ConnectError::from_handshake(addr, after_ms, verdict.get(), error)
    }

    async fn dial(&self, addr: SocketAddr, expect: NodeId) -> Result<Connection, ConnectError> {
        let verdict = Verdict::default();
        let mut target = self.credentials.identity();
        target.node = expect;
        let name = target.dns_name()?;
        let tls = QuicClientConfig::try_from(self.credentials.dialling(expect, &verdict))
            .expect("the provider has the suite QUIC starts with");
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(self.transport.clone());
        let connecting = self.quic.connect_with(config, addr, &name);
        let connecting = connecting.map_err(|error| match error {
            quinn::ConnectError::EndpointStopping => ConnectError::EndpointClosed,
            other => ConnectError::Address { addr, reason: other.to_string() },
        })?;
        let handshake = async {
            let quic = connecting.await?;
            let mut welcome = quic.accept_uni().await?;
            match welcome.read_to_end(WELCOME.len()).await {
                Ok(said) if said == WELCOME => Ok(quic),
                _ => Err(quic.close_reason().unwrap_or_else(|| {
                    quic.close(VarInt::from_u32(0), b"no welcome");
                    quinn::ConnectionError::VersionMismatch
                })),
            }
        };
        let quic = self.in_time(addr, &verdict, handshake).await?;
        connected(addr, quic, &verdict)
    }

    async fn answer(&self, incoming: quinn::Incoming) -> Result<Connection, ConnectError> {
        let addr = incoming.remote_address();
        let verdict = Verdict::default();
        let config = server_config(&self.credentials, &self.transport, &verdict);
        let handshake = async {
            let quic = incoming.accept_with(Arc::new(config))?.await?;
            let mut welcome = quic.open_uni().await?;
            // If it is lost, so is the connection, and whoever uses it is told.
            let _ = welcome.write_all(WELCOME).await;
            let _ = welcome.finish();
            Ok(quic)
        };
        let quic = self.in_time(addr, &verdict, handshake).await?;
        connected(addr, quic, &verdict)
    }

    async fn in_time(
        &self,
        addr: SocketAddr,
        verdict: &Verdict,
        handshake: impl Future<Output = Result<quinn::Connection, quinn::ConnectionError>>,
    ) -> Result<quinn::Connection, ConnectError> {
        match timeout(self.handshake_timeout, handshake).await {
            Ok(Ok(quic)) => Ok(quic),
            Ok(Err(error)) => Err(self.failed(addr, verdict, &error)),
            Err(_) => Err(self.failed(addr, verdict, &quinn::ConnectionError::TimedOut)),
        }
    }
}

fn connected(
    addr: SocketAddr,
    quic: quinn::Connection,
    verdict: &Verdict,
) -> Result<Connection, ConnectError> {
    match verdict.get() {
        Some(Ok(peer)) => Ok(Connection::new(quic, *peer)),
        Some(Err(reason)) => Err(ConnectError::Refused { addr, reason: reason.clone() }),
        // TLS asks for certificates on both sides, so this cannot be; if it is, nobody is let in.
        None => Err(ConnectError::Lost {
            addr,
            cause: Closed::Broken("the peer showed no certificate".to_owned()),
        }),
    }
}
