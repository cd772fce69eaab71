//! Streams a log to one replica.
//!
//! A session is three loops that share nothing but positions. The *tail* reads the log through a
//! cursor, from the replica's end up to what is appended: catch-up and live records alike, which
//! so travel while the local flush is still running. The two on the control stream send the
//! primary's news whenever it changes, and take in acks. QUIC's flow control is the only window
//! between them and the replica: a slow replica parks the tail on its stream, and is served from
//! the log when it comes back, never from memory.

#![forbid(unsafe_code)]

use std::sync::Arc;

use tokio::sync::watch;
use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{Ack, Body, CONTROL_FRAME_MAX, Frame, RECORDS_FRAME_AIM, Records};
use towline_protocol::id::{LogId, NodeId};
use towline_protocol::lsn::Lsn;
use towline_protocol::wire::WireError;
use towline_transport::{FrameError, FrameReceiver, FrameSender};
use towline_wal::{Cursor, Level, Wal, WalError};

/// Why a session ended. The replica dials again; nothing is lost.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The log can not be read any further.
    #[error("reading the log for {peer}: {source}")]
    Log {
        /// The replica.
        peer: NodeId,
        /// What the log says.
        source: WalError,
    },
    /// The connection broke.
    #[error("the stream to {peer} broke: {source}")]
    Stream {
        /// The replica.
        peer: NodeId,
        /// What the transport says.
        source: FrameError,
    },
    /// The replica sent what is no frame.
    #[error("{peer} sent a malformed frame: {source}")]
    Malformed {
        /// The replica.
        peer: NodeId,
        /// What is wrong with it.
        source: WireError,
    },
    /// The replica sent a frame that has no place here.
    #[error("{0} sent a frame out of place")]
    OutOfPlace(NodeId),
    /// The replica sent a frame of another log.
    #[error("{0} sent a frame of log {1}")]
    OtherLog(NodeId, LogId),
    /// The rules turned an ack down: another epoch's, or of positions it can not have.
    #[error(
        "{0} acknowledged in epoch {1}, which is not served here any more, or positions that it \
         can not have reached"
    )]
    Refused(NodeId, Epoch),
    /// This node serves the epoch no longer.
    #[error("epoch {0} is not served any more")]
    Over(Epoch),
}

/// The tail: every record from `from` on, as soon as it is appended. With an `until` it ends there,
/// and sends only what is flushed.
///
/// `shipped` follows what was handed to the stream.
///
/// # Errors
/// [`ShipError`]; `Ok` once `until` is reached or the log is closed.
pub async fn ship_tail(
    wal: &Arc<Wal>,
    peer: NodeId,
    epoch: Epoch,
    (from, until): (Lsn, Option<Lsn>),
    stream: &mut FrameSender,
    shipped: &watch::Sender<Lsn>,
) -> Result<(), ShipError> {
    let in_log = |source| ShipError::Log { peer, source };
    let level = if until.is_some() { Level::Flushed } else { Level::Appended };
    let mut appended = wal.watch_appended();
    let mut cursor: Cursor = wal.cursor(from, level).map_err(in_log)?;
    let mut number = 0;
    loop {
        if until.is_some_and(|until| cursor.position() >= until) {
            return Ok(());
        }
        // What was seen now is marked seen, so that growth after the cursor ran dry wakes us.
        appended.borrow_and_update();
        while let Some(chunk) = cursor.next_chunk(RECORDS_FRAME_AIM).map_err(in_log)? {
            number += 1;
            let header = Records { epoch, number, segment: chunk.segment, from: chunk.from };
            let frame = [header.encode(), chunk.bytes];
            stream.send(&frame).await.map_err(|source| ShipError::Stream { peer, source })?;
            shipped.send_replace(chunk.end);
        }
        if until.is_none() && appended.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Sends the primary's news to one replica whenever it changes. The primary changes it at least
/// every heartbeat.
///
/// # Errors
/// [`ShipError`]; [`ShipError::Over`] once there is no more news of `epoch`.
pub async fn send_news(
    peer: NodeId,
    epoch: Epoch,
    mut news: watch::Receiver<Option<Frame>>,
    control: &mut FrameSender,
) -> Result<(), ShipError> {
    loop {
        let frame = news.borrow_and_update().clone();
        let current = frame.filter(|frame| frame.epoch == epoch);
        let frame = current.ok_or(ShipError::Over(epoch))?;
        let sent = control.send(&[frame.encode()]).await;
        sent.map_err(|source| ShipError::Stream { peer, source })?;
        if news.changed().await.is_err() {
            return Err(ShipError::Over(epoch));
        }
    }
}

/// Takes in the acks of one replica of `log`, and gives each to `count`, which says
/// whether the rules took it.
///
/// # Errors
/// [`ShipError`]; `Ok` once the replica has closed its side.
pub async fn take_acks(
    (peer, log): (NodeId, LogId),
    control: &mut FrameReceiver,
    mut count: impl FnMut(Epoch, &Ack) -> bool,
) -> Result<(), ShipError> {
    loop {
        let received = control.recv(CONTROL_FRAME_MAX).await;
        let bytes = received.map_err(|source| ShipError::Stream { peer, source })?;
        let Some(bytes) = bytes else { return Ok(()) };
        let frame =
            Frame::decode(&bytes).map_err(|source| ShipError::Malformed { peer, source })?;
        if frame.log != log {
            return Err(ShipError::OtherLog(peer, frame.log));
        }
        let Body::Ack(ack) = frame.body else { return Err(ShipError::OutOfPlace(peer)) };
        if !count(frame.epoch, &ack) {
            return Err(ShipError::Refused(peer, frame.epoch));
        }
    }
}
