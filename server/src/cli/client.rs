//! A client for nodes, as small as the verbs need it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// The longest reply that is believed, in bytes, and the most items of an array.
const REPLY_LEN_MAX: usize = 16 << 20;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest line.
const LINE_LEN_MAX: u64 = 64 << 10;

/// A node's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A short text, or bytes that are text.
    Text(String),
    Integer(i64),
    Null,
    Array(Vec<Answer>),
    /// The node refused, in its words.
    Error(String),
}

/// Asks the node at `address` once.
pub(super) fn ask(address: &str, args: &[&str], timeout: Duration) -> io::Result<Answer> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, timeout.min(CONNECT_TIMEOUT)) {
            Ok(stream) => return exchange(stream, args, timeout),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: TcpStream, args: &[&str], timeout: Duration) -> io::Result<Answer> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut request = format!("*{}\r\n", args.len());
    for arg in args {
        request.push_str(&format!("${}\r\n{arg}\r\n", arg.len()));
    }
    stream.write_all(request.as_bytes())?;
    answer(&mut BufReader::new(stream), true)
}

fn answer(reader: &mut impl BufRead, may_nest: bool) -> io::Result<Answer> {
    let mut line = String::new();
    reader.by_ref().take(LINE_LEN_MAX).read_line(&mut line)?;
    let line = line.strip_suffix("\r\n").ok_or_else(|| no_reply("it ends in the middle"))?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| no_reply("it is empty"))?;
    let number = || rest.parse::<i64>().map_err(|_| no_reply("a number is expected"));
    let len = || match number()? {
        -1 => Ok(None),
        len => usize::try_from(len)
            .ok()
            .filter(|len| *len <= REPLY_LEN_MAX)
            .map(Some)
            .ok_or_else(|| no_reply("its length is impossible")),
    };
    match kind {
        "+" => Ok(Answer::Text(rest.to_owned())),
        "-" => Ok(Answer::Error(rest.to_owned())),
        ":" => Ok(Answer::Integer(number()?)),
        "$" => match len()? {
            None => Ok(Answer::Null),
            Some(len) => bulk(reader, len),
        },
        "*" if may_nest => match len()? {
            None => Ok(Answer::Null),
            Some(len) => {
                let items = (0..len).map(|_| answer(reader, false));
                Ok(Answer::Array(items.collect::<io::Result<_>>()?))
            }
        },
        _ => Err(no_reply("its kind is unknown")),
    }
}

fn bulk(reader: &mut impl BufRead, len: usize) -> io::Result<Answer> {
    let mut bytes = vec![0; len + 2];
    reader.read_exact(&mut bytes)?;
    bytes.truncate(len);
    let text = String::from_utf8(bytes).map_err(|_| no_reply("it is no text"))?;
    Ok(Answer::Text(text))
}

fn no_reply(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("what answers there is no node: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<Answer> {
        answer(&mut text.as_bytes(), true)
    }

    #[test]
    fn answers_are_read_and_nonsense_is_an_error() {
        let text = |text: &str| Answer::Text(text.to_owned());
        assert_eq!(read("+OK\r\n").unwrap(), text("OK"));
        assert_eq!(read("$2\r\nhi\r\n").unwrap(), text("hi"));
        assert_eq!(read("$-1\r\n").unwrap(), Answer::Null);
        assert_eq!(
            read("*2\r\n:-7\r\n-ERR no\r\n").unwrap(),
            Answer::Array(vec![Answer::Integer(-7), Answer::Error("ERR no".to_owned())])
        );
        for nonsense in ["", "\r\n", "+OK", "$9\r\nhi\r\n", "$99999999999\r\n", "HTTP/1.1 400\r\n"]
        {
            assert!(read(nonsense).is_err(), "{nonsense:?}");
        }
        assert!(read(&"*1\r\n".repeat(10_000)).is_err());
    }
}
