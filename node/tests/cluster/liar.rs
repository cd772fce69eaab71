//! Peers with good certificates that lie: each lie is refused by its own name, costs nothing, and
//! takes nothing from those who tell the truth.

use std::time::{Duration, Instant};

use bytes::Bytes;
use towline::RefusalKind;
use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::{Epoch, History};
use towline_protocol::frame::{
    Ack, Body, CONTROL_FRAME_MAX, Fence, Frame, Heartbeat, Hello, PROTOCOL_VERSION, Purpose,
    Records, SegmentIdentity, Welcome,
};
use towline_protocol::id::{ClusterId, Incarnation, LogId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{Digest, RecordKind};
use towline_protocol::terms::Terms;
use towline_transport::{Connection, Endpoint, FrameReceiver, FrameSender, Priority};
use towline_wal::{Founding, Level, Options, Wal};

use crate::PATIENCE;
use crate::fixture::Cluster;

const CLUSTER: ClusterId = ClusterId(7);
const LOG: LogId = LogId(8);
/// What c's founding says.
const LIFE: Incarnation = Incarnation(102);
const FENCE: Fence = Fence { newest: Epoch::NONE, accepts_loss: false };
const ATTEMPTS: usize = 1_000;
const GROWTH_MAX: u64 = 64 << 20;

fn hello(purpose: Purpose) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        cluster: CLUSTER,
        node: "c".parse().unwrap(),
        incarnation: LIFE,
        segment_size: SegmentSize::new(1 << 20).unwrap(),
        purpose,
        fence: Epoch::NONE,
        history: History::default(),
        end: Lsn::ZERO,
        committed: Lsn::ZERO,
    }
}

fn frame(epoch: Epoch, body: Body) -> Frame {
    Frame { log: LOG, epoch, number: 0, body }
}

fn first(hello: Hello) -> Bytes {
    frame(hello.fence, Body::Hello(Box::new(hello))).encode()
}

fn ack(flushed: Lsn) -> Body {
    let (received, applied) = (flushed, Lsn::ZERO);
    Body::Ack(Ack { incarnation: LIFE, received, flushed, applied, seen: 0 })
}

/// A lie: the frames that are sent one after another, and what they are refused for.
type Lie = (&'static str, Vec<Bytes>, RefusalKind);

/// Lies to a primary in `epoch` whose log has `history` and ends at `end`.
fn lies(epoch: Epoch, history: &History, end: Lsn) -> Vec<Lie> {
    use RefusalKind as Kind;
    let asks = || first(hello(Purpose::Ask));
    let streams = || first(hello(Purpose::Stream));
    let far = Epoch { number: u64::MAX, incarnation: LIFE };
    let before = Epoch { number: 0, incarnation: LIFE };
    let body = Body::Hello(Box::new(hello(Purpose::Ask)));
    let other_log = Frame { log: LogId(9), ..frame(Epoch::NONE, body) }.encode();
    let inside = Lsn::new(end.get() - 8);
    let in_a_record = Hello { history: history.clone(), end: inside, ..hello(Purpose::Stream) };
    vec![
        ("no frame", vec![Bytes::from_static(b"\xffnonsense")], Kind::Malformed),
        ("a cut frame", vec![asks().slice(..40)], Kind::Malformed),
        ("a long frame", vec![Bytes::from(vec![1; CONTROL_FRAME_MAX + 1])], Kind::Oversized),
        (
            "no higher epoch",
            vec![first(Hello { fence: far, ..hello(Purpose::Stream) })],
            Kind::Impossible,
        ),
        (
            "another node",
            vec![first(Hello { node: "b".parse().unwrap(), ..hello(Purpose::Ask) })],
            Kind::Foreign,
        ),
        (
            "another cluster",
            vec![first(Hello { cluster: ClusterId(9), ..hello(Purpose::Ask) })],
            Kind::Foreign,
        ),
        ("another log", vec![other_log], Kind::Foreign),
        (
            "a future it has committed",
            vec![first(Hello { committed: Lsn::new(u64::MAX), ..hello(Purpose::Stream) })],
            Kind::Contradiction,
        ),
        ("an end inside a record", vec![first(in_a_record)], Kind::Contradiction),
        ("no hello", vec![frame(epoch, ack(end)).encode()], Kind::OutOfPlace),
        ("a second hello", vec![asks(), asks()], Kind::OutOfPlace),
        ("an old fence", vec![asks(), frame(before, Body::Fence(FENCE)).encode()], Kind::Late),
        (
            "a fence of another's epoch",
            vec![asks(), frame(epoch, Body::Fence(FENCE)).encode()],
            Kind::Foreign,
        ),
        (
            "a fence no higher one follows",
            vec![asks(), frame(far, Body::Fence(FENCE)).encode()],
            Kind::Impossible,
        ),
        ("an old ack", vec![streams(), frame(before, ack(Lsn::ZERO)).encode()], Kind::Late),
        (
            "an ack of the future",
            vec![streams(), frame(epoch, ack(Lsn::new(u64::MAX))).encode()],
            Kind::Late,
        ),
    ]
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4_096
}

/// Sends the frames and waits until the other side hangs up or has answered all of them.
async fn tell(connection: &Connection, frames: &[Bytes]) {
    let (mut sender, mut receiver) = connection.open_control().await.unwrap();
    for frame in frames {
        // That it hung up already is what is asked for.
        let _ = sender.send(std::slice::from_ref(frame)).await;
        let answered = receiver.recv(CONTROL_FRAME_MAX);
        if !matches!(tokio::time::timeout(PATIENCE, answered).await, Ok(Ok(Some(_)))) {
            return;
        }
    }
}

async fn until_counted(cluster: &Cluster, victim: &str, kind: RefusalKind, over: u64, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while cluster.node(victim).status().refusals[&kind] <= over {
        let status = cluster.node(victim).status();
        assert!(Instant::now() < deadline, "{what}: not counted as {kind:?}: {status:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_lies_is_refused_by_name_and_the_others_are_served() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.start("a").await;
    cluster.start("b").await;
    assert_eq!(cluster.primary(PATIENCE).await, "a");
    cluster.write("a", "k", "before").await.unwrap();
    let control = cluster.control("a");
    let end = cluster.node("a").watermarks().flushed;
    let lies = lies(cluster.epoch("a"), &control.history, end);
    let liar = cluster.impostor("c", "127.0.0.1:0".parse().unwrap());
    let dial = async || liar.connect(cluster.address("a"), "a".parse().unwrap()).await.unwrap();
    for (what, frames, kind) in &lies {
        let before = cluster.node("a").status().refusals[kind];
        let connection = dial().await;
        tell(&connection, frames).await;
        until_counted(&cluster, "a", *kind, before, what).await;
    }
    let before = resident();
    for (_, frames, _) in lies.iter().cycle().take(ATTEMPTS) {
        let connection = dial().await;
        let _ = tokio::time::timeout(Duration::from_millis(20), tell(&connection, frames)).await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes for {ATTEMPTS} lies");
    cluster.write("a", "k", "after").await.unwrap();
    cluster.converge(PATIENCE).await;
    assert_eq!(cluster.state("b")["k"], "after");
    assert_eq!(cluster.epoch("a"), control.history.last_epoch(), "nobody was fenced");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_holds_too_many_connections_gets_no_more() {
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    cluster.start("a").await;
    let liar = cluster.impostor("c", "127.0.0.1:0".parse().unwrap());
    let mut held = Vec::new();
    for _ in 0..24 {
        held.push(liar.connect(cluster.address("a"), "a".parse().unwrap()).await.unwrap());
    }
    until_counted(&cluster, "a", RefusalKind::Crowding, 0, "24 connections").await;
    // The others never say a word.
    until_counted(&cluster, "a", RefusalKind::Silent, 0, "a silent peer").await;
    cluster.stop_all().await;
}

/// What a false primary says after its welcome: on the control stream, and as records.
struct Play {
    what: &'static str,
    welcome: Frame,
    control: Vec<Bytes>,
    records: Vec<Bytes>,
    kind: RefusalKind,
}

fn plays() -> Vec<Play> {
    use RefusalKind as Kind;
    let epoch = Epoch { number: 3, incarnation: Incarnation(100) };
    let welcome = |digest| {
        frame(epoch, Body::Welcome(Welcome::Stream { from: Lsn::ZERO, digest, until: None }))
    };
    let good = || welcome(Digest::EMPTY);
    let segment = SegmentIdentity { base: Lsn::ZERO, epoch, nonce: 5 };
    let records = |epoch, number, from| {
        let header = Records { epoch, number, segment, from: Lsn::new(from) };
        Bytes::from([&header.encode()[..], &[7; 64]].concat())
    };
    let news = || {
        let committed = Lsn::new(u64::MAX);
        Body::Heartbeat(Heartbeat { committed, appended: committed, lease_ms: 0, ended: false })
    };
    let old = Epoch { number: 2, ..epoch };
    let play =
        |what, welcome, control, records, kind| Play { what, welcome, control, records, kind };
    vec![
        play(
            "an answer of another log",
            Frame { log: LogId(9), ..good() },
            vec![],
            vec![],
            Kind::Foreign,
        ),
        play("no answer", frame(epoch, Body::Ask), vec![], vec![], Kind::OutOfPlace),
        play(
            "news out of place",
            good(),
            vec![frame(epoch, Body::Ask).encode()],
            vec![],
            Kind::OutOfPlace,
        ),
        play("news that is none", good(), vec![Bytes::from_static(b"?")], vec![], Kind::Malformed),
        play("old news", good(), vec![frame(old, news()).encode()], vec![], Kind::Late),
        play("no records", good(), vec![], vec![records(epoch, 1, 4_096)], Kind::Malformed),
        play(
            "records too far on",
            good(),
            vec![],
            vec![records(epoch, 2, 4_096)],
            Kind::OutOfPlace,
        ),
        play(
            "records at the end of all",
            good(),
            vec![],
            vec![records(epoch, 1, u64::MAX - 8)],
            Kind::Malformed,
        ),
        play("records of an old epoch", good(), vec![], vec![records(old, 1, 4_096)], Kind::Late),
        play(
            "no records frame",
            good(),
            vec![],
            vec![Bytes::from_static(b"short")],
            Kind::Malformed,
        ),
        play("an old primary", frame(old, good().body), vec![], vec![], Kind::Late),
        // The last: the victim's log and the cluster's are not the same, and it says so for good.
        play("another digest", welcome(Digest(1)), vec![], vec![], Kind::Contradiction),
    ]
}

/// Answers one dial; `None` if it was not for a stream.
async fn perform(liar: &Endpoint, play: &Play) -> Option<()> {
    let connection = liar.accept().await?.ok()?;
    let (mut sender, mut receiver): (FrameSender, FrameReceiver) =
        connection.accept_control().await.ok()?;
    let said = receiver.recv(CONTROL_FRAME_MAX).await.ok()??;
    let Body::Hello(hello) = Frame::decode(&said).ok()?.body else { return None };
    if hello.purpose != Purpose::Stream {
        return None;
    }
    sender.send(&[play.welcome.encode()]).await.ok()?;
    for said in &play.control {
        sender.send(std::slice::from_ref(said)).await.ok()?;
    }
    let mut tail = connection.open_uni(Priority::Tail).await.ok()?;
    for records in &play.records {
        tail.send(std::slice::from_ref(records)).await.ok()?;
    }
    let _ = tokio::time::timeout(Duration::from_secs(3), connection.closed()).await;
    Some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_primary_is_refused_by_name() {
    let mut cluster = Cluster::found(&["a", "b"], None);
    let liar = cluster.impostor("a", cluster.address("a"));
    cluster.start("b").await;
    for play in plays() {
        let before = cluster.node("b").status().refusals[&play.kind];
        let performed = async { while perform(&liar, &play).await.is_none() {} };
        tokio::time::timeout(PATIENCE, performed).await.expect(play.what);
        until_counted(&cluster, "b", play.kind, before, play.what).await;
    }
    let marks = cluster.node("b").watermarks();
    assert_eq!((marks.appended, marks.committed), (Lsn::ZERO, Lsn::ZERO));
    cluster.stop_all().await;
}

/// A primary's first frame: a BARRIER and records behind it, the last of which is damaged. Also
/// where the others end.
fn damaged(cluster: &Cluster, folder: &std::path::Path, epoch: Epoch) -> (Bytes, Lsn) {
    let theirs = cluster.control("b");
    let (node, voters) = ("a".parse().unwrap(), theirs.founding_voters);
    let alone = Founding::alone(LOG, node);
    let (cluster, segment_size) = (CLUSTER, theirs.segment_size);
    let founding = Founding { cluster, segment_size, voters: voters.clone(), ..alone };
    towline_wal::found(folder, &founding).unwrap();
    let (wal, _) = Wal::open(folder, Options::default()).unwrap();
    let terms = Terms::founding(voters);
    let barrier = Barrier { epoch, terms, ..wal.next_barrier() };
    wal.begin_epoch(&barrier).unwrap();
    let kept = wal.append(RecordKind::Data, 0, b"k=v").unwrap().end;
    wal.append(RecordKind::Data, 0, b"k=w").unwrap();
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Appended).unwrap();
    let chunk = cursor.next_chunk(1 << 20).unwrap().unwrap();
    let header = Records { epoch, number: 1, segment: chunk.segment, from: chunk.from };
    let mut frame = [&header.encode()[..], &chunk.bytes[..]].concat();
    let payload = frame.len() - 16;
    frame[payload] ^= 1;
    (frame.into(), kept)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_a_damaged_record_is_spoken_of_as_it_is() {
    let mut cluster = Cluster::found(&["a", "b"], None);
    let folder = tempfile::tempdir().unwrap();
    let epoch = Epoch { number: 3, incarnation: Incarnation(100) };
    let (records, kept) = damaged(&cluster, &folder.path().join("log"), epoch);
    let liar = cluster.impostor("a", cluster.address("a"));
    cluster.start("b").await;
    let good = Welcome::Stream { from: Lsn::ZERO, digest: Digest::EMPTY, until: None };
    let play = Play {
        what: "a damaged record",
        welcome: frame(epoch, Body::Welcome(good)),
        control: vec![],
        records: vec![records],
        kind: RefusalKind::Malformed,
    };
    let performed = async { while perform(&liar, &play).await.is_none() {} };
    tokio::time::timeout(PATIENCE, performed).await.expect(play.what);
    let next = async {
        loop {
            let connection = liar.accept().await.unwrap().unwrap();
            let (_sender, mut receiver) = connection.accept_control().await.unwrap();
            let said = receiver.recv(CONTROL_FRAME_MAX).await.unwrap().unwrap();
            match Frame::decode(&said).unwrap().body {
                Body::Hello(hello) if hello.purpose == Purpose::Stream => return hello,
                _ => {}
            }
        }
    };
    let hello = tokio::time::timeout(PATIENCE, next).await.expect("it dials again");
    assert_eq!((hello.history.last_epoch(), hello.end), (epoch, kept));
    cluster.stop_all().await;
}
