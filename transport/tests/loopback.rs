//! Two endpoints on loopback: who is let in, what is refused, and what arrives.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use towline_protocol::id::{ClusterId, NodeId};
use towline_transport::{
    CONTROL_FRAME_MAX, CertificateAuthority, Closed, ConnectError, Connection, Credentials,
    Endpoint, FrameError, IssuedCertificate, Priority, RECORDS_FRAME_MAX, Refusal, TransportConfig,
};

const CLUSTER: ClusterId = ClusterId(0xc1);

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn authority(cluster: ClusterId) -> CertificateAuthority {
    CertificateAuthority::new(&cluster, "test").unwrap()
}

fn credentials(authority: &CertificateAuthority, issued: &IssuedCertificate) -> Credentials {
    Credentials::from_pem(
        authority.cert_pem().as_bytes(),
        issued.cert_pem.as_bytes(),
        issued.key_pem.as_bytes(),
    )
    .unwrap()
}

fn issued(authority: &CertificateAuthority, name: &str) -> Credentials {
    credentials(authority, &authority.issue(node(name)).unwrap())
}

fn endpoint(credentials: Credentials) -> (Endpoint, SocketAddr) {
    let config = TransportConfig { handshake_timeout_ms: 2_000, ..TransportConfig::default() };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::bind(socket, credentials, &config).unwrap();
    let addr = endpoint.local_addr().unwrap();
    (endpoint, addr)
}

/// Dials `b` from `a`, expecting it to be node `expect`; what each side says of it.
async fn meet(
    a: Credentials,
    b: Credentials,
    expect: &str,
) -> (Result<Connection, ConnectError>, Result<Connection, ConnectError>) {
    let (a, _) = endpoint(a);
    let (b, addr) = endpoint(b);
    let accepting = async {
        let accepted = tokio::time::timeout(Duration::from_secs(4), b.accept()).await;
        accepted.unwrap().unwrap()
    };
    tokio::join!(a.connect(addr, node(expect)), accepting)
}

/// Two nodes that let each other in: endpoints to keep alive, and both ends of the connection.
async fn pair() -> ([Endpoint; 2], Connection, Connection) {
    let ca = authority(CLUSTER);
    let (a, _) = endpoint(issued(&ca, "a"));
    let (b, addr) = endpoint(issued(&ca, "b"));
    let (dialled, accepted) = tokio::join!(a.connect(addr, node("b")), b.accept());
    ([a, b], dialled.unwrap(), accepted.unwrap().unwrap())
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let (_endpoints, dialled, accepted) = pair().await;
    assert_eq!(dialled.peer().node, node("b"));
    assert_eq!(accepted.peer().node, node("a"));
    assert_eq!(accepted.peer().cluster, CLUSTER);
    assert!(dialled.rtt() > Duration::ZERO);

    dialled.close(7, "done");
    let text = "done".to_owned();
    assert_eq!(accepted.closed().await, Closed::ByPeer { code: 7, text });
    assert_eq!(dialled.closed().await, Closed::Here);
}

#[tokio::test]
async fn another_authority_is_refused_and_both_sides_know_why() {
    let ours = authority(CLUSTER);
    // Of the same name, and of another.
    for theirs in [authority(CLUSTER), authority(ClusterId(0xc2))] {
        let (dialled, accepted) = meet(issued(&theirs, "a"), issued(&ours, "b"), "b").await;
        let refused = dialled.unwrap_err();
        assert!(matches!(
            &refused,
            ConnectError::Refused { reason: Refusal::ForeignAuthority, .. }
        ));
        let text = refused.to_string();
        assert!(text.contains("certificate of another authority"), "{text}");
        let told = accepted.unwrap_err().to_string();
        assert!(told.contains("does not know the authority"), "{told}");
    }
}

#[tokio::test]
async fn a_dialer_of_another_authority_is_refused_by_the_accepting_side() {
    let (ours, theirs) = (authority(CLUSTER), authority(CLUSTER));
    // It trusts our authority, but its own certificate is of another.
    let stranger = credentials(&ours, &theirs.issue(node("a")).unwrap());
    let (dialled, accepted) = meet(stranger, issued(&ours, "b"), "b").await;
    assert!(matches!(
        accepted.unwrap_err(),
        ConnectError::Refused { reason: Refusal::ForeignAuthority, .. }
    ));
    let told = dialled.unwrap_err().to_string();
    assert!(told.contains("does not know the authority"), "{told}");
}

/// An authority with the same key and name whose nodes are of another cluster cannot be made
/// through the interface, so the certificate is made by hand.
fn of_other_cluster(ca: &CertificateAuthority, name: &str) -> IssuedCertificate {
    let key = rcgen::KeyPair::from_pem(&ca.key_pem()).unwrap();
    let mut issuer = rcgen::CertificateParams::default();
    issuer.distinguished_name = rcgen::DistinguishedName::new();
    let subject = format!("Towline test {CLUSTER}");
    issuer.distinguished_name.push(rcgen::DnType::CommonName, subject);
    let issuer = rcgen::Issuer::new(issuer, key);
    let name = format!("{name}.{}.towline", ClusterId(0xc2));
    let mut params = rcgen::CertificateParams::new(vec![name]).unwrap();
    params.extended_key_usages = vec![
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        rcgen::ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = rcgen::KeyPair::generate().unwrap();
    IssuedCertificate {
        cert_pem: params.signed_by(&key, &issuer).unwrap().pem(),
        key_pem: key.serialize_pem(),
    }
}

#[tokio::test]
async fn another_cluster_under_the_same_authority_is_refused() {
    let ca = authority(CLUSTER);
    let other = credentials(&ca, &of_other_cluster(&ca, "b"));
    assert_eq!(other.identity().cluster, ClusterId(0xc2));
    let (dialled, accepted) = meet(issued(&ca, "a"), other.clone(), "b").await;
    let refused = dialled.unwrap_err();
    let expected = Refusal::OtherCluster { found: ClusterId(0xc2), own: CLUSTER };
    assert!(
        matches!(&refused, ConnectError::Refused { reason, .. } if *reason == expected),
        "{refused}"
    );
    let told = accepted.unwrap_err().to_string();
    assert!(told.contains("belongs to another cluster"), "{told}");
    // The other way round it is the dialer again that notices.
    let (dialled, accepted) = meet(other, issued(&ca, "a"), "a").await;
    assert!(dialled.is_err() && accepted.is_err());
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_its_date() {
    let ca = authority(CLUSTER);
    let date = |year| {
        time::Date::from_calendar_date(year, time::Month::March, 9).unwrap().midnight().assume_utc()
    };
    let old = ca.issue_with_validity(node("b"), date(2019), date(2020)).unwrap();
    let old = credentials(&ca, &old);
    let (dialled, accepted) = meet(issued(&ca, "a"), old.clone(), "b").await;
    let refused = dialled.unwrap_err().to_string();
    assert!(refused.contains("expired on 2020-03-09"), "{refused}");
    let told = accepted.unwrap_err().to_string();
    assert!(told.contains("this node's certificate is expired"), "{told}");

    // Dialling with one is refused as well, and the dialer is told before `connect` returns.
    let (dialled, accepted) = meet(old, issued(&ca, "a"), "a").await;
    let refused = accepted.unwrap_err().to_string();
    assert!(refused.contains("expired on 2020-03-09"), "{refused}");
    let told = dialled.unwrap_err().to_string();
    assert!(told.contains("this node's certificate is expired"), "{told}");

    let day = time::Duration::days(1);
    let now = OffsetDateTime::now_utc();
    let early = ca.issue_with_validity(node("b"), now + day, now + 2 * day).unwrap();
    let (dialled, _) = meet(issued(&ca, "a"), credentials(&ca, &early), "b").await;
    let refused = dialled.unwrap_err().to_string();
    assert!(refused.contains("not valid before"), "{refused}");
}

#[tokio::test]
async fn another_node_than_expected_is_refused() {
    let ca = authority(CLUSTER);
    let (dialled, accepted) = meet(issued(&ca, "a"), issued(&ca, "b"), "c").await;
    let refused = dialled.unwrap_err().to_string();
    assert!(refused.contains("node b answered where c was expected"), "{refused}");
    let told = accepted.unwrap_err().to_string();
    assert!(told.contains("not the one it expected"), "{told}");
}

#[tokio::test]
async fn silence_is_an_answer_in_time() {
    let ca = authority(CLUSTER);
    let (a, _) = endpoint(issued(&ca, "a"));
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dialled = a.connect(mute.local_addr().unwrap(), node("b")).await;
    assert!(matches!(dialled, Err(ConnectError::NoAnswer { after_ms: 2_000, .. })));
    let nameless = a.connect(mute.local_addr().unwrap(), node("b-")).await;
    assert!(matches!(nameless, Err(ConnectError::Name(_))));
}

#[tokio::test]
async fn a_closed_endpoint_accepts_and_dials_no_more() {
    let ([a, b], dialled, accepted) = pair().await;
    b.close(3, "stopping").await;
    let text = "stopping".to_owned();
    assert_eq!(dialled.closed().await, Closed::ByPeer { code: 3, text });
    assert_eq!(accepted.closed().await, Closed::Here);
    assert!(b.accept().await.is_none());
    let addr = a.local_addr().unwrap();
    assert!(matches!(b.connect(addr, node("a")).await, Err(ConnectError::EndpointClosed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_as_they_were_sent() {
    let (_endpoints, dialled, accepted) = pair().await;
    let body = |len: usize| Bytes::from_iter((0..len).map(|at| (at % 251) as u8));
    let lens = [0, 1, 1_000, 1_024, 1_025, 256 << 10, 16 << 20, RECORDS_FRAME_MAX];
    let sending = async {
        let mut sender = dialled.open_uni(Priority::Tail).await.unwrap();
        for len in lens {
            let whole = body(len);
            let half = whole.len() / 2;
            let parts = [whole.slice(..half), whole.slice(half..)];
            sender.send(&parts).await.unwrap();
        }
        let over = Bytes::from(vec![0; RECORDS_FRAME_MAX + 1]);
        assert!(matches!(sender.send(&[over]).await, Err(FrameError::TooLarge { .. })));
        sender.finish();
        assert_eq!(sender.send(&[]).await, Err(FrameError::Ended));
    };
    let receiving = async {
        let mut receiver = accepted.accept_uni().await.unwrap();
        for len in lens {
            let frame = receiver.recv(RECORDS_FRAME_MAX).await.unwrap().unwrap();
            assert_eq!(frame, body(len), "{len} bytes");
        }
        assert_eq!(receiver.recv(RECORDS_FRAME_MAX).await, Ok(None));
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn a_frame_over_the_bound_is_refused() {
    let (_endpoints, dialled, accepted) = pair().await;
    let (mut sender, _answers) = dialled.open_control().await.unwrap();
    let large = Bytes::from(vec![0; CONTROL_FRAME_MAX + 1]);
    let receiving = async {
        let (_answers, mut receiver) = accepted.accept_control().await.unwrap();
        for _ in 0..2 {
            let refused = receiver.recv(CONTROL_FRAME_MAX).await;
            let (len, max) = (CONTROL_FRAME_MAX + 1, CONTROL_FRAME_MAX);
            assert_eq!(refused, Err(FrameError::TooLarge { len, max }));
        }
        receiver.stop(9);
    };
    let (sent, ()) = tokio::join!(sender.send(std::slice::from_ref(&large)), receiving);
    assert!(matches!(sent, Ok(()) | Err(FrameError::Reset(9))));
}

#[tokio::test]
async fn a_frame_cut_short_is_an_error() {
    let (_endpoints, dialled, accepted) = pair().await;
    let mut sender = dialled.open_uni(Priority::Tail).await.unwrap();
    // Larger than every window, and nobody reads yet: it stays half sent.
    let large = Bytes::from(vec![0; 16 << 20]);
    let cancelled =
        tokio::time::timeout(Duration::from_millis(200), sender.send(std::slice::from_ref(&large)));
    assert!(cancelled.await.is_err());
    assert_eq!(sender.send(std::slice::from_ref(&large)).await, Err(FrameError::Ended));
    drop(sender);
    let mut receiver = accepted.accept_uni().await.unwrap();
    let cut = receiver.recv(RECORDS_FRAME_MAX).await;
    assert!(matches!(cut, Err(FrameError::Truncated { .. })), "{cut:?}");

    let mut sender = dialled.open_uni(Priority::Bulk).await.unwrap();
    sender.send(&[Bytes::from_static(b"x")]).await.unwrap();
    let mut receiver = accepted.accept_uni().await.unwrap();
    assert!(receiver.recv(1).await.unwrap().is_some());
    sender.reset(4);
    assert_eq!(receiver.recv(1).await, Err(FrameError::Reset(4)));

    let mut sender = dialled.open_uni(Priority::Bulk).await.unwrap();
    sender.send(&[Bytes::from_static(b"x")]).await.unwrap();
    let mut receiver = accepted.accept_uni().await.unwrap();
    assert!(receiver.recv(1).await.unwrap().is_some());
    dialled.close(1, "gone");
    assert!(matches!(
        receiver.recv(1).await,
        Err(FrameError::Closed(Closed::ByPeer { code: 1, .. }))
    ));
}

#[tokio::test]
async fn a_cancelled_receive_loses_nothing() {
    let (_endpoints, dialled, accepted) = pair().await;
    let body = Bytes::from_iter((0..8_usize << 20).map(|at| (at % 251) as u8));
    let mut sender = dialled.open_uni(Priority::Tail).await.unwrap();
    let sent = body.clone();
    let sending = tokio::spawn(async move {
        sender.send(&[sent]).await.unwrap();
        sender
    });
    let mut receiver = accepted.accept_uni().await.unwrap();
    let mut cancelled = 0;
    let frame = loop {
        let wait = Duration::from_micros(300);
        match tokio::time::timeout(wait, receiver.recv(RECORDS_FRAME_MAX)).await {
            Ok(frame) => break frame.unwrap().unwrap(),
            Err(_) => cancelled += 1,
        }
    };
    assert!(cancelled > 0);
    assert_eq!(frame, body);
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn garbage_disturbs_nobody() {
    let ca = authority(CLUSTER);
    let (a, a_addr) = endpoint(issued(&ca, "a"));
    let (b, addr) = endpoint(issued(&ca, "b"));
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    let throw = |seed: u64| {
        let mut state = seed | 1;
        for len in 0..400_usize {
            let packet: Vec<u8> = (0..len * 3)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            noise.send_to(&packet, addr).unwrap();
            noise.send_to(&packet, a_addr).unwrap();
        }
    };
    throw(1);
    let (dialled, accepted) = tokio::join!(a.connect(addr, node("b")), b.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap().unwrap());
    throw(2);
    ping_pong(&dialled, &accepted, 100).await;
    throw(3);
    ping_pong(&dialled, &accepted, 100).await;
}

async fn ping_pong(dialled: &Connection, accepted: &Connection, rounds: usize) {
    let (mut send, mut receive) = dialled.open_control().await.unwrap();
    let pings = async {
        for round in 0..rounds {
            let ping = Bytes::from(vec![round as u8; 128]);
            send.send(std::slice::from_ref(&ping)).await.unwrap();
            let pong = receive.recv(CONTROL_FRAME_MAX).await.unwrap().unwrap();
            assert_eq!(pong, ping);
        }
        send.finish();
    };
    let pongs = async {
        let (mut send, mut receive) = accepted.accept_control().await.unwrap();
        while let Some(ping) = receive.recv(CONTROL_FRAME_MAX).await.unwrap() {
            send.send(&[ping]).await.unwrap();
        }
    };
    tokio::join!(pings, pongs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_small_frames_go_there_and_back() {
    let (_endpoints, dialled, accepted) = pair().await;
    ping_pong(&dialled, &accepted, 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_client_never_blocks_the_others() {
    let (ours, theirs) = (authority(CLUSTER), authority(CLUSTER));
    let (b, addr) = endpoint(issued(&ours, "b"));
    let mut strangers = Vec::new();
    for _ in 0..40 {
        let (stranger, _) = endpoint(credentials(&ours, &theirs.issue(node("x")).unwrap()));
        strangers
            .push(tokio::spawn(async move { stranger.connect(addr, node("b")).await.map(drop) }));
    }
    let (a, _) = endpoint(issued(&ours, "a"));
    let accepting = async {
        loop {
            if let Ok(connection) = b.accept().await.unwrap() {
                break connection;
            }
        }
    };
    let (dialled, accepted) = tokio::join!(a.connect(addr, node("b")), accepting);
    assert_eq!(dialled.unwrap().peer().node, node("b"));
    assert_eq!(accepted.peer().node, node("a"));
    for stranger in strangers {
        assert!(stranger.await.unwrap().is_err());
    }
}
