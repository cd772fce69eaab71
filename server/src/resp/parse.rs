//! Requests: a flat array of bulk strings, or an inline line.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use super::inline;

/// The most arguments one request may have.
pub const MAX_ARGS: usize = 1024 * 1024;
/// The longest argument, in bytes: with its key it must fit the largest record of a log with
/// segments of the default size.
pub const MAX_BULK_LEN: usize = (16 << 20) - (64 << 10);
/// The most bytes one request may have, all framing included.
pub const MAX_REQUEST_LEN: usize = 32 << 20;
/// The longest inline request, and the longest line that announces a length, in bytes.
pub const INLINE_LEN_MAX: usize = 64 << 10;
/// Requests up to this many bytes are copied out of the read buffer: an argument that stays alive
/// (queued, or in an effect) would otherwise keep a whole read buffer alive with it.
const COPY_LEN_MAX: usize = 16 << 10;
/// Arguments that room is made for before they have arrived.
const EXPECTED_ARGS_MAX: usize = 64;

/// A request that breaks the protocol. The connection ends after the error is sent: where the
/// next request would begin is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ERR Protocol error: {0}")]
pub struct ProtocolError(pub String);

impl ProtocolError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Where in a request the parser stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before its first byte.
    Start,
    /// `missing` arguments are still to come.
    Args { missing: usize },
    /// The bytes of an argument of this length are to come.
    Bulk { missing: usize, len: usize },
    /// In an inline line.
    Inline,
}

/// Cuts requests out of a read buffer. It remembers where it stopped, so a request that arrives
/// in many pieces is looked at once.
#[derive(Debug)]
pub struct Parser {
    state: State,
    /// Bytes of the buffer's front that are understood.
    at: usize,
    /// Bytes of the buffer's front that hold no end of the present line.
    scanned: usize,
    /// Where the arguments lie.
    args: Vec<Range<usize>>,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A parser before its first request.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Start, at: 0, scanned: 0, args: Vec::new() }
    }

    /// Whether a request has begun and not ended.
    #[must_use]
    pub fn is_within_request(&self) -> bool {
        self.state != State::Start
    }

    /// Takes the next whole request out of `buffer`: its arguments, at least one. `None` if more
    /// bytes are needed; `buffer` must then only be appended to.
    ///
    /// # Errors
    /// [`ProtocolError`] if what is there can never become a request.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            let ended = match self.state {
                State::Start => match buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => self.count(buffer)?,
                    Some(_) => {
                        self.state = State::Inline;
                        true
                    }
                },
                State::Inline => return self.inline(buffer),
                State::Args { missing: 0 } => return Ok(Some(self.take(buffer))),
                State::Args { missing } => self.length(buffer, missing)?,
                State::Bulk { missing, len } => self.bulk(buffer, missing, len)?,
            };
            if !ended {
                return Ok(None);
            }
        }
    }

    /// `*<count>\r\n`
    fn count(&mut self, buffer: &mut BytesMut) -> Result<bool, ProtocolError> {
        let Some(line) = self.line(buffer, "too big mbulk count string")? else {
            return Ok(false);
        };
        let count = number(&buffer[line])
            .filter(|&count| count <= MAX_ARGS as i64)
            .ok_or_else(|| ProtocolError::new("invalid multibulk length"))?;
        if count <= 0 {
            buffer.advance(self.at);
            self.reset();
            return Ok(true);
        }
        let count = count as usize;
        self.args.reserve(count.min(EXPECTED_ARGS_MAX));
        self.state = State::Args { missing: count };
        Ok(true)
    }

    /// `$<length>\r\n`
    fn length(&mut self, buffer: &BytesMut, missing: usize) -> Result<bool, ProtocolError> {
        let Some(&first) = buffer.get(self.at) else {
            return Ok(false);
        };
        if first != b'$' {
            let got = char::from(first).escape_default();
            return Err(ProtocolError::new(format!("expected '$', got '{got}'")));
        }
        let Some(line) = self.line(buffer, "too big bulk count string")? else {
            return Ok(false);
        };
        let len = number(&buffer[line])
            .filter(|&len| len >= 0 && len <= MAX_BULK_LEN as i64)
            .ok_or_else(|| ProtocolError::new("invalid bulk length"))? as usize;
        if self.at + len > MAX_REQUEST_LEN {
            return Err(ProtocolError::new("too big request"));
        }
        self.state = State::Bulk { missing, len };
        Ok(true)
    }

    /// `<bytes>\r\n`
    fn bulk(
        &mut self,
        buffer: &BytesMut,
        missing: usize,
        len: usize,
    ) -> Result<bool, ProtocolError> {
        let end = self.at + len;
        let Some(after) = buffer.get(end..end + 2) else {
            return Ok(false);
        };
        if after != b"\r\n" {
            return Err(ProtocolError::new("invalid bulk length"));
        }
        self.args.push(self.at..end);
        self.at = end + 2;
        self.scanned = self.at;
        self.state = State::Args { missing: missing - 1 };
        Ok(true)
    }

    /// An inline line; empty ones are skipped, as a person at a keyboard sends them.
    fn inline(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        let found = memchr::memchr(b'\n', &buffer[self.scanned..]).map(|at| self.scanned + at);
        if found.unwrap_or(buffer.len()) > INLINE_LEN_MAX {
            return Err(ProtocolError::new("too big inline request"));
        }
        let Some(end) = found else {
            self.scanned = buffer.len();
            return Ok(None);
        };
        let line = buffer.split_to(end + 1);
        self.reset();
        let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
        let args = inline::split(line)
            .ok_or_else(|| ProtocolError::new("unbalanced quotes in request"))?;
        if args.is_empty() { self.next(buffer) } else { Ok(Some(args)) }
    }

    /// The line at `self.at`, without its first byte and its end; moves behind it.
    fn line(
        &mut self,
        buffer: &BytesMut,
        too_big: &str,
    ) -> Result<Option<Range<usize>>, ProtocolError> {
        let from = self.scanned.max(self.at);
        let found = memchr::memchr(b'\n', &buffer[from..]).map(|at| from + at);
        if found.unwrap_or(buffer.len()) - self.at > INLINE_LEN_MAX {
            return Err(ProtocolError::new(too_big));
        }
        let Some(end) = found else {
            self.scanned = buffer.len();
            return Ok(None);
        };
        let line = self.at + 1..end.saturating_sub(1).max(self.at + 1);
        // A line without its carriage return is left to fail as a number.
        let line = if buffer[end - 1] == b'\r' { line } else { self.at + 1..end + 1 };
        self.at = end + 1;
        self.scanned = self.at;
        Ok(Some(line))
    }

    /// The finished request.
    fn take(&mut self, buffer: &mut BytesMut) -> Vec<Bytes> {
        let request = if self.at <= COPY_LEN_MAX {
            let copy = Bytes::copy_from_slice(&buffer[..self.at]);
            buffer.advance(self.at);
            copy
        } else {
            buffer.split_to(self.at).freeze()
        };
        let args = self.args.drain(..).map(|arg| request.slice(arg)).collect();
        self.reset();
        args
    }

    fn reset(&mut self) {
        self.state = State::Start;
        self.at = 0;
        self.scanned = 0;
        self.args.clear();
        self.args.shrink_to(EXPECTED_ARGS_MAX);
    }
}

/// A decimal number as Redis reads it: no plus sign, no leading zeros, no spaces.
fn number(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
