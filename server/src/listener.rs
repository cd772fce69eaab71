//! The port that clients connect to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::server::Server;

/// How long a silent client's machine may be gone before its connection ends, to the first probe.
const KEEPALIVE: Duration = Duration::from_secs(300);
/// How long to wait after a connection could not be accepted, as when there are no more files.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// Serves clients until `stop` says so; their connections are closed then.
pub async fn listen(listener: TcpListener, server: Arc<Server>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => accept(stream, address, &server, &mut connections),
                Err(error) => {
                    tracing::warn!("a client's connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = stopped(&mut stop) => break,
        }
    }
    connections.shutdown().await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone says stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn accept(
    stream: TcpStream,
    address: SocketAddr,
    server: &Arc<Server>,
    connections: &mut JoinSet<()>,
) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%address, "a client was gone before it was served: {error}");
        return;
    }
    match server.clients.enter(address, server.address) {
        Some(client) => {
            connections.spawn(Connection::new(stream, Arc::clone(server), client).serve());
        }
        None => {
            tracing::warn!(%address, "a client was refused: there are too many");
            connections.spawn(refuse(stream));
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}

async fn refuse(mut stream: TcpStream) {
    // The client may be gone; then it needs no answer.
    let _ = stream.write_all(TOO_MANY).await;
    let _ = stream.shutdown().await;
}
