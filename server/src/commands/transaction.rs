//! MULTI, EXEC and DISCARD: commands that are evaluated as one, into one record.

use bytes::Bytes;
use towline_engine::Command;
use towline_engine::command::CommandSpec;

use super::{local, unknown, value};
use crate::batch::{Batch, Waits};
use crate::resp::Value;
use crate::server::Server;
use crate::session::{Queued, Session, Transaction};

/// Whether a command is about the transaction itself, and never queued.
pub(super) fn controls(name: &str) -> bool {
    matches!(name, "multi" | "discard")
}

/// MULTI and DISCARD.
pub(super) fn control(session: &mut Session, name: &str) -> Value {
    match (name, &session.transaction) {
        ("multi", None) => {
            session.transaction = Some(Transaction::default());
            Value::OK
        }
        ("multi", Some(_)) => Value::error("ERR MULTI calls can not be nested"),
        (_, None) => Value::error("ERR DISCARD without MULTI"),
        (_, Some(_)) => {
            session.transaction = None;
            Value::OK
        }
    }
}

/// Queues a command, or says why it cannot be queued; EXEC then fails as a whole.
pub(super) fn queue(
    server: &Server,
    session: &mut Session,
    found: Option<&CommandSpec>,
    args: &[Bytes],
) -> Value {
    let queued = match found {
        Some(spec) if matches!(spec.name, "quit" | "reset") => {
            return local(server, session, spec, args);
        }
        Some(spec) => answered(server, session, spec, args),
        None => parsed(server, args),
    };
    let Some(transaction) = &mut session.transaction else {
        return unknown(args);
    };
    let len = args.iter().map(Bytes::len).sum();
    match queued {
        Ok(command) => {
            if transaction.queue(command, len) {
                Value::Simple("QUEUED".into())
            } else {
                Value::error("ERR the transaction is too large; nothing of it was written")
            }
        }
        Err(refusal) => {
            transaction.spoil();
            refusal
        }
    }
}

/// The server's own commands that answer the same whenever they are asked.
fn answered(
    server: &Server,
    session: &mut Session,
    spec: &CommandSpec,
    args: &[Bytes],
) -> Result<Queued, Value> {
    match spec.name {
        "client" | "command" | "config" | "echo" | "info" | "ping" | "readonly" | "readwrite"
        | "role" | "select" => Ok(Queued::Answered(local(server, session, spec, args))),
        "watch" => Err(Value::error("ERR WATCH inside MULTI is not allowed")),
        _ => Err(Value::error("ERR Command not allowed inside a transaction")),
    }
}

fn parsed(server: &Server, args: &[Bytes]) -> Result<Queued, Value> {
    let command = Command::parse_queued(args).map_err(|error| Value::error(error.to_string()))?;
    if command.is_write() && !server.write_path.is_open() {
        return Err(server.write_path.read_only());
    }
    Ok(Queued::Keys(command))
}

/// EXEC: all commands on keys at once, their replies in order.
pub(super) async fn exec(
    server: &Server,
    session: &mut Session,
    batch: &mut Batch,
) -> (Value, Waits) {
    let Some(transaction) = session.transaction.take() else {
        return (Value::error("ERR EXEC without MULTI"), Waits::Nothing);
    };
    let Some(queue) = transaction.into_queue() else {
        let refusal = "EXECABORT Transaction discarded because of previous errors.";
        return (Value::error(refusal), Waits::Nothing);
    };
    let mut commands = Vec::new();
    let places: Vec<Option<Value>> = queue
        .into_iter()
        .map(|queued| match queued {
            Queued::Answered(value) => Some(value),
            Queued::Keys(command) => {
                commands.push(command);
                None
            }
        })
        .collect();
    let (replies, waits) = if commands.is_empty() {
        (Vec::new(), Waits::Nothing)
    } else {
        match server.write_path.run(batch, &commands).await {
            Ok(evaluated) => evaluated,
            Err(refusal) => return (refusal, Waits::Nothing),
        }
    };
    let mut replies = replies.into_iter().map(value);
    let filled =
        places.into_iter().map(|place| place.or_else(|| replies.next()).unwrap_or(Value::Null));
    (Value::Array(filled.collect()), waits)
}
