//! A connection to a node that has proved who it is.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::VarInt;

use crate::error::Closed;
use crate::frames::{FrameReceiver, FrameSender};
use crate::identity::PeerIdentity;

/// Which stream's bytes go first when there is more to send than fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Catch-up and snapshots.
    Bulk,
    /// The live tail.
    Tail,
    /// Handshake, heartbeats, acks and commits.
    Control,
}

impl Priority {
    const fn level(self) -> i32 {
        match self {
            Self::Bulk => -10,
            Self::Tail => 10,
            Self::Control => 100,
        }
    }
}

/// A connection to one peer. Clones are handles to the same one; it is closed when the last is
/// dropped, streams included.
#[derive(Debug, Clone)]
pub struct Connection {
    quic: quinn::Connection,
    peer: PeerIdentity,
}

impl Connection {
    pub(crate) const fn new(quic: quinn::Connection, peer: PeerIdentity) -> Self {
        Self { quic, peer }
    }

    /// Who is at the other end, as its certificate proved.
    #[must_use]
    pub const fn peer(&self) -> PeerIdentity {
        self.peer
    }

    /// Where the peer is now.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// The estimated round trip. It only moves while something is sent.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.quic.rtt()
    }

    /// Opens the control stream. The peer sees it once the first frame is sent.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn open_control(&self) -> Result<(FrameSender, FrameReceiver), Closed> {
        let opened = self.quic.open_bi().await;
        let (send, receive) = opened.map_err(|error| Closed::from(&error))?;
        prioritise(&send, Priority::Control);
        Ok((FrameSender::new(send), FrameReceiver::new(receive)))
    }

    /// The control stream the peer opened. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn accept_control(&self) -> Result<(FrameSender, FrameReceiver), Closed> {
        let accepted = self.quic.accept_bi().await;
        let (send, receive) = accepted.map_err(|error| Closed::from(&error))?;
        prioritise(&send, Priority::Control);
        Ok((FrameSender::new(send), FrameReceiver::new(receive)))
    }

    /// Opens a stream to the peer; waits while the peer has as many as it takes. The peer sees it
    /// once the first frame is sent.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn open_uni(&self, priority: Priority) -> Result<FrameSender, Closed> {
        let opened = self.quic.open_uni().await;
        let send = opened.map_err(|error| Closed::from(&error))?;
        prioritise(&send, priority);
        Ok(FrameSender::new(send))
    }

    /// The next stream the peer opened, in its order. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn accept_uni(&self) -> Result<FrameReceiver, Closed> {
        let accepted = self.quic.accept_uni().await;
        let receive = accepted.map_err(|error| Closed::from(&error))?;
        Ok(FrameReceiver::new(receive))
    }

    /// Closes the connection now and tells the peer why; what was not delivered is dropped.
    pub fn close(&self, code: u32, text: &str) {
        self.quic.close(VarInt::from_u32(code), text.as_bytes());
    }

    /// Waits until the connection is closed, by whomever.
    pub async fn closed(&self) -> Closed {
        Closed::from(&self.quic.closed().await)
    }
}

fn prioritise(stream: &quinn::SendStream, priority: Priority) {
    // Fails only on a stream that is closed already, where it no longer matters.
    let _ = stream.set_priority(priority.level());
}
