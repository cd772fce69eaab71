//! A small RESP2 client with several requests on the wire: what the demo writes and asks with.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The largest bulk string, and the most elements, a node's reply may have.
const REPLY_MAX: usize = 512 << 20;
/// The deepest nesting of a node's reply.
const DEPTH_MAX: usize = 4;
/// The longest line of a reply: a status, an error or a length.
const LINE_MAX_BYTES: u64 = 64 << 10;

/// What a node answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// A status, such as `OK`.
    Status(String),
    /// An error, its prefix first.
    Error(String),
    /// A number.
    Integer(i64),
    /// A value.
    Bulk(Bytes),
    /// No value.
    Nil,
    /// Several replies.
    Array(Vec<Reply>),
}

impl Reply {
    /// A status, number or value as text.
    #[must_use]
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Status(text) => Some(text.clone()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Error(_) | Self::Nil | Self::Array(_) => None,
        }
    }
}

/// A connection to a node.
pub(super) struct Client {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    /// Requests that have not been sent.
    unsent: Vec<u8>,
}

impl Client {
    /// Connects to a node's client address.
    ///
    /// # Errors
    /// If nobody listens there.
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self { read: BufReader::with_capacity(64 << 10, read), write, unsent: Vec::new() })
    }

    /// Sends one command and waits for its reply.
    ///
    /// # Errors
    /// If the connection breaks or the reply is none.
    pub(super) async fn call(&mut self, words: &[&[u8]]) -> io::Result<Reply> {
        self.push(words);
        self.flush().await?;
        self.receive().await
    }

    /// Adds a command to those that [`Client::flush`] sends.
    pub(super) fn push(&mut self, words: &[&[u8]]) {
        self.unsent.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.unsent.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.unsent.extend_from_slice(word);
            self.unsent.extend_from_slice(b"\r\n");
        }
    }

    /// Sends what was pushed.
    ///
    /// # Errors
    /// If the connection breaks.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.write.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }

    /// Waits for the next reply.
    ///
    /// # Errors
    /// If the connection breaks or the reply is none.
    pub(super) async fn receive(&mut self) -> io::Result<Reply> {
        self.receive_at(0).await
    }

    async fn receive_at(&mut self, depth: usize) -> io::Result<Reply> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| malformed(&line))?;
        let number = || rest.parse::<i64>().map_err(|_| malformed(&line));
        let len = |number: i64| {
            let len = usize::try_from(number).ok().filter(|len| *len <= REPLY_MAX);
            len.ok_or_else(|| malformed(&line))
        };
        match kind {
            "+" => Ok(Reply::Status(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            ":" => Ok(Reply::Integer(number()?)),
            "$" | "*" if rest == "-1" => Ok(Reply::Nil),
            "$" => {
                let mut bytes = vec![0; len(number()?)? + 2];
                self.read.read_exact(&mut bytes).await?;
                bytes.truncate(bytes.len() - 2);
                Ok(Reply::Bulk(bytes.into()))
            }
            "*" if depth < DEPTH_MAX => {
                let mut elements = Vec::new();
                for _ in 0..len(number()?)? {
                    elements.push(Box::pin(self.receive_at(depth + 1)).await?);
                }
                Ok(Reply::Array(elements))
            }
            _ => Err(malformed(&line)),
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.read).take(LINE_MAX_BYTES).read_line(&mut line).await?;
        match line.strip_suffix("\r\n") {
            Some(whole) => Ok(whole.to_owned()),
            None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Err(malformed(&line)),
        }
    }
}

fn malformed(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no reply: {line:?}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What a client reads from a node that says `bytes` and hangs up.
    async fn read(bytes: &'static [u8]) -> io::Result<Reply> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(bytes).await.unwrap();
        });
        Client::connect(address).await?.receive().await
    }

    #[tokio::test]
    async fn every_kind_of_reply_is_understood() {
        let bulk = Reply::Bulk(Bytes::from_static(b"a\r\nb"));
        for (bytes, reply) in [
            (&b"+OK\r\n"[..], Reply::Status("OK".to_owned())),
            (b"-READONLY no\r\n", Reply::Error("READONLY no".to_owned())),
            (b":-7\r\n", Reply::Integer(-7)),
            (b"$-1\r\n", Reply::Nil),
            (b"$4\r\na\r\nb\r\n", bulk.clone()),
            (b"*2\r\n:1\r\n$4\r\na\r\nb\r\n", Reply::Array(vec![Reply::Integer(1), bulk])),
        ] {
            assert_eq!(read(bytes).await.unwrap(), reply);
        }
    }

    #[tokio::test]
    async fn what_is_no_reply_is_an_error() {
        for bytes in [
            &b""[..],
            b"\r\n",
            b"+OK",
            b":x\r\n",
            b"$99999999999\r\n",
            b"$4\r\nab",
            b"\xff\xff\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        ] {
            assert!(read(bytes).await.is_err(), "{bytes:?}");
        }
    }
}
