//! Connections that others dial: replicas to serve, candidates that ask and fence.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{Body, Fence, Frame, Hello, Purpose, Refusal, Welcome};
use towline_protocol::id::{Incarnation, NodeId};
use towline_protocol::lsn::Lsn;
use towline_protocol::record::Digest;
use towline_transport::{ConnectError, Connection, FrameReceiver, FrameSender, Priority};
use towline_wal::Wal;

use crate::refusals::{PeerError, RefusalKind};
use crate::shared::{Session, Shared};

/// How long a peer may take to say its first words.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a candidate may take for its next question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How many connections one peer may hold: a stream, a fetch, and the questions of a few epochs.
const CONNECTIONS_MAX: usize = 16;

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
            Some(Err(error)) => {
                if matches!(error, ConnectError::Refused { .. }) {
                    shared.refusals.count(RefusalKind::Foreign);
                }
            }
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
        Err(error) => {
            shared.note(peer, &error);
            connection.close(1, &error.to_string());
        }
    }
}

async fn serve_peer(
    shared: &Arc<Shared>,
    connection: &Connection,
    peer: NodeId,
) -> Result<(), PeerError> {
    let _place = Place::take(shared, peer)?;
    let introduce = async {
        let (sender, mut receiver) = connection.accept_control().await?;
        let frame = shared.receive(&mut receiver).await?;
        Ok::<_, PeerError>((sender, receiver, frame))
    };
    let introduced = tokio::time::timeout(HELLO_TIMEOUT, introduce).await;
    let (mut sender, mut receiver, frame) = introduced.unwrap_or(Err(PeerError::Silent))?;
    let Body::Hello(hello) = frame.body else { return Err(PeerError::OutOfPlace("a hello")) };
    // A certificate speaks for one node.
    if hello.node != peer {
        return Err(PeerError::NotItself(hello.node));
    }
    let (epoch, answer, wal) = answer(shared, &hello).await?;
    let body = Body::Welcome(answer.clone());
    let welcome = Frame { log: shared.identity.log, epoch, number: 0, body };
    sender.send(&[welcome.encode()]).await?;
    match answer {
        Welcome::Ready => {
            answer_questions(shared, (peer, hello.incarnation), sender, receiver).await
        }
        Welcome::Stream { from, until, .. } => {
            let session = (connection, peer, epoch);
            stream(shared, &wal, session, (from, until), (sender, receiver)).await
        }
        Welcome::Refuse(refusal, reason) => {
            until_read(&mut receiver).await;
            Err(PeerError::TurnedAway(refusal, reason))
        }
        Welcome::Truncate { to, .. } => {
            tracing::info!(node = %shared.identity.node, %peer, %to, "told to cut its tail");
            until_read(&mut receiver).await;
            Ok(())
        }
        Welcome::Redirect(_) | Welcome::Snapshot { .. } => {
            until_read(&mut receiver).await;
            Ok(())
        }
    }
}

/// Lets the peer read the answer before this side hangs up. It hangs up itself, or is not waited
/// for any longer.
async fn until_read(receiver: &mut FrameReceiver) {
    let _ = tokio::time::timeout(HELLO_TIMEOUT, receiver.recv(0)).await;
}

/// One of the connections a peer may hold.
struct Place<'a> {
    shared: &'a Shared,
    peer: NodeId,
}

impl<'a> Place<'a> {
    fn take(shared: &'a Shared, peer: NodeId) -> Result<Self, PeerError> {
        let mut inbound = shared.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        let held = inbound.entry(peer).or_default();
        if *held >= CONNECTIONS_MAX {
            return Err(PeerError::Crowding(*held));
        }
        *held += 1;
        Ok(Self { shared, peer })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut inbound = self.shared.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = inbound.get_mut(&self.peer) {
            *held -= 1;
        }
    }
}

/// The rules' answer to a hello, with the digest at the position it names, and the log it speaks
/// of: one that a cut has replaced meanwhile has other digests.
async fn answer(
    shared: &Arc<Shared>,
    hello: &Hello,
) -> Result<(Epoch, Welcome, Arc<Wal>), PeerError> {
    let (epoch, mut answer, wal) = shared.tell(|machine, now_ms| {
        let answer = machine.handle_hello(hello, now_ms);
        (machine.fence(), answer, shared.wal())
    });
    if let Purpose::Fetch(_) = hello.purpose {
        tracing::info!(node = %shared.identity.node, peer = %hello.node, %epoch, "lends its log");
    }
    match &mut answer {
        Welcome::Stream { from: at, digest, .. } | Welcome::Truncate { to: at, digest } => {
            *digest = digest_at(shared, &wal, *at).await?;
        }
        _ => {}
    }
    Ok((epoch, answer, wal))
}

/// The digest of `wal` at `at`; may read up to a segment.
pub(crate) async fn digest_at(
    shared: &Shared,
    wal: &Arc<Wal>,
    at: Lsn,
) -> Result<Digest, PeerError> {
    if at == Lsn::ZERO {
        return Ok(Digest::EMPTY);
    }
    let wal = Arc::clone(wal);
    Ok(shared.platform.blocking(move || wal.digest_at(at)).await??)
}

/// A candidate's questions, one after another.
async fn answer_questions(
    shared: &Arc<Shared>,
    (peer, incarnation): (NodeId, Incarnation),
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) -> Result<(), PeerError> {
    loop {
        let asked = tokio::time::timeout(QUESTION_TIMEOUT, shared.receive(&mut receiver)).await;
        let question = match asked.unwrap_or(Err(PeerError::Silent)) {
            Ok(question) => question,
            // It knows what it wanted to know.
            Err(error) if error.kind().is_none() => return Ok(()),
            Err(error) => return Err(error),
        };
        let epoch = question.epoch;
        let answer = match question.body {
            Body::Ask => shared.tell(|machine, now_ms| machine.handle_ask(now_ms)),
            // Nobody else's incarnation makes an epoch a candidate's own.
            Body::Fence(_) if epoch.incarnation != incarnation => {
                return Err(PeerError::NotItsEpoch(epoch, incarnation));
            }
            Body::Fence(fence) => obey(shared, peer, epoch, fence).await?,
            Body::HandOver => shared.tell(|machine, now_ms| {
                // Whether it begins shows in what follows: the caller repeats itself until it does.
                let _begun = machine.handle_hand_over(peer, epoch, now_ms);
                machine.handle_ask(now_ms)
            }),
            _ => return Err(PeerError::OutOfPlace("a question")),
        };
        if matches!(answer.body, Body::FenceRefused { .. }) {
            let reason = why_refused(epoch, answer.epoch);
            shared.note(peer, &PeerError::TurnedAway(Refusal::Stale, reason));
        }
        sender.send(&[answer.encode()]).await?;
    }
}

/// Why a fence of `epoch` is refused where `obeyed` is.
fn why_refused(epoch: Epoch, obeyed: Epoch) -> String {
    if epoch <= obeyed {
        return format!("{obeyed} is obeyed here, its fence is of {epoch}");
    }
    format!(
        "its fence of {epoch} is above {obeyed}, which is obeyed here, and yet refused: this node \
         is quarantined, or its log has replaced that disk, or a primary is at work on a side \
         that was to be given up; `towline status` says how this node stands"
    )
}

/// FENCED is answered only once the fence is on disk, by the driver, through `fencing`.
async fn obey(
    shared: &Arc<Shared>,
    candidate: NodeId,
    epoch: Epoch,
    fence: Fence,
) -> Result<Frame, PeerError> {
    let (answer, answered) = oneshot::channel();
    shared.fencing.lock().unwrap_or_else(PoisonError::into_inner).insert(candidate, answer);
    let at_hand =
        shared.tell(|machine, now_ms| machine.handle_fence(candidate, epoch, fence, now_ms));
    if let Some(frame) = at_hand {
        return Ok(frame);
    }
    let patience = shared.config.candidate_deadline;
    match tokio::time::timeout(patience, answered).await {
        Ok(Ok(frame)) => Ok(frame),
        _ => Err(PeerError::Overtaken(epoch)),
    }
}

/// Serves one replica, or lends the log to a candidate, until the stream breaks.
async fn stream(
    shared: &Arc<Shared>,
    wal: &Arc<Wal>,
    (connection, peer, epoch): (&Connection, NodeId, Epoch),
    (from, until): (Lsn, Option<Lsn>),
    (mut sender, mut receiver): (FrameSender, FrameReceiver),
) -> Result<(), PeerError> {
    let (shipped, seen) = watch::channel(from);
    let mut tail = connection.open_uni(Priority::Tail).await?;
    let range = (from, until);
    let from_peer = (peer, shared.identity.log);
    if until.is_some() {
        let shipped = towline_shipper::ship_tail(wal, peer, epoch, range, &mut tail, &shipped);
        shipped.await?;
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
        ended = towline_shipper::ship_tail(wal, peer, epoch, range, &mut tail, &shipped) => ended,
        ended = towline_shipper::send_news(peer, epoch, shared.news.subscribe(), &mut sender) => {
            ended
        }
        ended = towline_shipper::take_acks(from_peer, &mut receiver, count) => ended,
    };
    sessions().retain(|_, session| !session.shipped.same_channel(&shipped.subscribe()));
    Ok(ended?)
}
