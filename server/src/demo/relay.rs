//! A link between two nodes that can be held: a UDP relay in the demo's own process.
//!
//! The node that dials is told the relay's address instead of its peer's. Every datagram is
//! passed on both ways; while the link is held, what the held side sends is dropped, as by a cable
//! with one broken wire. The other direction goes on: so a primary still hears the acks of what it
//! had sent, takes more writes, and has a tail that nobody else has. The nodes themselves know
//! nothing of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// The largest UDP datagram.
const DATAGRAM_MAX_BYTES: usize = 64 << 10;
/// Datagrams taken from one side before the other has its turn.
const BATCH: usize = 64;

/// Whose datagrams a held link drops.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The node that dials.
    Dialer,
    /// The node that is dialed.
    Peer,
}

/// A link that can be held. It ends with this handle.
pub(super) struct Relay {
    address: SocketAddr,
    held: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// A link to `peer` on which `side` can be held.
    pub(super) async fn open(peer: SocketAddr, side: Side) -> io::Result<Self> {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        far.connect(peer).await?;
        let address = near.local_addr()?;
        let held = Arc::new(AtomicBool::new(false));
        let link = Link { near, far, side, held: Arc::clone(&held), dialer: None };
        Ok(Self { address, held, task: tokio::spawn(link.pass()) })
    }

    /// Where to dial.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops everything that the held side sends from now on, or no longer.
    pub(super) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Link {
    /// The side that is dialed.
    near: UdpSocket,
    /// The side of the peer.
    far: UdpSocket,
    side: Side,
    held: Arc<AtomicBool>,
    /// Who dialed last; a node has one socket for all it dials.
    dialer: Option<SocketAddr>,
}

impl Link {
    fn passes(&self, from: Side) -> bool {
        from != self.side || !self.held.load(Ordering::SeqCst)
    }

    async fn pass(mut self) {
        let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
        loop {
            // Errors here are the peer's port being closed while it is down: nothing to pass on.
            tokio::select! {
                _ = self.near.readable() => self.pass_far(&mut buffer).await,
                _ = self.far.readable() => self.pass_near(&mut buffer).await,
            }
        }
    }

    async fn pass_far(&mut self, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Ok((len, from)) = self.near.try_recv_from(buffer) else {
                return;
            };
            self.dialer = Some(from);
            if self.passes(Side::Dialer) {
                let _ = self.far.send(&buffer[..len]).await;
            }
        }
    }

    async fn pass_near(&mut self, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Ok(len) = self.far.try_recv(buffer) else {
                return;
            };
            let Some(dialer) = self.dialer else { continue };
            if self.passes(Side::Peer) {
                let _ = self.near.send_to(&buffer[..len], dialer).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_held_link_drops_what_one_side_sends_and_a_released_one_nothing() {
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let dialer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Relay::open(peer.local_addr().unwrap(), Side::Peer).await.unwrap();
        let mut buffer = [0; 64];
        dialer.send_to(b"there", relay.address()).await.unwrap();
        let (len, relayed) = peer.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"there");
        peer.send_to(b"back", relayed).await.unwrap();
        let len = dialer.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"back");

        relay.hold(true);
        let short = Duration::from_millis(100);
        peer.send_to(b"lost", relayed).await.unwrap();
        assert!(timeout(short, dialer.recv(&mut buffer)).await.is_err());
        dialer.send_to(b"heard", relay.address()).await.unwrap();
        let (len, _) = peer.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"heard");

        relay.hold(false);
        peer.send_to(b"again", relayed).await.unwrap();
        let len = dialer.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"again");
    }
}
