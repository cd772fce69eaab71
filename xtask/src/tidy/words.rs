//! Words that say nothing, or that the field has left behind.

use super::Violation;
use super::tree::Tree;

/// Not in any part of a name.
const IN_NO_NAME: [&str; 15] = [
    "manager", "managers", "helper", "helpers", "util", "utils", "misc", "handler", "handlers",
    "master", "masters", "slave", "slaves", "leader", "follower",
];

/// Not the whole name of a file, module or type.
const NOT_ALONE: [&str; 3] = ["common", "data", "info"];

/// INFO is a command of the Redis protocol: the file that answers it, and the one that says so.
const NAMED_AFTER_A_COMMAND: [&str; 2] = ["server/src/info.rs", "server/src/lib.rs"];

/// Names that other people gave to what is used, and where it is.
const THEIRS: [(&str, &str); 1] = [("benches/peers/src/peers/okaywal.rs", "LogManager")];

/// Promises in the source that nobody keeps.
const LEFT_OVER: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];
const UNFINISHED: [&str; 3] = ["todo!", "unimplemented!", "#[ignore"];

/// Names are the field's own, and nothing is left for later.
pub(super) fn banned(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, file) in tree.rust() {
        let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
        let named = NAMED_AFTER_A_COMMAND.contains(&path);
        let whole = alone(stem).filter(|_| !named);
        if let Some(word) = banned_word(stem).or(whole) {
            violations.push(Violation::new(
                path,
                0,
                format!("a file named {word}: say what it is"),
            ));
        }
        for (index, (line, code)) in file.text.lines().zip(file.code.lines()).enumerate() {
            let mut push = |message: String| {
                violations.push(Violation::new(path, index + 1, message));
            };
            for name in identifiers(code).filter(|name| !THEIRS.contains(&(path, *name))) {
                if let Some(word) = banned_word(name) {
                    push(format!("{name}: {word} says nothing; use the field's word"));
                }
            }
            if let Some(word) = module_name(code).and_then(alone).filter(|_| !named) {
                push(format!("a module or type named {word}: say what it is"));
            }
            if let Some(word) =
                LEFT_OVER.iter().find(|word| identifiers(line).any(|name| name == **word))
            {
                push(format!("{word}: do it, or write down why not"));
            }
            if let Some(word) = UNFINISHED.iter().find(|word| code.contains(**word)) {
                push(format!("{word}: unfinished work does not go in"));
            }
        }
    }
    violations
}

fn identifiers(line: &str) -> impl Iterator<Item = &str> {
    line.split(|char: char| !(char.is_alphanumeric() || char == '_'))
        .filter(|name| !name.is_empty())
}

/// The banned part of a name, if it has one.
fn banned_word(name: &str) -> Option<&'static str> {
    let parts = parts(name);
    IN_NO_NAME.into_iter().find(|word| parts.iter().any(|part| part == word))
}

fn alone(name: &str) -> Option<&'static str> {
    NOT_ALONE.into_iter().find(|word| name.eq_ignore_ascii_case(word))
}

/// What follows `mod`, `struct`, `enum` or `trait`.
fn module_name(code: &str) -> Option<&str> {
    let mut names = identifiers(code);
    names.find(|name| ["mod", "struct", "enum", "trait"].contains(name))?;
    names.next()
}

/// The words of a name in snake, kebab or camel case, in lower case.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut was_lower = false;
    for char in name.chars() {
        let starts = char == '_' || char == '-' || (char.is_uppercase() && was_lower);
        if starts {
            parts.push(String::new());
        }
        if char.is_alphanumeric()
            && let Some(part) = parts.last_mut()
        {
            part.extend(char.to_lowercase());
        }
        was_lower = char.is_lowercase() || char.is_numeric();
    }
    parts
}
