//! TOWLINE: what the `towline` command asks a node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use towline::PromotionError;
use towline::{Failover, Verdict};

use super::{lsn, subcommand, unknown_subcommand, wrong_arity};
use crate::resp::Value;
use crate::server::Server;
use crate::session::Session;
use crate::{status, token};

/// How long a failover may take unless it is told.
const FAILOVER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// How long a failover may be told to take, in milliseconds: one hour.
const FAILOVER_TIMEOUT_MAX_MS: u64 = 3_600_000;

const HELP: [&str; 6] = [
    "TOWLINE STATUS -- everything this node shows of itself, as JSON",
    "TOWLINE FAILOVER [FORCE] [TIMEOUT ms] -- make this node the primary",
    "TOWLINE DIGEST -- position, number of keys, and digest of the applied state",
    "TOWLINE TOKEN -- the token of this connection's last write",
    "TOWLINE VERDICT token -- COMMITTED, LOST, PENDING or UNKNOWN",
    "TOWLINE HELP -- this text",
];

pub(super) fn run(server: &Server, session: &Session, args: &[Bytes]) -> Value {
    let name = subcommand(args);
    match (name.as_str(), args.len()) {
        ("status", 2) => Value::bulk(status::json(server).to_string()),
        ("verdict", 3) => verdict(server, &args[2]),
        ("token", 2) => {
            session.last_write.map_or(Value::Null, |written| Value::bulk(token::text(written)))
        }
        ("help", 2) => Value::Array(HELP.into_iter().map(Value::from).collect()),
        ("status" | "verdict" | "token" | "help", _) => wrong_arity(&format!("towline|{name}")),
        _ => unknown_subcommand(args),
    }
}

pub(super) fn is_long(args: &[Bytes]) -> bool {
    matches!(subcommand(args).as_str(), "failover" | "digest")
}

pub(super) async fn run_long(server: &Server, args: &[Bytes]) -> Value {
    match (subcommand(args).as_str(), args.len()) {
        ("digest", 2) => digest(server).await,
        ("digest", _) => wrong_arity("towline|digest"),
        _ => failover(server, &args[2..]).await,
    }
}

fn verdict(server: &Server, text: &[u8]) -> Value {
    let Some(token) = std::str::from_utf8(text).ok().and_then(token::parse) else {
        return Value::error("ERR this is no token: it reads <log>:<epoch>:<lsn>");
    };
    let verdict = match server.node.verdict(token) {
        Verdict::Committed => "COMMITTED",
        Verdict::Lost => "LOST",
        Verdict::Pending => "PENDING",
        Verdict::Unknown => "UNKNOWN",
    };
    Value::Simple(verdict.into())
}

/// Reads the whole state, so it runs beside the connections and not among them.
async fn digest(server: &Server) -> Value {
    let store = Arc::clone(&server.store);
    match tokio::task::spawn_blocking(move || store.digest()).await {
        Ok(Ok(state)) => Value::Array(vec![
            lsn(state.applied),
            Value::Integer(state.keys as i64),
            Value::bulk(format!("{:016x}", state.digest)),
        ]),
        Ok(Err(error)) => Value::error(format!("ERR the state cannot be read: {error}")),
        Err(error) => Value::error(format!("ERR the state cannot be read: {error}")),
    }
}

async fn failover(server: &Server, options: &[Bytes]) -> Value {
    let how = match failover_options(options) {
        Ok(how) => how,
        Err(error) => return error,
    };
    tracing::info!(force = how.force, timeout = ?how.timeout, "asked to take over");
    match server.node.failover(how).await {
        Ok(promoted) => Value::Array(vec![
            "epoch".into(),
            Value::bulk(promoted.epoch.to_string()),
            "final_lsn".into(),
            lsn(promoted.final_lsn),
        ]),
        Err(error) => {
            tracing::warn!("the failover to this node failed: {error}");
            let code = match error {
                PromotionError::Refused(_) => "REFUSED",
                PromotionError::Unreachable(_) => "UNREACHABLE",
                PromotionError::Timeout(_) => "TIMEOUT",
            };
            let reason = error.to_string();
            Value::error(format!("{code} {}", reason.trim_start_matches("refused: ")))
        }
    }
}

fn failover_options(mut options: &[Bytes]) -> Result<Failover, Value> {
    let mut how = Failover { force: false, timeout: FAILOVER_TIMEOUT_DEFAULT };
    loop {
        options = match options {
            [] => return Ok(how),
            [option, rest @ ..] if option.eq_ignore_ascii_case(b"force") => {
                how.force = true;
                rest
            }
            [option, timeout_ms, rest @ ..] if option.eq_ignore_ascii_case(b"timeout") => {
                let timeout_ms =
                    std::str::from_utf8(timeout_ms).ok().and_then(|ms| ms.parse().ok());
                let timeout_ms = timeout_ms
                    .filter(|ms| (1..=FAILOVER_TIMEOUT_MAX_MS).contains(ms))
                    .ok_or_else(|| Value::error("ERR TIMEOUT takes milliseconds, up to an hour"))?;
                how.timeout = Duration::from_millis(timeout_ms);
                rest
            }
            _ => {
                return Err(Value::error(
                    "ERR syntax error: TOWLINE FAILOVER [FORCE] [TIMEOUT ms]",
                ));
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_failover() {
        let options = |text: &'static str| {
            let args: Vec<Bytes> = text.split_whitespace().map(Bytes::from).collect();
            failover_options(&args)
        };
        let how = options("timeout 250 force").unwrap();
        assert!(how.force);
        assert_eq!(how.timeout, Duration::from_millis(250));
        assert_eq!(options("").unwrap().timeout, FAILOVER_TIMEOUT_DEFAULT);
        for wrong in ["now", "timeout", "timeout x", "timeout 0", "timeout 99999999999"] {
            assert!(options(wrong).is_err(), "{wrong}");
        }
    }
}
