use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use towline::Engine;

use super::*;
use crate::store::StoreOptions;
use crate::testing::Numbers;

/// A primary whose log is a list, and whose applier moves when told to.
struct Primary {
    store: Arc<Store>,
    evaluator: Evaluator,
    log: Vec<Bytes>,
    waiting: VecDeque<Lsn>,
}

const SMALL: StoreOptions = StoreOptions { memtable_bytes: 16 << 10, cache_bytes: 1 << 20 };

impl Primary {
    fn open(dir: &Path) -> Self {
        let store = Arc::new(Store::open_with(dir, SMALL).unwrap());
        let evaluator = Evaluator::new(Arc::clone(&store), 1 << 20);
        Self { store, evaluator, log: vec![], waiting: VecDeque::new() }
    }

    fn end(&self) -> Lsn {
        Lsn::new(self.log.len() as u64 * 100)
    }

    fn run(&mut self, lines: &[&str], now_ms: u64) -> Evaluation {
        let commands: Vec<_> = lines.iter().map(|line| command(line)).collect();
        let evaluation = self.evaluator.evaluate(&commands, now_ms);
        if let Some(effects) = &evaluation.effects {
            self.log.push(effects.clone());
            self.evaluator.record(&evaluation, self.end());
            self.waiting.push_back(self.end());
        }
        evaluation
    }

    fn reply(&mut self, line: &str, now_ms: u64) -> Reply {
        self.run(&[line], now_ms).replies.pop().unwrap()
    }

    /// Applies a record; tells the evaluator only if `tell`.
    fn apply(&mut self, tell: bool) {
        if let Some(end) = self.waiting.pop_front() {
            let at = end.get() as usize / 100 - 1;
            self.store.apply(end, &self.log[at]).unwrap();
        }
        if tell {
            self.evaluator.forget_applied(self.store.applied());
        }
    }

    /// Kills the node and starts it again with the same disk and log.
    fn restart(self, dir: &Path) -> Self {
        let log = self.log;
        drop((self.evaluator, self.store));
        let primary = Self { log, ..Self::open(dir) };
        let applied = primary.store.applied().get() as usize / 100;
        for at in applied..primary.log.len() {
            let end = Lsn::new((at as u64 + 1) * 100);
            primary.store.apply(end, &primary.log[at]).unwrap();
        }
        primary
    }
}

fn command(line: &str) -> Command {
    let args: Vec<_> = line.split(' ').map(|arg| Bytes::from(arg.to_owned())).collect();
    Command::parse(&args).unwrap()
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(Bytes::from(text.to_owned()))
}

#[test]
fn increments_add_up_before_any_of_them_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let mut primary = Primary::open(dir.path());
    for number in 1..=100 {
        let evaluation = primary.run(&["INCR hits"], 0);
        assert_eq!(evaluation.replies, [Reply::Integer(number)]);
        assert_eq!(evaluation.saw, Lsn::new((number as u64 - 1) * 100));
    }
    assert_eq!((primary.store.len(), primary.reply("DBSIZE", 0)), (0, Reply::Integer(1)));
    for number in 101..=300 {
        primary.apply(number % 3 == 0);
        assert_eq!(primary.reply("INCR hits", 0), Reply::Integer(number));
        assert_eq!(primary.reply("DBSIZE", 0), Reply::Integer(1));
    }
}

#[test]
fn what_was_looked_at_and_is_not_applied_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut primary = Primary::open(dir.path());
    assert_eq!(primary.run(&["GET a"], 0).saw, Lsn::ZERO);
    primary.reply("SET a 1", 0);
    primary.reply("SET b 2", 0);
    assert_eq!(primary.run(&["GET a"], 0).saw, Lsn::new(100));
    assert_eq!(primary.run(&["GET b", "GET a"], 0).saw, Lsn::new(200));
    assert_eq!(primary.run(&["GET c"], 0).saw, Lsn::ZERO);
    assert_eq!(primary.run(&["SET a 3 NX"], 0).saw, Lsn::new(100), "a refusal is an answer, too");
    assert_eq!(primary.run(&["DBSIZE"], 0).saw, Lsn::new(200));
    primary.apply(true);
    assert_eq!(primary.run(&["GET a"], 0).saw, Lsn::ZERO);
    assert_eq!(primary.run(&["GET b"], 0).saw, Lsn::new(200));
}

#[test]
fn a_transaction_sees_itself_and_is_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut primary = Primary::open(dir.path());
    let lines = ["SET a 1", "INCR a", "GET a", "DEL b", "SET b x", "APPEND b y", "DEL b", "DBSIZE"];
    let evaluation = primary.run(&lines, 0);
    let integer = Reply::Integer;
    let expected = [
        Reply::Ok,
        integer(2),
        bulk("2"),
        integer(0),
        Reply::Ok,
        integer(2),
        integer(1),
        integer(1),
    ];
    assert_eq!(evaluation.replies, expected);
    let effects = evaluation.effects.unwrap();
    let record = crate::effects::Decoded::new(&effects).unwrap();
    assert_eq!((record.count(), record.keys_delta), (1, 1), "b never was");
    let failing = [command("INCR a"), Command::Failing { error: "ERR no".to_owned() }];
    let evaluation = primary.evaluator.evaluate(&failing, 0);
    assert_eq!(evaluation.replies, [integer(3), Reply::error("ERR no")]);
    assert!(evaluation.effects.is_some(), "the other commands count");
}

#[test]
fn reading_an_expired_key_appends_its_delete_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut primary = Primary::open(dir.path());
    primary.reply("SET k v PX 50", 1_000);
    assert_eq!(primary.reply("GET k", 1_049), bulk("v"));
    assert_eq!(primary.reply("PTTL k", 1_049), Reply::Integer(1));
    primary.apply(true);
    assert_eq!(read(&primary.store, &command("GET k"), 1_050), Reply::Null);
    assert_eq!(primary.reply("DBSIZE", 1_050), Reply::Integer(1), "expired and not deleted");
    let evaluation = primary.run(&["GET k", "EXISTS k", "TTL k"], 1_050);
    let gone = [Reply::Null, Reply::Integer(0), Reply::Integer(-2)];
    assert_eq!(evaluation.replies, gone);
    assert!(evaluation.effects.is_some());
    assert!(primary.run(&["GET k"], 1_050).effects.is_none(), "its delete is in the log");
    assert_eq!(primary.reply("DBSIZE", 1_050), Reply::Integer(0));
    primary.apply(true);
    assert_eq!(primary.store.get(b"k").unwrap(), None);
}

#[test]
fn effect_time_never_runs_backwards_not_even_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut primary = Primary::open(dir.path());
    primary.reply("SET k v PX 50", 1_000);
    primary.reply("SET other v", 1_060);
    assert_eq!(primary.reply("GET k", 10), Reply::Null, "while the clock stood at 1060");
    primary.apply(true);
    primary.apply(true);
    let mut primary = primary.restart(dir.path());
    assert_eq!(primary.reply("GET k", 10), Reply::Null);
    primary.reply("SET new v PX 5", 10);
    assert_eq!(primary.reply("PTTL new", 10), Reply::Integer(5));
    assert_eq!(read(&primary.store, &command("GET k"), 10), Reply::Null);
}

#[test]
fn a_demoted_primary_forgets_what_was_not_applied() {
    let dir = tempfile::tempdir().unwrap();
    let mut primary = Primary::open(dir.path());
    primary.reply("SET a 1", 5);
    primary.apply(true);
    primary.reply("SET a 2", 9_000);
    primary.reply("SET b 2", 9_000);
    assert!(primary.evaluator.pending_bytes() > 0);
    primary.evaluator.clear();
    assert_eq!(primary.evaluator.pending_bytes(), 0);
    assert_eq!(primary.reply("GET a", 5), bulk("1"));
    assert_eq!(primary.reply("DBSIZE", 5), Reply::Integer(1));
}

#[test]
#[should_panic(expected = "overtaken")]
fn an_evaluation_that_was_overtaken_cannot_be_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut primary = Primary::open(dir.path());
    let early = primary.evaluator.evaluate(&[command("INCR a")], 0);
    primary.reply("INCR a", 0);
    primary.evaluator.record(&early, Lsn::new(200));
}

#[test]
fn pending_effects_are_bounded_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut primary = Primary::open(dir.path());
    let line = format!("SET k {}", "v".repeat(100 << 10));
    for _ in 0..20 {
        primary.reply(&line, 0);
    }
    assert!(primary.evaluator.is_full());
    for _ in 0..20 {
        primary.apply(true);
    }
    assert_eq!(primary.evaluator.pending_bytes(), 0);
    assert!(!primary.evaluator.is_full());
}

#[test]
fn changes_that_do_not_fit_a_record_are_refused_one_command_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut primary = Primary::open(dir.path());
    let big = "v".repeat(6 << 20);
    let lines = [
        "SET small v".to_owned(),
        format!("SET a {big}"),
        format!("MSET b {big} c {big}"),
        format!("SET a {big}"),
        "APPEND a v".to_owned(),
        "EXISTS a b c".to_owned(),
    ];
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let replies = primary.run(&lines, 0).replies;
    let errors: Vec<_> = replies.iter().map(Reply::is_error).collect();
    assert_eq!(errors, [false, false, true, false, false, false]);
    assert_eq!(replies[5], Reply::Integer(1));
    let line = format!("APPEND a {}", "v".repeat(11 << 20));
    let text = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(primary.reply(&line, 0), Reply::error(text));
}

#[test]
fn a_replica_reads_and_refuses_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut primary = Primary::open(dir.path());
    primary.reply("MSET a 1 b 2", 0);
    primary.apply(true);
    let all = Reply::Array(vec![bulk("1"), bulk("2"), Reply::Null]);
    assert_eq!(read(&primary.store, &command("MGET a b c"), 0), all);
    assert_eq!(read(&primary.store, &command("DBSIZE"), 0), Reply::Integer(2));
    let text = "READONLY You can't write against a read only replica.";
    assert_eq!(read(&primary.store, &command("SET a 1"), 0), Reply::error(text));
}

/// What Redis would hold: values with their expiry.
#[derive(Default)]
struct Model(BTreeMap<String, (String, Option<u64>)>);

impl Model {
    fn run(&mut self, words: &[&str], now_ms: u64) -> Reply {
        let key = words.get(1).copied().unwrap_or_default();
        let expired = |(_, at_ms): &(_, Option<u64>)| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if self.0.get(key).is_some_and(expired) {
            self.0.remove(key);
        }
        let held = self.0.get(key).cloned();
        match words[0] {
            "GET" => held.map_or(Reply::Null, |(value, _)| bulk(&value)),
            "SET" => {
                let at_ms = words.get(4).map(|ms| now_ms + ms.parse::<u64>().unwrap());
                self.0.insert(key.to_owned(), (words[2].to_owned(), at_ms));
                Reply::Ok
            }
            "SETNX" => {
                let entry = (words[2].to_owned(), None);
                self.0.entry(key.to_owned()).or_insert(entry);
                Reply::Integer(held.is_none().into())
            }
            "DEL" => Reply::Integer(self.0.remove(key).is_some().into()),
            "INCR" => {
                let (value, at_ms) = held.unwrap_or(("0".to_owned(), None));
                let number = value.parse::<i64>().unwrap() + 1;
                self.0.insert(key.to_owned(), (number.to_string(), at_ms));
                Reply::Integer(number)
            }
            "APPEND" => {
                let (value, at_ms) = held.unwrap_or_default();
                let value = value + words[2];
                let len = value.len();
                self.0.insert(key.to_owned(), (value, at_ms));
                Reply::Integer(len as i64)
            }
            "PEXPIRE" => match held {
                None => Reply::Integer(0),
                Some((value, _)) => {
                    let at_ms = now_ms + words[2].parse::<u64>().unwrap();
                    self.0.insert(key.to_owned(), (value, Some(at_ms)));
                    Reply::Integer(1)
                }
            },
            "DBSIZE" => Reply::Integer(self.0.len() as i64),
            other => panic!("{other} is not modelled"),
        }
    }
}

fn random_line(numbers: &mut Numbers) -> String {
    let key = format!("key-{}", numbers.below(40));
    let number = 1 + numbers.below(30);
    match numbers.below(11) {
        0..=2 => format!("GET {key}"),
        3 => format!("SET {key} {number}"),
        4 => format!("SET {key} {number} PX {number}"),
        5 => format!("SETNX {key} {number}"),
        6 => format!("DEL {key}"),
        7 => format!("INCR {key}"),
        8 => format!("APPEND {key} 1"),
        9 => format!("PEXPIRE {key} {number}"),
        _ => "DBSIZE".to_owned(),
    }
}

/// Values of the model stay numbers that an `i64` holds.
fn keeps_small(model: &Model, line: &str) -> bool {
    !line.starts_with("APPEND") || model.0.values().all(|(value, _)| value.len() < 15)
}

#[test]
fn random_commands_answer_like_the_model_whatever_the_applier_and_the_node_do() {
    for seed in 0..30 {
        let mut numbers = Numbers::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let mut primary = Primary::open(dir.path());
        let mut model = Model::default();
        let mut now_ms = 1_000;
        for step in 0..800 {
            now_ms += numbers.below(4);
            let lines: Vec<_> = (0..=numbers.below(3))
                .map(|_| random_line(&mut numbers))
                .filter(|line| keeps_small(&model, line))
                .collect();
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let replies = primary.run(&lines, now_ms).replies;
            for (line, reply) in lines.iter().zip(replies) {
                let expected = model.run(&line.split(' ').collect::<Vec<_>>(), now_ms);
                assert_eq!(reply, expected, "seed {seed}, step {step}: {line}");
            }
            for _ in 0..numbers.below(4) {
                primary.apply(numbers.below(2) == 0);
            }
            match numbers.below(200) {
                0 => primary = primary.restart(dir.path()),
                1 => assert!(primary.store.persist().unwrap() <= primary.end()),
                _ => {}
            }
        }
        let primary = primary.restart(dir.path());
        let replica_dir = tempfile::tempdir().unwrap();
        let replica = Primary::open(replica_dir.path());
        for (at, effects) in primary.log.iter().enumerate() {
            replica.store.apply(Lsn::new((at as u64 + 1) * 100), effects).unwrap();
        }
        let digest = primary.store.digest().unwrap();
        assert_eq!(digest.keys, primary.store.len(), "the count is that of the keys");
        assert_eq!(replica.store.digest().unwrap(), digest, "replay is deterministic");
    }
}
