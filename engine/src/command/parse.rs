//! From arguments to commands, with Redis's words for what is wrong.

use bytes::Bytes;

use super::table::{CommandSpec, find};
use super::{
    Command, CommandError, ExpireCondition, SetAnswer, SetCondition, SetExpiry, SetOptions,
    TimeUnit,
};
use crate::effects::KEY_LEN_MAX;
use crate::evaluator::number::parse_integer;

/// How much of an unknown command is repeated to the client, in bytes.
const UNKNOWN_LEN_MAX: usize = 128;

pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const SYNTAX: &str = "ERR syntax error";

pub(super) fn parse(args: &[Bytes]) -> Result<Command, CommandError> {
    let Some((name, rest)) = args.split_first() else {
        return Err(unknown(b"", &[]));
    };
    let spec = find(name).ok_or_else(|| unknown(name, rest))?;
    if !spec.takes(args.len()) {
        return Err(CommandError::Arity(spec.name));
    }
    check_keys(spec, args)?;
    let key = || rest[0].clone();
    Ok(match spec.name {
        "append" => Command::Append { key: key(), value: rest[1].clone() },
        "dbsize" => Command::DbSize,
        "decr" => Command::IncrBy { key: key(), delta: -1 },
        "decrby" => Command::IncrBy { key: key(), delta: negated(&rest[1])? },
        "del" | "unlink" => Command::Del { keys: rest.to_vec() },
        "exists" => Command::Exists { keys: rest.to_vec() },
        "expire" => expire(rest, TimeUnit::Seconds)?,
        "get" => Command::Get { key: key() },
        "getdel" => Command::GetDel { key: key() },
        "getset" => {
            let options =
                SetOptions { answer: SetAnswer::Old, name: "getset", ..SetOptions::default() };
            Command::Set { key: key(), value: rest[1].clone(), options }
        }
        "incr" => Command::IncrBy { key: key(), delta: 1 },
        "incrby" => Command::IncrBy { key: key(), delta: integer(&rest[1])? },
        "mget" => Command::MGet { keys: rest.to_vec() },
        "mset" => mset(rest)?,
        "persist" => Command::Persist { key: key() },
        "pexpire" => expire(rest, TimeUnit::Milliseconds)?,
        "pttl" => Command::Ttl { key: key(), unit: TimeUnit::Milliseconds },
        "set" => {
            Command::Set { key: key(), value: rest[1].clone(), options: set_options(&rest[2..])? }
        }
        "setex" => {
            let expiry = SetExpiry::After(duration(&rest[1], "setex")?, TimeUnit::Seconds);
            let options = SetOptions { expiry, name: "setex", ..SetOptions::default() };
            Command::Set { key: key(), value: rest[2].clone(), options }
        }
        "setnx" => {
            let (condition, answer) = (SetCondition::Absent, SetAnswer::Flag);
            let options = SetOptions { condition, answer, name: "setnx", ..SetOptions::default() };
            Command::Set { key: key(), value: rest[1].clone(), options }
        }
        "strlen" => Command::StrLen { key: key() },
        "ttl" => Command::Ttl { key: key(), unit: TimeUnit::Seconds },
        name => unreachable!("{name} is in the table of commands and not here"),
    })
}

fn check_keys(spec: &CommandSpec, args: &[Bytes]) -> Result<(), CommandError> {
    if spec.first_key == 0 {
        return Ok(());
    }
    let last = if spec.last_key < 0 { args.len() - 1 } else { spec.last_key.unsigned_abs().into() };
    let keys = args[..=last].iter().skip(spec.first_key.unsigned_abs().into());
    for key in keys.step_by(spec.key_step.unsigned_abs().into()) {
        if key.len() > KEY_LEN_MAX {
            return Err(invalid(format!("ERR a key is longer than {KEY_LEN_MAX} bytes")));
        }
    }
    Ok(())
}

fn mset(rest: &[Bytes]) -> Result<Command, CommandError> {
    let (pairs, []) = rest.as_chunks::<2>() else {
        // Found out only when it runs, so a transaction lets it in.
        return Err(invalid(CommandError::Arity("mset").to_string()));
    };
    let pairs = pairs.iter().map(|[key, value]| (key.clone(), value.clone()));
    Ok(Command::MSet { pairs: pairs.collect() })
}

fn set_options(args: &[Bytes]) -> Result<SetOptions, CommandError> {
    let mut options = SetOptions { name: "set", ..SetOptions::default() };
    // The words are checked before the number, whatever their order.
    let mut expiry: Option<(Bytes, &'static str)> = None;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let word = arg.to_ascii_lowercase();
        let timed = expiry.as_ref().map(|(_, word)| *word);
        match word.as_slice() {
            b"nx" if options.condition != SetCondition::Present => {
                options.condition = SetCondition::Absent;
            }
            b"xx" if options.condition != SetCondition::Absent => {
                options.condition = SetCondition::Present;
            }
            b"get" => options.answer = SetAnswer::Old,
            b"keepttl" if timed.is_none() => options.expiry = SetExpiry::Keep,
            word => {
                let word = ["ex", "px", "exat", "pxat"].into_iter().find(|w| w.as_bytes() == word);
                let fits = options.expiry != SetExpiry::Keep && (timed.is_none() || timed == word);
                match (word, args.next()) {
                    (Some(word), Some(time)) if fits => expiry = Some((time.clone(), word)),
                    _ => return Err(invalid(SYNTAX)),
                }
            }
        }
    }
    if let Some((time, word)) = expiry {
        let time = duration(&time, "set")?;
        options.expiry = match word {
            "ex" => SetExpiry::After(time, TimeUnit::Seconds),
            "px" => SetExpiry::After(time, TimeUnit::Milliseconds),
            "exat" => SetExpiry::At(time, TimeUnit::Seconds),
            _ => SetExpiry::At(time, TimeUnit::Milliseconds),
        };
    }
    Ok(options)
}

fn expire(rest: &[Bytes], unit: TimeUnit) -> Result<Command, CommandError> {
    let mut condition = ExpireCondition::default();
    for arg in &rest[2..] {
        match arg.to_ascii_lowercase().as_slice() {
            b"nx" => condition.without = true,
            b"xx" => condition.with = true,
            b"gt" => condition.later = true,
            b"lt" => condition.earlier = true,
            _ => {
                return Err(invalid(format!("ERR Unsupported option {}", printable(arg))));
            }
        }
    }
    let ExpireCondition { without, with, later, earlier } = condition;
    if without && (with || later || earlier) {
        let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
        return Err(invalid(text));
    }
    if later && earlier {
        return Err(invalid("ERR GT and LT options at the same time are not compatible"));
    }
    Ok(Command::Expire { key: rest[0].clone(), after: integer(&rest[1])?, unit, condition })
}

fn integer(arg: &[u8]) -> Result<i64, CommandError> {
    parse_integer(arg).ok_or_else(|| invalid(NOT_AN_INTEGER))
}

fn negated(arg: &[u8]) -> Result<i64, CommandError> {
    integer(arg)?.checked_neg().ok_or_else(|| invalid("ERR decrement would overflow"))
}

fn duration(arg: &[u8], name: &str) -> Result<i64, CommandError> {
    match integer(arg)? {
        time if time > 0 => Ok(time),
        _ => Err(invalid(format!("ERR invalid expire time in '{name}' command"))),
    }
}

fn unknown(name: &[u8], args: &[Bytes]) -> CommandError {
    let mut shown = String::new();
    for arg in args {
        if shown.len() >= UNKNOWN_LEN_MAX {
            break;
        }
        let len = arg.len().min(UNKNOWN_LEN_MAX - shown.len());
        shown.push_str(&format!("'{}' ", printable(&arg[..len])));
    }
    let name = printable(&name[..name.len().min(UNKNOWN_LEN_MAX)]);
    CommandError::Unknown { name, args: shown }
}

/// Text from a client for use in an error, which is one line.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(['\r', '\n'], " ")
}

fn invalid(text: impl Into<String>) -> CommandError {
    CommandError::Invalid(text.into())
}
