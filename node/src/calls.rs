//! Dialling a peer, and asking it one thing.

use std::net::SocketAddr;
use std::time::Duration;

use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{Body, CONTROL_FRAME_MAX, Frame, Hello, Welcome};
use towline_protocol::id::NodeId;
use towline_protocol::machine::Machine;
use towline_transport::{Connection, FrameReceiver, FrameSender};

use crate::error::CallError;
use crate::refusals::PeerError;
use crate::shared::Shared;

/// How long a dial may take until the peer has answered the first words.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// A peer that has answered this node's hello.
pub(crate) struct Dialled {
    pub(crate) connection: Connection,
    pub(crate) sender: FrameSender,
    pub(crate) receiver: FrameReceiver,
    /// The peer's epoch, and its answer.
    pub(crate) epoch: Epoch,
    pub(crate) answer: Welcome,
}

impl Shared {
    /// Dials `node` and exchanges the first words.
    pub(crate) async fn dial(&self, node: NodeId, hello: Hello) -> Result<Dialled, CallError> {
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, self.dial_patiently(node, hello)).await;
        dialled.unwrap_or(Err(CallError::Silent { node }))
    }

    async fn dial_patiently(&self, node: NodeId, hello: Hello) -> Result<Dialled, CallError> {
        let answer = |source: PeerError| CallError::Answer { node, source };
        let address = self.resolve(node).await?;
        let connection = self
            .endpoint
            .connect(address, node)
            .await
            .map_err(|error| CallError::Connect { node, reason: error.to_string() })?;
        let opened = connection.open_control().await;
        let (mut sender, mut receiver) = opened.map_err(|error| answer(error.into()))?;
        let frame = Frame {
            log: self.identity.log,
            epoch: hello.fence,
            number: 0,
            body: Body::Hello(Box::new(hello)),
        };
        let sent = sender.send(&[frame.encode()]).await;
        sent.map_err(|error| answer(error.into()))?;
        let frame = self.receive(&mut receiver).await.map_err(answer)?;
        let Body::Welcome(welcome) = frame.body else {
            return Err(answer(PeerError::OutOfPlace("the answer to a hello")));
        };
        Ok(Dialled { connection, sender, receiver, epoch: frame.epoch, answer: welcome })
    }

    async fn resolve(&self, node: NodeId) -> Result<SocketAddr, CallError> {
        let peer = self.config.peers.get(&node).ok_or(CallError::NoAddress(node))?;
        let unresolved =
            |reason: String| CallError::Unresolved { node, address: peer.repl.clone(), reason };
        let found = tokio::net::lookup_host(&peer.repl).await;
        let mut found = found.map_err(|error| unresolved(error.to_string()))?;
        found.next().ok_or_else(|| unresolved("no address".to_owned()))
    }

    /// Asks `node` one thing and waits for its answer, `patience` at the most.
    pub(crate) async fn call(
        &self,
        node: NodeId,
        question: Frame,
        patience: Duration,
    ) -> Result<Frame, CallError> {
        let hello = self.look(|machine| machine.introduction());
        let mut dialled = self.dial(node, hello).await?;
        match dialled.answer {
            Welcome::Ready => {}
            Welcome::Refuse(refusal, reason) => {
                let source = PeerError::Refused(refusal, reason);
                return Err(CallError::Answer { node, source });
            }
            _ => {
                let source = PeerError::OutOfPlace("READY");
                return Err(CallError::Answer { node, source });
            }
        }
        let exchange = async {
            dialled.sender.send(&[question.encode()]).await?;
            self.receive(&mut dialled.receiver).await
        };
        let answered = tokio::time::timeout(patience, exchange).await;
        let answered = answered.map_err(|_| CallError::Silent { node })?;
        dialled.connection.close(0, "answered");
        answered.map_err(|source| CallError::Answer { node, source })
    }

    /// The next frame of a control stream that must go on: of this log, and of no epoch that can
    /// not be.
    pub(crate) async fn receive(&self, receiver: &mut FrameReceiver) -> Result<Frame, PeerError> {
        let bytes = receiver.recv(CONTROL_FRAME_MAX).await?.ok_or(PeerError::Hangup)?;
        let frame = Frame::decode_near(&bytes, self.look(Machine::fence))?;
        if frame.log != self.identity.log {
            return Err(PeerError::OtherLog(frame.log));
        }
        Ok(frame)
    }
}
