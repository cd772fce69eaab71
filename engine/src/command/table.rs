//! Which commands there are.

/// A command's name and shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandSpec {
    /// The name in small letters.
    pub name: &'static str,
    /// How many arguments it takes, its name included; if negative, at least so many.
    pub arity: i8,
    /// Whether it writes.
    pub write: bool,
    /// Where its first key is among the arguments; 0 for none.
    pub first_key: i8,
    /// Where its last key is; counted from the end if negative.
    pub last_key: i8,
    /// How far its keys are apart.
    pub key_step: i8,
}

impl CommandSpec {
    /// Whether the command takes `args` arguments, its name included.
    #[must_use]
    pub const fn takes(&self, args: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { args >= wanted } else { args == wanted }
    }
}

const fn one_key(name: &'static str, arity: i8, write: bool) -> CommandSpec {
    CommandSpec { name, arity, write, first_key: 1, last_key: 1, key_step: 1 }
}

const fn many_keys(name: &'static str, write: bool) -> CommandSpec {
    CommandSpec { name, arity: -2, write, first_key: 1, last_key: -1, key_step: 1 }
}

/// Sorted by name.
const COMMANDS: &[CommandSpec] = &[
    one_key("append", 3, true),
    CommandSpec { name: "dbsize", arity: 1, write: false, first_key: 0, last_key: 0, key_step: 0 },
    one_key("decr", 2, true),
    one_key("decrby", 3, true),
    many_keys("del", true),
    many_keys("exists", false),
    one_key("expire", -3, true),
    one_key("get", 2, false),
    one_key("getdel", 2, true),
    one_key("getset", 3, true),
    one_key("incr", 2, true),
    one_key("incrby", 3, true),
    many_keys("mget", false),
    CommandSpec { name: "mset", arity: -3, write: true, first_key: 1, last_key: -1, key_step: 2 },
    one_key("persist", 2, true),
    one_key("pexpire", -3, true),
    one_key("pttl", 2, false),
    one_key("set", -3, true),
    one_key("setex", 4, true),
    one_key("setnx", 3, true),
    one_key("strlen", 2, false),
    one_key("ttl", 2, false),
    many_keys("unlink", true),
];

/// The longest name.
pub(super) const NAME_LEN_MAX: usize = 16;

/// All commands of this engine, sorted by name.
#[must_use]
pub const fn commands() -> &'static [CommandSpec] {
    COMMANDS
}

pub(super) fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    let mut lower = [0; NAME_LEN_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let found = COMMANDS.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)).ok()?;
    Some(&COMMANDS[found])
}
