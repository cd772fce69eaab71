//! Connections that others dial: replicas to serve, candidates that ask and fence.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{Body, Frame, Hello, Purpose, Welcome};
use towline_protocol::id::NodeId;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::Digest;
use towline_transport::{Connection, FrameReceiver, FrameSender, Priority};

use crate::calls::receive;
use crate::shared::{Session, Shared};

/// How long a peer may take to say its first words.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes connections until the node stops.
pub(crate) async fn accept(shared: Arc<Shared>) {
    let stopped = shared.stopped();
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => return,
            accepted = shared.endpoint.accept() => accepted,
        };
        match accepted {
            None => return,
            // Whom it turned away the endpoint has said, with the reason.
            Some(Err(_)) => {}
            Some(Ok(connection)) => {
                tokio::spawn(serve(Arc::clone(&shared), connection));
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, connection: Connection) {
    let peer = connection.peer().node;
    let ended = tokio::select! {
        () = shared.stopped() => Ok(()),
        ended = serve_peer(&shared, &connection, peer) => ended,
    };
    match ended {
        Ok(()) => connection.close(0, "over"),
        Err(reason) => {
            tracing::info!(node = %shared.identity.node, %peer, "connection ended: {reason}");
            connection.close(1, &reason);
        }
    }
}

async fn serve_peer(
    shared: &Arc<Shared>,
    connection: &Connection,
    peer: NodeId,
) -> Result<(), String> {
    let introduce = async {
        let opened = connection.accept_control().await.map_err(|error| error.to_string())?;
        let (sender, mut receiver) = opened;
        let frame = receive(&mut receiver).await?;
        Ok::<_, String>((sender, receiver, frame))
    };
    let introduced = tokio::time::timeout(HELLO_TIMEOUT, introduce).await;
    let (mut sender, receiver, frame) =
        introduced.map_err(|_| "it did not introduce itself".to_owned())??;
    let Body::Hello(hello) = frame.body else {
        return Err("its first frame is no hello".to_owned());
    };
    // A certificate speaks for one node.
    if hello.node != peer || frame.log != shared.identity.log {
        return Err(format!(
            "it says it is {} of log {}, its certificate says {peer}, and this is log {}",
            hello.node, frame.log, shared.identity.log
        ));
    }
    let (epoch, answer) = answer(shared, &hello).await?;
    let body = Body::Welcome(answer.clone());
    let welcome = Frame { log: shared.identity.log, epoch, number: 0, body };
    let sent = sender.send(&[welcome.encode()]).await;
    sent.map_err(|error| error.to_string())?;
    match answer {
        Welcome::Ready => answer_questions(shared, peer, sender, receiver).await,
        Welcome::Stream { from, until, .. } => {
            stream(shared, connection, peer, epoch, (from, until), (sender, receiver)).await
        }
        Welcome::Refuse(refusal, reason) => {
            let _ = receive(&mut { receiver }).await; // Let it read the answer before we hang up.
            tracing::warn!(node = %shared.identity.node, %peer, ?refusal, "refused: {reason}");
            Ok(())
        }
        Welcome::Truncate { to, .. } => {
            let _ = receive(&mut { receiver }).await;
            tracing::info!(node = %shared.identity.node, %peer, %to, "told to cut its tail");
            Ok(())
        }
        Welcome::Redirect(_) => {
            let _ = receive(&mut { receiver }).await;
            Ok(())
        }
    }
}

/// The rules' answer to a hello, with this log's digest at the position it names.
async fn answer(shared: &Arc<Shared>, hello: &Hello) -> Result<(Epoch, Welcome), String> {
    let (epoch, mut answer) = shared.tell(|machine, now_ms| {
        let answer = machine.handle_hello(hello, now_ms);
        (machine.fence(), answer)
    });
    if let Purpose::Fetch(_) = hello.purpose {
        tracing::info!(node = %shared.identity.node, peer = %hello.node, %epoch, "lends its log");
    }
    match &mut answer {
        Welcome::Stream { from: at, digest, .. } | Welcome::Truncate { to: at, digest } => {
            *digest = digest_at(shared, *at).await?;
        }
        _ => {}
    }
    Ok((epoch, answer))
}

/// The log's digest at `at`; may read up to a segment.
pub(crate) async fn digest_at(shared: &Arc<Shared>, at: Lsn) -> Result<Digest, String> {
    if at == Lsn::ZERO {
        return Ok(Digest::EMPTY);
    }
    let wal = shared.wal();
    let read = shared.platform.blocking(move || wal.digest_at(at)).await;
    read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// A candidate's questions, one after another.
async fn answer_questions(
    shared: &Arc<Shared>,
    peer: NodeId,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) -> Result<(), String> {
    while let Ok(question) = receive(&mut receiver).await {
        let answer = match question.body {
            Body::Ask => shared.tell(|machine, now_ms| machine.handle_ask(now_ms)),
            Body::Fence => obey(shared, peer, question.epoch).await?,
            _ => return Err("it sent a frame out of place".to_owned()),
        };
        let sent = sender.send(&[answer.encode()]).await;
        sent.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// FENCED is answered only once the fence is on disk, by the driver, through `fencing`.
async fn obey(shared: &Arc<Shared>, candidate: NodeId, epoch: Epoch) -> Result<Frame, String> {
    let (answer, answered) = oneshot::channel();
    shared.fencing.lock().unwrap_or_else(PoisonError::into_inner).insert(candidate, answer);
    let at_hand = shared.tell(|machine, now_ms| machine.handle_fence(candidate, epoch, now_ms));
    if let Some(frame) = at_hand {
        return Ok(frame);
    }
    let patience = shared.config.candidate_deadline;
    let answered = tokio::time::timeout(patience, answered).await;
    answered
        .map_err(|_| format!("the fence of {epoch} took too long"))?
        .map_err(|_| format!("the fence of {epoch} was overtaken"))
}

/// Serves one replica, or lends the log to a candidate, until the stream breaks.
async fn stream(
    shared: &Arc<Shared>,
    connection: &Connection,
    peer: NodeId,
    epoch: Epoch,
    (from, until): (Lsn, Option<Lsn>),
    (mut sender, mut receiver): (FrameSender, FrameReceiver),
) -> Result<(), String> {
    let wal = shared.wal();
    let (shipped, seen) = watch::channel(from);
    let mut tail = connection.open_uni(Priority::Tail).await.map_err(|error| error.to_string())?;
    let range = (from, until);
    if until.is_some() {
        let shipped = towline_shipper::ship_tail(&wal, peer, epoch, range, &mut tail, &shipped);
        shipped.await.map_err(|error| error.to_string())?;
        connection.closed().await;
        return Ok(());
    }
    tracing::info!(node = %shared.identity.node, %peer, %from, %epoch, "serves a replica");
    let session = Session { shipped: seen, connection: connection.clone() };
    let sessions = || shared.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    sessions().insert(peer, session);
    let count = |epoch, ack: &_| {
        let took = shared.tell(|machine, now_ms| machine.handle_ack(peer, epoch, ack, now_ms));
        shared.replicas.send_modify(|changes| *changes += 1);
        took
    };
    let ended = tokio::select! {
        ended = towline_shipper::ship_tail(&wal, peer, epoch, range, &mut tail, &shipped) => ended,
        ended = towline_shipper::send_news(peer, epoch, shared.news.subscribe(), &mut sender) => {
            ended
        }
        ended = towline_shipper::take_acks(peer, &mut receiver, count) => ended,
    };
    sessions().retain(|_, session| !session.shipped.same_channel(&shipped.subscribe()));
    ended.map_err(|error| error.to_string())
}
