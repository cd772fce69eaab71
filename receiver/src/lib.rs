//! Takes a primary's stream into a replica's log.
//!
//! The mirror of the shipper: the *tail* has the log verify every record and store it at its own
//! Lsn, the log's syncer flushes it, and two loops on the control stream take in news and send the
//! ack whenever it changes. Nothing is taken that the rules do not accept at that moment.

#![forbid(unsafe_code)]

use std::sync::Arc;

use tokio::sync::watch;
use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{
    Body, CONTROL_FRAME_MAX, Frame, Heartbeat, RECORDS_FRAME_MAX, Records,
};
use towline_protocol::id::{LogId, NodeId};
use towline_protocol::lsn::Lsn;
use towline_protocol::wire::WireError;
use towline_transport::{FrameError, FrameReceiver, FrameSender};
use towline_wal::{Wal, WalError};

/// Why a session ended. The replica dials again.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The log does not take the records.
    #[error("taking records from {peer}: {source}")]
    Log {
        /// The primary.
        peer: NodeId,
        /// What the log says.
        source: WalError,
    },
    /// The connection broke.
    #[error("the stream from {peer} broke: {source}")]
    Stream {
        /// The primary.
        peer: NodeId,
        /// What the transport says.
        source: FrameError,
    },
    /// The primary sent what is no frame.
    #[error("{peer} sent a malformed frame: {source}")]
    Malformed {
        /// The primary.
        peer: NodeId,
        /// What is wrong with it.
        source: WireError,
    },
    /// The primary sent a frame that has no place here, or whose number is not the next.
    #[error("{0} sent a frame out of place")]
    OutOfPlace(NodeId),
    /// The primary sent a frame of another log.
    #[error("{0} sent a frame of log {1}")]
    OtherLog(NodeId, LogId),
    /// The rules take nothing of this epoch, or not any more.
    #[error("epoch {1} of {0} is not accepted any more")]
    Refused(NodeId, Epoch),
    /// The stream ended before it had to.
    #[error("{0} closed the stream")]
    Closed(NodeId),
}

/// The tail: takes records into the log until `until`, or until the stream breaks.
///
/// `accepts` is asked before every frame, so that nothing enters the log once a higher epoch is
/// obeyed. `grown` is called after every frame with the log's new end, after one that was not
/// taken whole as well.
///
/// # Errors
/// [`ReceiveError`]; `Ok` only once `until` is reached.
pub async fn receive_tail(
    wal: &Arc<Wal>,
    peer: NodeId,
    epoch: Epoch,
    until: Option<Lsn>,
    stream: &mut FrameReceiver,
    mut accepts: impl FnMut() -> bool,
    mut grown: impl FnMut(Lsn),
) -> Result<(), ReceiveError> {
    let mut number = 0;
    loop {
        if until.is_some_and(|until| wal.appended() >= until) {
            return Ok(());
        }
        let received = stream.recv(RECORDS_FRAME_MAX).await;
        let frame = received.map_err(|source| ReceiveError::Stream { peer, source })?;
        let frame = frame.ok_or(ReceiveError::Closed(peer))?;
        let (header, bytes) =
            Records::decode(&frame).map_err(|source| ReceiveError::Malformed { peer, source })?;
        if header.number != number + 1 {
            return Err(ReceiveError::OutOfPlace(peer));
        }
        number = header.number;
        if header.epoch != epoch || header.segment.epoch > epoch || !accepts() {
            return Err(ReceiveError::Refused(peer, header.epoch));
        }
        let taken = wal.receive(header.segment, header.from, &bytes);
        // Also if it failed: what came before a bad record is in the log, a BARRIER perhaps.
        grown(wal.appended());
        taken.map_err(|source| ReceiveError::Log { peer, source })?;
    }
}

/// Takes in the news of the primary of `log`, and gives each to `hear`, which says
/// whether the rules took it.
///
/// # Errors
/// [`ReceiveError`], always: news ends with the session.
pub async fn take_news(
    (peer, log): (NodeId, LogId),
    control: &mut FrameReceiver,
    mut hear: impl FnMut(&Frame, &Heartbeat) -> bool,
) -> Result<(), ReceiveError> {
    loop {
        let received = control.recv(CONTROL_FRAME_MAX).await;
        let bytes = received.map_err(|source| ReceiveError::Stream { peer, source })?;
        let bytes = bytes.ok_or(ReceiveError::Closed(peer))?;
        let frame =
            Frame::decode(&bytes).map_err(|source| ReceiveError::Malformed { peer, source })?;
        if frame.log != log {
            return Err(ReceiveError::OtherLog(peer, frame.log));
        }
        let Body::Heartbeat(news) = frame.body else { return Err(ReceiveError::OutOfPlace(peer)) };
        if !hear(&frame, &news) {
            return Err(ReceiveError::Refused(peer, frame.epoch));
        }
    }
}

/// Sends this replica's ack whenever it changes: on every flush, on every heartbeat, on every
/// step of its engine. What is sent is always the newest, so a slow stream loses nothing.
///
/// # Errors
/// [`ReceiveError`], always; [`ReceiveError::Refused`] once there is nothing to acknowledge.
pub async fn send_acks(
    peer: NodeId,
    epoch: Epoch,
    mut acks: watch::Receiver<Option<Frame>>,
    control: &mut FrameSender,
) -> Result<(), ReceiveError> {
    loop {
        let frame = acks.borrow_and_update().clone();
        let current = frame.filter(|frame| frame.epoch == epoch);
        let frame = current.ok_or(ReceiveError::Refused(peer, epoch))?;
        let sent = control.send(&[frame.encode()]).await;
        sent.map_err(|source| ReceiveError::Stream { peer, source })?;
        if acks.changed().await.is_err() {
            return Err(ReceiveError::Refused(peer, epoch));
        }
    }
}
