//! The writes: a few connections, each with several requests on the wire, that follow the primary
//! through a failover and note what they were told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::client::{Client, Reply};
use super::write::WriteId;

/// Connections that write at once.
pub(super) const CONNECTIONS: u32 = 8;
/// Requests a connection has on the wire at once.
const WINDOW: usize = 16;
/// How long a connection waits before it tries again.
const RETRY: Duration = Duration::from_millis(10);
/// How often in a row a connection may be refused before it gives up.
const REFUSALS_MAX: usize = 3_000;

/// What became of one write, as its client saw it. Times are microseconds since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) sent_us: u64,
    /// When its OK arrived; without one the outcome is unknown.
    pub(super) acked_us: Option<u64>,
}

/// What one connection saw: its attempts by sequence.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) connection: u32,
    pub(super) attempts: Vec<Attempt>,
    /// The first OK after it had to connect anew.
    pub(super) resumed_us: Option<u64>,
}

impl Ledger {
    /// The writes that were acknowledged.
    pub(super) fn acked(&self) -> impl Iterator<Item = WriteId> + '_ {
        let acked = self.attempts.iter().enumerate().filter(|(_, one)| one.acked_us.is_some());
        acked.map(|(sequence, _)| self.write(sequence as u64))
    }

    const fn write(&self, sequence: u64) -> WriteId {
        WriteId { connection: self.connection, sequence }
    }
}

/// What the connections share.
#[derive(Clone)]
pub(super) struct Course {
    pub(super) started: Instant,
    /// Writes per connection.
    pub(super) writes: u64,
    /// Where to write.
    pub(super) primary: watch::Receiver<SocketAddr>,
    /// OKs so far.
    pub(super) acked: Arc<AtomicU64>,
}

impl Course {
    /// Microseconds since the start.
    pub(super) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

/// Makes one connection's writes to the end.
///
/// # Errors
/// If no node takes its writes for long.
pub(super) async fn write_all(connection: u32, course: Course) -> Result<Ledger, String> {
    let mut ledger = Ledger { connection, ..Ledger::default() };
    let mut refusals = 0;
    let mut first = true;
    while (ledger.attempts.len() as u64) < course.writes {
        let before = ledger.attempts.len();
        let primary = *course.primary.borrow();
        let why = match Client::connect(primary).await {
            Ok(client) => {
                let broken = Session { course: &course, ledger: &mut ledger, client, first }.run();
                let broken = broken.await;
                first = false;
                broken
            }
            Err(error) => Some(error.to_string()),
        };
        let Some(why) = why else { break };
        // A connection that got anything through starts its patience anew.
        let acked = ledger.attempts[before..].iter().any(|one| one.acked_us.is_some());
        refusals = if acked { 0 } else { refusals + 1 };
        if refusals > REFUSALS_MAX {
            return Err(format!("connection {connection} gives up on {primary}: {why}"));
        }
        tokio::time::sleep(RETRY).await;
    }
    Ok(ledger)
}

/// One connection to one node.
struct Session<'a> {
    course: &'a Course,
    ledger: &'a mut Ledger,
    client: Client,
    /// Whether this is the connection's first node.
    first: bool,
}

impl Session<'_> {
    /// Writes until all is written (`None`) or the node is lost. What is on the wire then is of
    /// unknown outcome, and is not written again.
    async fn run(mut self) -> Option<String> {
        let mut on_the_wire = VecDeque::new();
        loop {
            while on_the_wire.len() < WINDOW
                && (self.ledger.attempts.len() as u64) < self.course.writes
            {
                let sequence = self.ledger.attempts.len() as u64;
                let write = self.ledger.write(sequence);
                self.client.push(&[b"SET", write.key().as_bytes(), &write.value()]);
                let sent_us = self.course.now_us();
                self.ledger.attempts.push(Attempt { sent_us, acked_us: None });
                on_the_wire.push_back(sequence as usize);
                // A lone refusal must not cost a window of writes.
                if !self.has_resumed() {
                    break;
                }
            }
            let sequence = on_the_wire.pop_front()?;
            if let Err(error) = self.client.flush().await {
                return Some(error.to_string());
            }
            match self.client.receive().await {
                Ok(Reply::Status(status)) if status == "OK" => self.acknowledge(sequence),
                Ok(other) => return Some(format!("{other:?}")),
                Err(error) => return Some(error.to_string()),
            }
        }
    }

    const fn has_resumed(&self) -> bool {
        self.first || self.ledger.resumed_us.is_some()
    }

    fn acknowledge(&mut self, sequence: usize) {
        let now_us = self.course.now_us();
        self.ledger.attempts[sequence].acked_us = Some(now_us);
        if !self.first && self.ledger.resumed_us.is_none() {
            self.ledger.resumed_us = Some(now_us);
        }
        self.course.acked.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Answers `oks` commands on one connection with OK, then hangs up.
    async fn answer(mut stream: TcpStream, oks: usize) {
        let (mut bytes, mut answered) = (Vec::new(), 0);
        while answered < oks {
            let Ok(1..) = stream.read_buf(&mut bytes).await else { return };
            let commands = bytes.windows(9).filter(|some| *some == b"$3\r\nSET\r\n").count();
            while answered < oks.min(commands) {
                stream.write_all(b"+OK\r\n").await.unwrap();
                answered += 1;
            }
        }
    }

    #[tokio::test]
    async fn a_connection_goes_on_where_the_primary_is_and_repeats_nothing() {
        let (old, new) = (listen().await, listen().await);
        let (lead, primary) = watch::channel(old.local_addr().unwrap());
        let course = Course {
            started: Instant::now(),
            writes: 60,
            primary,
            acked: Arc::new(AtomicU64::new(0)),
        };
        let writer = tokio::spawn(write_all(0, course.clone()));
        answer(old.accept().await.unwrap().0, 20).await;
        drop(old);
        let _ = lead.send(new.local_addr().unwrap());
        let stream = new.accept().await.unwrap().0;
        tokio::spawn(answer(stream, usize::MAX));
        let ledger = writer.await.unwrap().unwrap();
        let unknown = ledger.attempts.iter().filter(|one| one.acked_us.is_none()).count();
        assert_eq!(ledger.attempts.len(), 60);
        assert!((1..=WINDOW).contains(&unknown), "{unknown} of unknown outcome");
        assert_eq!(ledger.acked().count() as u64, course.acked.load(Ordering::Relaxed));
        assert!(ledger.resumed_us.is_some());
    }

    async fn listen() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }
}
