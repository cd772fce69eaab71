//! One client's connection: requests are taken in order, their replies leave in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use towline::Leadership;
use towline_protocol::epoch::Epoch;

use crate::batch::{Batch, Waits};
use crate::clients::Client;
use crate::commands;
use crate::resp::{Parser, ProtocolError, Value};
use crate::server::Server;
use crate::session::Session;

/// Room for reading that a connection keeps.
const READ_LEN: usize = 16 << 10;
/// A connection's output buffer is given back once it has grown past this many bytes.
const OUTPUT_KEPT_MAX: usize = 64 << 10;
/// How long a client may let a request stand half-sent, or a reply unread.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How much a client may still send after its last reply, in bytes, and for how long.
const UNREAD_MAX: usize = 64 << 20;
const PART_MAX: Duration = Duration::from_secs(1);

/// A client's connection.
pub struct Connection {
    stream: TcpStream,
    server: Arc<Server>,
    session: Session,
    parser: Parser,
    input: BytesMut,
    output: BytesMut,
    /// A request that waits for the replies before it to leave.
    held: Option<Vec<Bytes>>,
    leadership: watch::Receiver<Leadership>,
    /// The epoch in which this node may write, as the connection last saw it.
    open: Option<Epoch>,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client closed it")]
    Closed,
    #[error("this node is no longer the primary of the epoch it served")]
    Demoted,
    #[error("the client let a request or a reply stand for {STALL_MAX:?}")]
    Stalled,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Connection {
    /// A connection over `stream` for a client that has been taken in.
    #[must_use]
    pub fn new(stream: TcpStream, server: Arc<Server>, client: Arc<Client>) -> Self {
        let mut leadership = server.node.leadership();
        let open = leadership.borrow_and_update().open;
        Self {
            stream,
            session: Session::new(client),
            parser: Parser::new(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            held: None,
            leadership,
            open,
            server,
        }
    }

    /// Serves the client until either side ends the connection.
    pub async fn serve(mut self) {
        let id = self.session.client.id;
        match self.requests().await {
            Ok(()) => {
                tracing::debug!(client = id, "the connection is closed");
                self.part().await;
            }
            Err(end) => tracing::debug!(client = id, "the connection ends: {end}"),
        }
        self.server.clients.leave(&self.session.client);
    }

    /// Lets the last reply arrive: closing with bytes unread would reset the connection, and the
    /// client might lose what is on its way to it.
    async fn part(&mut self) {
        let unread = async {
            self.stream.shutdown().await?;
            let mut left = UNREAD_MAX;
            while left > 0 {
                self.input.clear();
                self.input.reserve(READ_LEN);
                match self.stream.read_buf(&mut self.input).await? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            io::Result::Ok(())
        };
        // Whatever happens here, the connection is over.
        let _ = timeout(PART_MAX, unread).await;
    }

    async fn requests(&mut self) -> Result<(), End> {
        loop {
            if let Some(args) = self.held.take() {
                let value = self.long(&args).await?;
                let mut batch = Batch::default();
                batch.push(value, self.session.protocol, Waits::Nothing);
                self.send(batch).await?;
                continue;
            }
            let (batch, broken) = self.batch().await;
            if batch.is_empty() && self.held.is_none() && broken.is_none() {
                self.receive().await?;
                continue;
            }
            self.send(batch).await?;
            if let Some(error) = broken {
                let mut last = Batch::default();
                last.push(Value::error(error.to_string()), self.session.protocol, Waits::Nothing);
                return self.send(last).await;
            }
            if self.session.closing {
                return Ok(());
            }
        }
    }

    /// Runs the requests that have arrived, as many as may wait together.
    async fn batch(&mut self) -> (Batch, Option<ProtocolError>) {
        let mut batch = Batch::default();
        while !batch.is_full() && !self.session.closing {
            match self.parser.next(&mut self.input) {
                Ok(Some(args)) if commands::is_long(&args) => {
                    self.held = Some(args);
                    break;
                }
                Ok(Some(args)) => {
                    commands::run(&self.server, &mut self.session, &mut batch, &args).await;
                }
                Ok(None) => break,
                Err(error) => return (batch, Some(error)),
            }
        }
        (batch, None)
    }

    /// Waits until the replies may be seen, and sends them.
    async fn send(&mut self, batch: Batch) -> Result<(), End> {
        if batch.is_empty() {
            return Ok(());
        }
        let settled = self.server.write_path.settle(batch).await;
        for (value, protocol) in &settled.replies {
            value.encode(*protocol, &mut self.output);
        }
        drop(settled.replies);
        timeout(STALL_MAX, self.stream.write_all(&self.output))
            .await
            .map_err(|_| End::Stalled)??;
        if self.output.capacity() > OUTPUT_KEPT_MAX {
            self.output = BytesMut::new();
        }
        self.output.clear();
        if settled.close { Err(End::Demoted) } else { Ok(()) }
    }

    /// Reads more of what the client sends.
    async fn receive(&mut self) -> Result<(), End> {
        self.input.reserve(READ_LEN);
        let read = self.stream.read_buf(&mut self.input);
        let within = self.parser.is_within_request();
        let count = tokio::select! {
            () = demoted(&mut self.leadership, &mut self.open) => return Err(End::Demoted),
            () = tokio::time::sleep(STALL_MAX), if within => return Err(End::Stalled),
            count = read => count?,
        };
        if count == 0 {
            return Err(End::Closed);
        }
        self.session.client.touch();
        Ok(())
    }

    /// A command that may take long, given up when nobody waits for it any more.
    async fn long(&mut self, args: &[Bytes]) -> Result<Value, End> {
        self.server.count_command();
        tokio::select! {
            value = commands::run_long(&self.server, &mut self.session, args) => Ok(value),
            () = demoted(&mut self.leadership, &mut self.open) => Err(End::Demoted),
            end = hung_up(&self.stream) => Err(end),
        }
    }
}

/// Waits until this node stops being the open primary it was. A connection that began on a
/// replica lives through its promotion.
async fn demoted(leadership: &mut watch::Receiver<Leadership>, open: &mut Option<Epoch>) {
    loop {
        let now = leadership.borrow_and_update().open;
        if open.is_some() && now != *open {
            return;
        }
        *open = now;
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until the client has closed its side; for ever if it sends more instead.
async fn hung_up(stream: &TcpStream) -> End {
    match stream.peek(&mut [0]).await {
        Ok(0) => End::Closed,
        Ok(_) => std::future::pending().await,
        Err(error) => End::Io(error),
    }
}
