//! Replies, in the two versions of the protocol.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

/// The version of the protocol a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What every client speaks, and what a connection begins with.
    #[default]
    Resp2,
    /// With maps and a null of its own; asked for with `HELLO 3`.
    Resp3,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A short text without line breaks.
    Simple(Cow<'static, str>),
    /// An error: a code in capitals, then a text without line breaks.
    Error(Cow<'static, str>),
    /// A number.
    Integer(i64),
    /// Any bytes.
    Bulk(Bytes),
    /// A text for people.
    Text(String),
    /// No value.
    Null,
    /// No array.
    NullArray,
    /// A list.
    Array(Vec<Value>),
    /// Keys and values; a flat list before RESP3.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// `+OK`
    pub const OK: Self = Self::Simple(Cow::Borrowed("OK"));

    /// An error with this text.
    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(text.into())
    }

    /// A bulk string.
    pub fn bulk(bytes: impl Into<Bytes>) -> Self {
        Self::Bulk(bytes.into())
    }

    /// About how many bytes it takes on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        const FRAME: usize = 16;
        FRAME
            + match self {
                Self::Simple(text) | Self::Error(text) => text.len(),
                Self::Bulk(bytes) => bytes.len(),
                Self::Text(text) => text.len(),
                Self::Array(items) => items.iter().map(Self::wire_len).sum(),
                Self::Map(pairs) => {
                    pairs.iter().map(|(key, value)| key.wire_len() + value.wire_len()).sum()
                }
                Self::Integer(_) | Self::Null | Self::NullArray => 0,
            }
    }

    /// Writes it as bytes.
    pub fn encode(&self, protocol: Protocol, out: &mut BytesMut) {
        let resp3 = protocol == Protocol::Resp3;
        match self {
            Self::Simple(text) => line(out, b'+', text),
            Self::Error(text) => line(out, b'-', text),
            Self::Integer(number) => prefixed(out, b':', *number),
            Self::Bulk(bytes) => bulk(out, bytes),
            Self::Text(text) if resp3 => {
                prefixed(out, b'=', text.len() as i64 + 4);
                out.put_slice(b"txt:");
                out.put_slice(text.as_bytes());
                out.put_slice(b"\r\n");
            }
            Self::Text(text) => bulk(out, text.as_bytes()),
            Self::Null | Self::NullArray if resp3 => out.put_slice(b"_\r\n"),
            Self::Null => out.put_slice(b"$-1\r\n"),
            Self::NullArray => out.put_slice(b"*-1\r\n"),
            Self::Array(items) => {
                prefixed(out, b'*', items.len() as i64);
                for item in items {
                    item.encode(protocol, out);
                }
            }
            Self::Map(pairs) => {
                if resp3 {
                    prefixed(out, b'%', pairs.len() as i64);
                } else {
                    prefixed(out, b'*', pairs.len() as i64 * 2);
                }
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
        }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Bulk(Bytes::from_static(text.as_bytes()))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    prefixed(out, b'$', bytes.len() as i64);
    out.reserve(bytes.len() + 2);
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

/// A line must stay one: what came from a client could hold line breaks.
fn line(out: &mut BytesMut, kind: u8, text: &str) {
    out.reserve(text.len() + 3);
    out.put_u8(kind);
    for byte in text.bytes() {
        out.put_u8(if byte == b'\r' || byte == b'\n' { b' ' } else { byte });
    }
    out.put_slice(b"\r\n");
}

fn prefixed(out: &mut BytesMut, kind: u8, number: i64) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [0; DIGITS_MAX];
    let (mut at, mut rest) = (DIGITS_MAX, number.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.reserve(DIGITS_MAX + 4);
    out.put_u8(kind);
    if number < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &Value, protocol: Protocol) -> String {
        let mut out = BytesMut::new();
        value.encode(protocol, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn both_versions_of_every_reply() {
        let map = Value::Map(vec![("k".into(), Value::Null)]);
        let cases = [
            (Value::OK, "+OK\r\n", "+OK\r\n"),
            (Value::error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (Value::Integer(0), ":0\r\n", ":0\r\n"),
            (Value::Integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
            (Value::bulk("a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
            (Value::Text("t".to_owned()), "$1\r\nt\r\n", "=5\r\ntxt:t\r\n"),
            (Value::Null, "$-1\r\n", "_\r\n"),
            (Value::NullArray, "*-1\r\n", "_\r\n"),
            (Value::Array(vec![1.into()]), "*1\r\n:1\r\n", "*1\r\n:1\r\n"),
            (map, "*2\r\n$1\r\nk\r\n$-1\r\n", "%1\r\n$1\r\nk\r\n_\r\n"),
        ];
        for (value, resp2, resp3) in cases {
            assert_eq!(encoded(&value, Protocol::Resp2), resp2);
            assert_eq!(encoded(&value, Protocol::Resp3), resp3);
        }
    }
}
