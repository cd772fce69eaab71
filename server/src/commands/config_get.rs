//! CONFIG: what clients and tools ask of Redis's settings.

use bytes::Bytes;

use super::{subcommand, unknown_subcommand, wrong_arity};
use crate::clients::CLIENTS_MAX;
use crate::resp::{MAX_BULK_LEN, Value};
use crate::server::Server;

pub(super) fn run(server: &Server, args: &[Bytes]) -> Value {
    match subcommand(args).as_str() {
        "get" if args.len() > 2 => get(server, &args[2..]),
        "get" => wrong_arity("config|get"),
        "set" => Value::error(
            "ERR CONFIG SET is not supported: change the node's towline.toml and restart it",
        ),
        "resetstat" => Value::OK,
        "rewrite" => Value::error("ERR The server is running without a config file"),
        _ => unknown_subcommand(args),
    }
}

fn get(server: &Server, patterns: &[Bytes]) -> Value {
    let settings = [
        ("appendfsync", "always".to_owned()),
        ("appendonly", "yes".to_owned()),
        ("bind", server.address.ip().to_string()),
        ("cluster-enabled", "no".to_owned()),
        ("databases", "1".to_owned()),
        ("dir", server.config.data_dir.display().to_string()),
        ("maxclients", CLIENTS_MAX.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("min-replicas-to-write", "0".to_owned()),
        ("port", server.address.port().to_string()),
        ("proto-max-bulk-len", MAX_BULK_LEN.to_string()),
        ("save", String::new()),
        ("timeout", "0".to_owned()),
    ];
    let asked = |name: &str| patterns.iter().any(|pattern| matches(pattern, name.as_bytes()));
    let found = settings.into_iter().filter(|(name, _)| asked(name));
    Value::Map(found.map(|(name, text)| (name.into(), Value::bulk(text))).collect())
}

/// Whether a pattern of `*`, `?` and letters of either case matches. Goes back to the last `*`
/// only, so it takes no more than the product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut in_text, mut star) = (0, 0, None);
    while in_text < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_text));
                at += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&text[in_text]) => {
                at += 1;
                in_text += 1;
            }
            _ => match star {
                Some((star_at, from)) => {
                    at = star_at + 1;
                    in_text = from + 1;
                    star = Some((star_at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        let cases: &[(&str, &str, bool)] = &[
            ("save", "save", true),
            ("SAVE", "save", true),
            ("save", "saved", false),
            ("*", "save", true),
            ("max*", "maxmemory", true),
            ("*mem*y", "maxmemory", true),
            ("m?xclients", "maxclients", true),
            ("*z", "save", false),
            ("", "save", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), *expected, "{pattern}");
        }
    }
}
