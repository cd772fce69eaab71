//! What each command does.

mod client;
mod config_get;
mod connect;
mod describe;
mod replication;
mod table;
mod towline;
mod transaction;

use bytes::Bytes;
use towline_engine::command::CommandSpec;
use towline_engine::{Command, Reply};
use towline_protocol::lsn::Lsn;

use crate::batch::{Batch, Waits};
use crate::info;
use crate::resp::Value;
use crate::server::Server;
use crate::session::Session;

/// Whether a command may take long or waits for other nodes. Its reply must not hold back those
/// before it, so they are sent first.
#[must_use]
pub fn is_long(args: &[Bytes]) -> bool {
    match table::find(name_of(args)) {
        Some(spec) if spec.name == "wait" => true,
        Some(spec) if spec.name == "towline" => towline::is_long(args),
        _ => false,
    }
}

/// Runs a long command.
pub async fn run_long(server: &Server, session: &mut Session, args: &[Bytes]) -> Value {
    let Some(spec) = table::find(name_of(args)) else {
        return unknown(args);
    };
    if !spec.takes(args.len()) {
        return wrong_arity(spec.name);
    }
    if let Some(transaction) = &mut session.transaction {
        transaction.spoil();
        return Value::error("ERR Command not allowed inside a transaction");
    }
    match spec.name {
        "wait" => replication::wait(server, session, args).await,
        _ => towline::run_long(server, args).await,
    }
}

/// Runs a command and puts its reply into `batch`.
pub async fn run(server: &Server, session: &mut Session, batch: &mut Batch, args: &[Bytes]) {
    server.count_command();
    let (value, waits) = match table::find(name_of(args)) {
        Some(spec) if !spec.takes(args.len()) => {
            spoil(session);
            (wrong_arity(spec.name), Waits::Nothing)
        }
        Some(spec) if spec.name == "exec" => transaction::exec(server, session, batch).await,
        Some(spec) if transaction::controls(spec.name) => {
            (transaction::control(session, spec.name), Waits::Nothing)
        }
        found if session.transaction.is_some() => {
            (transaction::queue(server, session, found, args), Waits::Nothing)
        }
        Some(spec) => (local(server, session, spec, args), Waits::Nothing),
        None => keys(server, session, batch, args).await,
    };
    if let (Waits::Commit { end }, Some(epoch)) = (waits, batch.epoch()) {
        session.last_write = Some(server.write_path.token(epoch, end));
    }
    batch.push(value, session.protocol, waits);
}

/// A command on keys, by itself.
async fn keys(
    server: &Server,
    _session: &Session,
    batch: &mut Batch,
    args: &[Bytes],
) -> (Value, Waits) {
    let command = match Command::parse(args) {
        Ok(command) => command,
        Err(error) => return (Value::error(error.to_string()), Waits::Nothing),
    };
    match server.write_path.run(batch, std::slice::from_ref(&command)).await {
        Ok((mut replies, waits)) => (replies.pop().map_or(Value::Null, value), waits),
        Err(refusal) => (refusal, Waits::Nothing),
    }
}

/// A command that touches no key and answers at once.
fn local(server: &Server, session: &mut Session, spec: &CommandSpec, args: &[Bytes]) -> Value {
    match spec.name {
        "auth" => connect::auth(),
        "client" => client::run(server, session, args),
        "command" => describe::run(args),
        "config" => config_get::run(server, args),
        "echo" => Value::Bulk(args[1].clone()),
        "hello" => connect::hello(server, session, args),
        "info" => Value::Text(info::text(server, &args[1..])),
        "ping" => connect::ping(args),
        "quit" => connect::quit(session),
        "readonly" | "readwrite" => Value::OK,
        "reset" => connect::reset(session),
        "role" => replication::role(server),
        "select" => connect::select(args),
        "towline" => towline::run(server, session, args),
        "watch" | "unwatch" => {
            Value::error("ERR WATCH is not supported: put the condition into SET NX, XX or GET")
        }
        _ => unknown(args),
    }
}

/// An engine's reply as a protocol's.
fn value(reply: Reply) -> Value {
    match reply {
        Reply::Ok => Value::OK,
        Reply::Simple(text) => Value::Simple(text.into()),
        Reply::Integer(number) => Value::Integer(number),
        Reply::Bulk(bytes) => Value::Bulk(bytes),
        Reply::Null => Value::Null,
        Reply::NullArray => Value::NullArray,
        Reply::Array(items) => Value::Array(items.into_iter().map(value).collect()),
        Reply::Error(text) => Value::error(text),
    }
}

fn spoil(session: &mut Session) {
    if let Some(transaction) = &mut session.transaction {
        transaction.spoil();
    }
}

fn name_of(args: &[Bytes]) -> &[u8] {
    args.first().map_or(&[], |name| &name[..])
}

/// The second argument in small letters, for errors and to tell subcommands apart.
fn subcommand(args: &[Bytes]) -> String {
    args.get(1).map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).unwrap_or_default()
}

fn wrong_arity(name: &str) -> Value {
    Value::error(format!("ERR wrong number of arguments for '{name}' command"))
}

fn unknown_subcommand(args: &[Bytes]) -> Value {
    const SHOWN_MAX: usize = 128;
    let shown: String = subcommand(args).chars().take(SHOWN_MAX).collect();
    let name = String::from_utf8_lossy(name_of(args)).to_ascii_uppercase();
    Value::error(format!("ERR unknown subcommand '{shown}'. Try {name} HELP."))
}

fn unknown(args: &[Bytes]) -> Value {
    match Command::parse(args) {
        Err(error) => Value::error(error.to_string()),
        Ok(_) => Value::error("ERR this command cannot be used here"),
    }
}

fn lsn(position: Lsn) -> Value {
    Value::Integer(i64::try_from(position.get()).unwrap_or(i64::MAX))
}
