//! Replies compared with those of a real Redis, recorded in `redis-7.0.15.txt`.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::sync::Arc;

use bytes::Bytes;
use towline::Engine;
use towline_engine::{Command, Evaluator, Reply, Store};
use towline_protocol::lsn::Lsn;

const NOW_MS: u64 = 1_700_000_000_000;

fn arguments(line: &str) -> Vec<Bytes> {
    let words = line.split(' ').map(|word| if word == "\"\"" { "" } else { word });
    words.map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Ok => "+OK".to_owned(),
        Reply::Simple(status) => format!("+{status}"),
        Reply::Integer(number) => format!(":{number}"),
        Reply::Bulk(bytes) => format!("${}", String::from_utf8_lossy(bytes)),
        Reply::Null | Reply::NullArray => "_".to_owned(),
        Reply::Array(replies) => {
            format!("*{}", replies.iter().map(text).collect::<Vec<_>>().join(" "))
        }
        Reply::Error(error) => format!("-{error}"),
    }
}

/// Runs every case, with the applier `lag` records behind.
fn compare(lag: usize) {
    let recorded = include_str!("redis-7.0.15.txt");
    for (number, group) in recorded.split("\n\n").enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path()).unwrap());
        let mut evaluator = Evaluator::new(Arc::clone(&store), usize::MAX);
        let mut pending = std::collections::VecDeque::new();
        let mut end = 0;
        let mut lines = group.lines().filter(|line| !line.starts_with('#'));
        while let (Some(line), Some(expected)) = (lines.next(), lines.next()) {
            let line = line.strip_prefix("> ").unwrap();
            let reply = match Command::parse(&arguments(line)) {
                Err(error) => Reply::Error(error.to_string()),
                Ok(command) => {
                    let mut evaluation = evaluator.evaluate(&[command], NOW_MS);
                    if let Some(effects) = evaluation.effects.clone() {
                        end += 1;
                        evaluator.record(&evaluation, Lsn::new(end));
                        pending.push_back((Lsn::new(end), effects));
                    }
                    evaluation.replies.pop().unwrap()
                }
            };
            assert_eq!(text(&reply), expected, "group {number}, lag {lag}: {line}");
            while pending.len() > lag {
                let (end, effects) = pending.pop_front().unwrap();
                store.apply(end, &effects).unwrap();
                evaluator.forget_applied(end);
            }
        }
        assert!(group.lines().count() > 5, "the file is split as it should be");
    }
}

#[test]
fn replies_are_those_of_redis_with_everything_applied() {
    compare(0);
}

#[test]
fn replies_are_those_of_redis_with_something_applied() {
    compare(3);
}

#[test]
fn replies_are_those_of_redis_with_nothing_applied() {
    compare(usize::MAX);
}
