//! The commands that are the server's own; those on keys are the engine's.

use towline_engine::command::CommandSpec;

const fn plain(name: &'static str, arity: i8) -> CommandSpec {
    CommandSpec { name, arity, write: false, first_key: 0, last_key: 0, key_step: 0 }
}

/// Sorted by name.
const COMMANDS: &[CommandSpec] = &[
    plain("auth", -2),
    plain("client", -2),
    plain("command", -1),
    plain("config", -2),
    plain("discard", 1),
    plain("echo", 2),
    plain("exec", 1),
    plain("hello", -1),
    plain("info", -1),
    plain("multi", 1),
    plain("ping", -1),
    plain("quit", -1),
    plain("readonly", 1),
    plain("readwrite", 1),
    plain("reset", 1),
    plain("role", 1),
    plain("select", 2),
    plain("towline", -2),
    plain("unwatch", 1),
    plain("wait", 3),
    plain("watch", -2),
];

/// The longest name.
const NAME_LEN_MAX: usize = 16;

/// The server's own command of this name, in capitals or not.
pub(super) fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    let mut lower = [0; NAME_LEN_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let found = COMMANDS.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)).ok()?;
    Some(&COMMANDS[found])
}

/// Every command there is.
pub(super) fn all() -> impl Iterator<Item = &'static CommandSpec> {
    COMMANDS.iter().chain(towline_engine::command::commands())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_no_command_is_there_twice() {
        assert!(COMMANDS.is_sorted_by(|one, next| one.name < next.name));
        for spec in COMMANDS {
            assert_eq!(find(spec.name.to_uppercase().as_bytes()), Some(spec));
            assert_eq!(towline_engine::Command::known(spec.name.as_bytes()), None, "{}", spec.name);
        }
        assert_eq!(find(b"nosuch"), None);
        assert_eq!(find(&[b'x'; 100]), None);
    }
}
