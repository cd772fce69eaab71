//! Commands about the connection itself.

use bytes::Bytes;

use super::wrong_arity;
use crate::clients::NAME_LEN_MAX;
use crate::resp::{Protocol, Value};
use crate::server::{REDIS_VERSION, Server};
use crate::session::Session;

pub(super) fn ping(args: &[Bytes]) -> Value {
    match args {
        [_] => Value::Simple("PONG".into()),
        [_, text] => Value::Bulk(text.clone()),
        _ => wrong_arity("ping"),
    }
}

pub(super) fn select(args: &[Bytes]) -> Value {
    match std::str::from_utf8(&args[1]).ok().and_then(|text| text.parse::<i64>().ok()) {
        Some(0) => Value::OK,
        Some(_) => Value::error("ERR DB index is out of range"),
        None => Value::error("ERR value is not an integer or out of range"),
    }
}

pub(super) fn quit(session: &mut Session) -> Value {
    session.closing = true;
    Value::OK
}

pub(super) fn reset(session: &mut Session) -> Value {
    session.transaction = None;
    session.protocol = Protocol::Resp2;
    session.client.rename(|names| names.name.clear());
    Value::Simple("RESET".into())
}

pub(super) fn auth() -> Value {
    Value::error(
        "ERR AUTH <password> called without any password configured for the default user. Are you \
         sure your configuration is correct?",
    )
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`
pub(super) fn hello(server: &Server, session: &mut Session, args: &[Bytes]) -> Value {
    let protocol = match args.get(1).map(|version| &version[..]) {
        None => session.protocol,
        Some(b"2") => Protocol::Resp2,
        Some(b"3") => Protocol::Resp3,
        Some(version) if version.iter().all(u8::is_ascii_digit) => {
            return Value::error("NOPROTO unsupported protocol version");
        }
        Some(_) => {
            return Value::error("ERR Protocol version is not an integer or out of range");
        }
    };
    let mut options = args.get(2..).unwrap_or_default();
    let mut name = None;
    loop {
        options = match options {
            [] => break,
            [option, _, _, ..] if option.eq_ignore_ascii_case(b"auth") => return auth(),
            [option, given, rest @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                match valid_name(given) {
                    Ok(valid) => name = Some(valid),
                    Err(error) => return error,
                }
                rest
            }
            [option, ..] => {
                let option = String::from_utf8_lossy(option);
                return Value::error(format!("ERR Syntax error in HELLO option '{option}'"));
            }
        };
    }
    session.protocol = protocol;
    if let Some(name) = name {
        session.client.rename(|names| names.name = name);
    }
    greeting(server, session)
}

fn greeting(server: &Server, session: &Session) -> Value {
    let version = if session.protocol == Protocol::Resp3 { 3 } else { 2 };
    let role = if server.write_path.is_open() { "master" } else { "replica" };
    Value::Map(vec![
        ("server".into(), "redis".into()),
        ("version".into(), REDIS_VERSION.into()),
        ("proto".into(), Value::Integer(version)),
        ("id".into(), Value::Integer(session.client.id as i64)),
        ("mode".into(), "standalone".into()),
        ("role".into(), role.into()),
        ("modules".into(), Value::Array(Vec::new())),
    ])
}

/// A name a client gives itself: printable, without blanks, and bounded.
pub(super) fn valid_name(name: &[u8]) -> Result<String, Value> {
    if name.len() > NAME_LEN_MAX {
        return Err(Value::error(format!("ERR names have at most {NAME_LEN_MAX} bytes")));
    }
    match std::str::from_utf8(name) {
        Ok(text) if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) => Ok(text.to_owned()),
        _ => Err(Value::error(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        )),
    }
}
