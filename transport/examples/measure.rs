//! Measures the transport on loopback: round trips of small frames, and throughput of large ones.
//!
//! `cargo run --release -p towline-transport --example measure -- [mtu] [send window in KiB]`

use std::net::UdpSocket;
use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Runtime;
use towline_protocol::id::{ClusterId, NodeId};
use towline_transport::{
    CertificateAuthority, Connection, Credentials, Endpoint, Priority, RECORDS_FRAME_MAX,
    TransportConfig,
};

const ROUNDS: usize = 20_000;
const FRAME: usize = 256 << 10;
const TOTAL: usize = 2 << 30;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut config = TransportConfig::default();
    let mut args = std::env::args().skip(1);
    if let Some(mtu) = args.next() {
        config.mtu = mtu.parse()?;
    }
    if let Some(kib) = args.next() {
        config.send_window = kib.parse::<u32>()? << 10;
    }
    let authority = CertificateAuthority::new(&ClusterId(1), "measure")?;
    let (a, b) = ("a".parse()?, "b".parse()?);
    // A runtime each, as two processes have: no task of one is on the other's threads.
    let (near, far) = (Runtime::new()?, Runtime::new()?);
    let server = far.block_on(async { endpoint(&authority, b, &config) })?;
    let addr = server.local_addr()?;
    let accepting = far.spawn(async move { (server.accept().await, server) });
    near.block_on(async {
        let client = endpoint(&authority, a, &config)?;
        let dialled = client.connect(addr, b).await?;
        let (accepted, _server) = accepting.await?;
        let accepted = accepted.ok_or("closed")??;
        round_trips(&dialled, &accepted, &far).await?;
        for _ in 0..3 {
            throughput(&dialled, &accepted, &far).await?;
        }
        Ok::<_, Failure>(())
    })?;
    far.shutdown_background();
    Ok(())
}

fn endpoint(
    authority: &CertificateAuthority,
    node: NodeId,
    config: &TransportConfig,
) -> Result<Endpoint, Failure> {
    let issued = authority.issue(node)?;
    let credentials = Credentials::from_pem(
        authority.cert_pem().as_bytes(),
        issued.cert_pem.as_bytes(),
        issued.key_pem.as_bytes(),
    )?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    Ok(Endpoint::bind(socket, credentials, config)?)
}

async fn round_trips(
    dialled: &Connection,
    accepted: &Connection,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let far = accepted.clone();
    let echo = runtime.spawn(async move {
        let (mut send, mut receive) = far.accept_control().await?;
        while let Some(frame) = receive.recv(1024).await? {
            send.send(&[frame]).await?;
        }
        Ok::<_, Failure>(())
    });
    let dialled = dialled.clone();
    let pings = tokio::spawn(async move {
        let (mut send, mut receive) = dialled.open_control().await?;
        let ping = [Bytes::from(vec![7; 128])];
        let mut micros = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let sent = Instant::now();
            send.send(&ping).await?;
            receive.recv(1024).await?.ok_or("ended")?;
            micros.push(sent.elapsed().as_nanos() as f64 / 1000.0);
        }
        send.finish();
        Ok::<_, Failure>(micros)
    });
    let mut micros = pings.await??;
    echo.await??;
    micros.sort_by(f64::total_cmp);
    let at = |part: f64| micros[(ROUNDS as f64 * part) as usize];
    println!(
        "128 B round trip: p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us",
        at(0.5),
        at(0.99),
        at(0.999)
    );
    Ok(())
}

async fn throughput(
    dialled: &Connection,
    accepted: &Connection,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let started = Instant::now();
    let far = accepted.clone();
    let sending = runtime.spawn(async move {
        let mut send = far.open_uni(Priority::Tail).await?;
        let frame = [Bytes::from(vec![7; FRAME])];
        for _ in 0..TOTAL / FRAME {
            send.send(&frame).await?;
        }
        send.finish();
        Ok::<_, Failure>(())
    });
    let near = dialled.clone();
    let receiving = tokio::spawn(async move {
        let mut receive = near.accept_uni().await?;
        let mut total = 0;
        while let Some(frame) = receive.recv(RECORDS_FRAME_MAX).await? {
            total += frame.len();
        }
        Ok::<_, Failure>(total)
    });
    sending.await??;
    let total = receiving.await??;
    let seconds = started.elapsed().as_secs_f64();
    println!("256 KiB frames: {:.2} GB/s ({total} bytes)", total as f64 / seconds / 1e9);
    Ok(())
}
