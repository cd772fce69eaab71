//! CLIENT.

use bytes::Bytes;

use super::connect::valid_name;
use super::{subcommand, unknown_subcommand, wrong_arity};
use crate::resp::Value;
use crate::server::Server;
use crate::session::Session;

pub(super) fn run(server: &Server, session: &Session, args: &[Bytes]) -> Value {
    let (name, client) = (subcommand(args), &session.client);
    match (name.as_str(), args.len()) {
        ("id", 2) => Value::Integer(client.id as i64),
        ("getname", 2) => match client.names().name {
            name if name.is_empty() => Value::Null,
            name => Value::bulk(name),
        },
        ("setname", 3) => match valid_name(&args[2]) {
            Ok(name) => {
                client.rename(|names| names.name = name);
                Value::OK
            }
            Err(error) => error,
        },
        ("setinfo", 4) => set_info(session, &args[2], &args[3]),
        ("list", 2..) => Value::Text(server.clients.list()),
        ("info", 2) => Value::Text(client.line()),
        ("no-evict" | "no-touch", 3) => on_or_off(&args[2]),
        ("id" | "getname" | "setname" | "setinfo" | "info" | "no-evict" | "no-touch", _) => {
            wrong_arity(&format!("client|{name}"))
        }
        _ => unknown_subcommand(args),
    }
}

fn set_info(session: &Session, attribute: &[u8], text: &[u8]) -> Value {
    let text = match valid_name(text) {
        Ok(text) => text,
        Err(error) => return error,
    };
    if attribute.eq_ignore_ascii_case(b"lib-name") {
        session.client.rename(|names| names.library = text);
    } else if attribute.eq_ignore_ascii_case(b"lib-ver") {
        session.client.rename(|names| names.version = text);
    } else {
        let attribute = String::from_utf8_lossy(attribute);
        return Value::error(format!("ERR Unrecognized option '{attribute}'"));
    }
    Value::OK
}

/// Nothing is ever evicted, so either is fine.
fn on_or_off(switch: &[u8]) -> Value {
    if switch.eq_ignore_ascii_case(b"on") || switch.eq_ignore_ascii_case(b"off") {
        Value::OK
    } else {
        Value::error("ERR syntax error")
    }
}
