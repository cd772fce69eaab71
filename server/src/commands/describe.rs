//! COMMAND: what commands there are.

use bytes::Bytes;
use towline_engine::Command;
use towline_engine::command::CommandSpec;

use super::{subcommand, table, unknown_subcommand, wrong_arity};
use crate::resp::Value;

pub(super) fn run(args: &[Bytes]) -> Value {
    if args.len() == 1 {
        return Value::Array(table::all().map(described).collect());
    }
    match subcommand(args).as_str() {
        "count" if args.len() == 2 => Value::Integer(table::all().count() as i64),
        "count" => wrong_arity("command|count"),
        "docs" => Value::Map(Vec::new()),
        "info" if args.len() == 2 => Value::Array(table::all().map(described).collect()),
        "info" => {
            let known = |name: &Bytes| table::find(name).or_else(|| Command::known(name));
            let names = args[2..].iter();
            Value::Array(names.map(|name| known(name).map_or(Value::Null, described)).collect())
        }
        "list" => Value::Array(table::all().map(|spec| spec.name.into()).collect()),
        _ => unknown_subcommand(args),
    }
}

/// Name, arity, flags, first key, last key, step, and the categories, tips, key specifications
/// and subcommands, of which there are none.
fn described(spec: &CommandSpec) -> Value {
    let flag = if spec.write { "write" } else { "readonly" };
    Value::Array(vec![
        spec.name.into(),
        Value::Integer(spec.arity.into()),
        Value::Array(vec![Value::Simple(flag.into())]),
        Value::Integer(spec.first_key.into()),
        Value::Integer(spec.last_key.into()),
        Value::Integer(spec.key_step.into()),
        Value::Array(Vec::new()),
        Value::Array(Vec::new()),
        Value::Array(Vec::new()),
        Value::Array(Vec::new()),
    ])
}
