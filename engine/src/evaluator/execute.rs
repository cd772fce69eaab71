//! What each command does.

use bytes::{Bytes, BytesMut};

use super::batch::{Batch, Failure};
use super::number::parse_integer;
use crate::command::{
    Command, ExpireCondition, SetAnswer, SetCondition, SetExpiry, SetOptions, TimeUnit,
};
use crate::effects::{PAYLOAD_LEN_MAX, encoded_len_max};
use crate::reply::Reply;
use crate::value::Value;

pub(super) fn execute(batch: &mut Batch<'_>, command: &Command) -> Result<Reply, Failure> {
    match command {
        Command::Get { key } => Ok(bulk_or_null(batch.get(key)?)),
        Command::Set { key, value, options } => set(batch, key, value, options),
        Command::Del { keys } => del(batch, keys),
        Command::Exists { keys } => exists(batch, keys),
        Command::MGet { keys } => {
            let values = keys.iter().map(|key| Ok(bulk_or_null(batch.get(key)?)));
            values.collect::<Result<_, Failure>>().map(Reply::Array)
        }
        Command::MSet { pairs } => mset(batch, pairs),
        Command::IncrBy { key, delta } => incr_by(batch, key, *delta),
        Command::StrLen { key } => Ok(length(batch.get(key)?.map_or(0, |value| value.bytes.len()))),
        Command::Ttl { key, unit } => ttl(batch, key, *unit),
        Command::Expire { key, after, unit, condition } => {
            expire(batch, key, (*after, *unit), *condition)
        }
        Command::Persist { key } => persist(batch, key),
        Command::DbSize => Ok(Reply::Integer(batch.keys().cast_signed())),
        Command::Append { key, value } => append(batch, key, value),
        Command::GetDel { key } => {
            batch.reserve(1, encoded_len_max(key.len(), 0))?;
            let found = batch.get_to_write(key)?;
            if found.is_some() {
                batch.set(key, None);
            }
            Ok(bulk_or_null(found))
        }
        Command::Failing { error } => Err(Failure::Answer(error.clone())),
    }
}

fn set(
    batch: &mut Batch<'_>,
    key: &Bytes,
    value: &Bytes,
    options: &SetOptions,
) -> Result<Reply, Failure> {
    let now_ms = batch.now_ms();
    let expires_at_ms = match options.expiry {
        SetExpiry::Never | SetExpiry::Keep => None,
        SetExpiry::After(time, unit) => Some(deadline(time, unit, now_ms, options.name)?),
        SetExpiry::At(time, unit) => Some(deadline(time, unit, 0, options.name)?),
    };
    batch.reserve(1, encoded_len_max(key.len(), value.len()))?;
    let old = batch.get_to_write(key)?;
    let holds = match options.condition {
        SetCondition::Always => true,
        SetCondition::Absent => old.is_none(),
        SetCondition::Present => old.is_some(),
    };
    if holds {
        let kept = old.as_ref().and_then(|old| old.expires_at_ms);
        let expires_at_ms = if options.expiry == SetExpiry::Keep {
            kept
        } else {
            expires_at_ms.map(i64::cast_unsigned)
        };
        batch.set(key, Some(Value { bytes: value.clone(), expires_at_ms }));
    }
    Ok(match options.answer {
        SetAnswer::Old => bulk_or_null(old),
        SetAnswer::Flag => Reply::Integer(holds.into()),
        SetAnswer::Ok if holds => Reply::Ok,
        SetAnswer::Ok => Reply::Null,
    })
}

fn del(batch: &mut Batch<'_>, keys: &[Bytes]) -> Result<Reply, Failure> {
    let encoded_len = keys.iter().map(|key| encoded_len_max(key.len(), 0)).sum();
    batch.reserve(keys.len(), encoded_len)?;
    let mut deleted = 0;
    for key in keys {
        if batch.get_to_write(key)?.is_some() {
            batch.set(key, None);
            deleted += 1;
        }
    }
    Ok(Reply::Integer(deleted))
}

fn exists(batch: &mut Batch<'_>, keys: &[Bytes]) -> Result<Reply, Failure> {
    let mut found = 0;
    for key in keys {
        found += i64::from(batch.get(key)?.is_some());
    }
    Ok(Reply::Integer(found))
}

fn mset(batch: &mut Batch<'_>, pairs: &[(Bytes, Bytes)]) -> Result<Reply, Failure> {
    let lens = pairs.iter().map(|(key, value)| encoded_len_max(key.len(), value.len()));
    batch.reserve(pairs.len(), lens.sum())?;
    for (key, value) in pairs {
        batch.get_to_write(key)?;
        batch.set(key, Some(Value { bytes: value.clone(), expires_at_ms: None }));
    }
    Ok(Reply::Ok)
}

fn incr_by(batch: &mut Batch<'_>, key: &Bytes, delta: i64) -> Result<Reply, Failure> {
    const DIGITS_MAX: usize = 20;
    batch.reserve(1, encoded_len_max(key.len(), DIGITS_MAX))?;
    let old = batch.get_to_write(key)?;
    let expires_at_ms = old.as_ref().and_then(|old| old.expires_at_ms);
    let number = match old {
        None => 0,
        Some(old) => parse_integer(&old.bytes)
            .ok_or_else(|| answer("ERR value is not an integer or out of range"))?,
    };
    let number = number
        .checked_add(delta)
        .ok_or_else(|| answer("ERR increment or decrement would overflow"))?;
    batch.set(key, Some(Value { bytes: Bytes::from(number.to_string()), expires_at_ms }));
    Ok(Reply::Integer(number))
}

fn ttl(batch: &mut Batch<'_>, key: &Bytes, unit: TimeUnit) -> Result<Reply, Failure> {
    let Some(value) = batch.get(key)? else {
        return Ok(Reply::Integer(-2));
    };
    let Some(at_ms) = value.expires_at_ms else {
        return Ok(Reply::Integer(-1));
    };
    let left_ms = at_ms.saturating_sub(batch.now_ms()).cast_signed();
    Ok(Reply::Integer(match unit {
        TimeUnit::Seconds => left_ms.saturating_add(500) / 1000,
        TimeUnit::Milliseconds => left_ms,
    }))
}

fn expire(
    batch: &mut Batch<'_>,
    key: &Bytes,
    (after, unit): (i64, TimeUnit),
    condition: ExpireCondition,
) -> Result<Reply, Failure> {
    let name = match unit {
        TimeUnit::Seconds => "expire",
        TimeUnit::Milliseconds => "pexpire",
    };
    let at_ms = deadline(after, unit, batch.now_ms(), name)?;
    let Some(mut value) = batch.get_to_write(key)? else {
        return Ok(Reply::Integer(0));
    };
    let now_at_ms = value.expires_at_ms.map(u64::cast_signed);
    let refused = (condition.without && now_at_ms.is_some())
        || (condition.with && now_at_ms.is_none())
        || (condition.later && now_at_ms.is_none_or(|now_at_ms| at_ms <= now_at_ms))
        || (condition.earlier && now_at_ms.is_some_and(|now_at_ms| at_ms >= now_at_ms));
    if refused {
        return Ok(Reply::Integer(0));
    }
    batch.reserve(1, encoded_len_max(key.len(), value.bytes.len()))?;
    match u64::try_from(at_ms) {
        Ok(at_ms) if at_ms > batch.now_ms() => {
            value.expires_at_ms = Some(at_ms);
            batch.set(key, Some(value));
        }
        _ => batch.set(key, None),
    }
    Ok(Reply::Integer(1))
}

fn persist(batch: &mut Batch<'_>, key: &Bytes) -> Result<Reply, Failure> {
    match batch.get_to_write(key)? {
        Some(value) if value.expires_at_ms.is_some() => {
            batch.reserve(1, encoded_len_max(key.len(), value.bytes.len()))?;
            batch.set(key, Some(Value { expires_at_ms: None, ..value }));
            Ok(Reply::Integer(1))
        }
        _ => Ok(Reply::Integer(0)),
    }
}

fn append(batch: &mut Batch<'_>, key: &Bytes, tail: &Bytes) -> Result<Reply, Failure> {
    let old = batch.get_to_write(key)?;
    let expires_at_ms = old.as_ref().and_then(|old| old.expires_at_ms);
    let head = old.map(|old| old.bytes).unwrap_or_default();
    if encoded_len_max(key.len(), head.len() + tail.len()) > PAYLOAD_LEN_MAX {
        return Err(answer("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    }
    batch.reserve(1, encoded_len_max(key.len(), head.len() + tail.len()))?;
    let mut bytes = BytesMut::with_capacity(head.len() + tail.len());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(tail);
    let len = bytes.len();
    batch.set(key, Some(Value { bytes: bytes.freeze(), expires_at_ms }));
    Ok(length(len))
}

/// `time` after `from_ms` in milliseconds, if the sum can be counted.
fn deadline(time: i64, unit: TimeUnit, from_ms: u64, name: &str) -> Result<i64, Failure> {
    let time_ms = match unit {
        TimeUnit::Seconds => time.checked_mul(1000),
        TimeUnit::Milliseconds => Some(time),
    };
    time_ms
        .and_then(|time_ms| time_ms.checked_add_unsigned(from_ms))
        .ok_or_else(|| answer(&format!("ERR invalid expire time in '{name}' command")))
}

fn bulk_or_null(value: Option<Value>) -> Reply {
    value.map_or(Reply::Null, |value| Reply::Bulk(value.bytes))
}

fn length(len: usize) -> Reply {
    Reply::Integer(i64::try_from(len).expect("values are shorter than a record"))
}

fn answer(text: &str) -> Failure {
    Failure::Answer(text.to_owned())
}
