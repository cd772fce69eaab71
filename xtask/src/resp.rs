//! A blocking RESP2 client, as small as the tests need.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The largest reply a test expects.
const REPLY_MAX_BYTES: usize = 64 << 20;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A status, an integer or a bulk string.
    Text(String),
    /// An error, its prefix included.
    Error(String),
    /// No value.
    Nil,
    /// An array.
    Array(Vec<Reply>),
}

/// A connection.
pub(crate) struct Resp {
    stream: BufReader<TcpStream>,
}

impl Resp {
    pub(crate) fn connect(address: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends one command and waits for its reply.
    pub(crate) fn call(&mut self, words: &[&str]) -> Result<Reply> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.reply().with_context(|| format!("no reply to {}", words.join(" ")))
    }

    fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        let line = line.trim_end();
        let Some(kind) = line.chars().next().filter(char::is_ascii) else {
            bail!("an empty reply");
        };
        let rest = &line[1..];
        Ok(match kind {
            '+' | ':' => Reply::Text(rest.to_owned()),
            '-' => Reply::Error(rest.to_owned()),
            '$' if rest == "-1" => Reply::Nil,
            '$' => {
                let len: usize = rest.parse()?;
                if len > REPLY_MAX_BYTES {
                    bail!("a reply of {len} bytes");
                }
                let mut bytes = vec![0; len + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(len);
                Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
            '*' if rest == "-1" => Reply::Nil,
            '*' => {
                let count: usize = rest.parse()?;
                if count > REPLY_MAX_BYTES {
                    bail!("a reply of {count} elements");
                }
                Reply::Array((0..count).map(|_| self.reply()).collect::<Result<_>>()?)
            }
            other => bail!("a reply of kind {other:?}: {line}"),
        })
    }
}
