//! ROLE and WAIT.

use std::time::Duration;

use bytes::Bytes;
use towline::NodeState;
use towline_protocol::lsn::Lsn;

use super::lsn;
use crate::resp::Value;
use crate::server::Server;
use crate::session::Session;

/// As Redis words it: role, position, and who is at the other end.
pub(super) fn role(server: &Server) -> Value {
    let status = server.node.status();
    if status.leadership.open.is_some() {
        let replicas = status.replicas.iter().filter(|replica| replica.connected);
        let replicas = replicas.map(|replica| {
            let (host, port) = server.address_of(replica.node);
            let applied = replica.applied.to_string();
            Value::Array(vec![Value::bulk(host), Value::bulk(port), Value::bulk(applied)])
        });
        let replicas = Value::Array(replicas.collect());
        return Value::Array(vec!["master".into(), lsn(status.watermarks.committed), replicas]);
    }
    let (host, port) = match status.leadership.primary {
        Some(primary) => server.address_of(primary),
        None => (String::new(), "0".to_owned()),
    };
    let state = match status.leadership.state {
        NodeState::Streaming => "connected",
        NodeState::Starting => "connecting",
        _ => "connect",
    };
    Value::Array(vec![
        "slave".into(),
        Value::bulk(host),
        Value::Integer(port.parse().unwrap_or(0)),
        state.into(),
        lsn(status.watermarks.applied),
    ])
}

/// `WAIT replicas timeout_ms`: how many replicas have applied this connection's last write.
pub(super) async fn wait(server: &Server, session: &Session, args: &[Bytes]) -> Value {
    let number = |arg: &Bytes| std::str::from_utf8(arg).ok()?.parse::<i64>().ok();
    let (Some(replicas), Some(timeout_ms)) = (number(&args[1]), number(&args[2])) else {
        return Value::error("ERR value is not an integer or out of range");
    };
    if timeout_ms < 0 {
        return Value::error("ERR timeout is negative");
    }
    if !server.write_path.is_open() {
        return Value::error("ERR WAIT cannot be used with replica instances.");
    }
    let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.unsigned_abs()));
    let end = session.last_write.map_or(Lsn::ZERO, |token| token.end);
    let wanted = usize::try_from(replicas).unwrap_or(0);
    let reached = server.node.wait_applied(end, wanted, timeout).await;
    Value::Integer(reached as i64)
}
