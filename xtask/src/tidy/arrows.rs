//! Who may depend on whom, and what each crate may name in its source.

use super::Violation;
use super::tree::{Dependency, Package, Tree};

/// A package and the packages of this workspace it may depend on, nearest the ground first.
const MAY_DEPEND_ON: [(&str, &[&str]); 8] = [
    ("towline-protocol", &[]),
    ("towline-wal", &["towline-protocol"]),
    ("towline-transport", &["towline-protocol"]),
    ("towline-shipper", &["towline-protocol", "towline-wal", "towline-transport"]),
    ("towline-receiver", &["towline-protocol", "towline-wal", "towline-transport"]),
    (
        "towline",
        &[
            "towline-protocol",
            "towline-wal",
            "towline-transport",
            "towline-shipper",
            "towline-receiver",
        ],
    ),
    ("towline-engine", &["towline-protocol", "towline"]),
    (
        "towline-server",
        &["towline-protocol", "towline-wal", "towline-transport", "towline", "towline-engine"],
    ),
];

/// They exercise the others and nothing imports them.
const AT_THE_EDGE: [&str; 7] = [
    "towline-sim",
    "towline-sim-quic",
    "towline-model",
    "towline-torture",
    "towline-benches",
    "towline-fuzz",
    "xtask",
];

/// It is written apart from the code and so takes nothing from it, although it is at the edge.
const APART: &str = "towline-model";

/// A third party, and who alone may depend on it outside of tests.
const ONLY: [(&str, &[&str]); 5] = [
    ("quinn", &["towline-transport"]),
    ("quinn-proto", &["towline-transport"]),
    ("quinn-udp", &["towline-transport"]),
    ("rustls", &["towline-transport"]),
    ("anyhow", &["towline-server", "xtask", "towline-sim", "sim"]),
];

/// What the pure crate must not name: it has no I/O, no clock, no tasks and no randomness.
const NOT_IN_PROTOCOL: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::io",
    "std::thread",
    "std::time::Instant",
    "SystemTime",
    "Instant::now",
    "tokio",
    "quinn",
];

/// The two modules that may be unsafe: the mapped bytes, and who may write which of them.
const UNSAFE_MODULES: [&str; 3] = ["wal/src/map.rs", "wal/src/map/", "wal/src/reserve.rs"];

/// Every dependency on a package of this workspace follows an arrow of the map.
pub(super) fn one_way(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in &tree.packages {
        let manifest = format!("{}/Cargo.toml", package.folder);
        let known = MAY_DEPEND_ON.iter().find(|(name, _)| *name == package.name);
        let at_the_edge = AT_THE_EDGE.contains(&package.name.as_str());
        if known.is_none() && !at_the_edge {
            let message = format!("{} is not on the map; add it to tidy/arrows.rs", package.name);
            violations.push(Violation::new(&manifest, 0, message));
            continue;
        }
        for dependency in ours(tree, package) {
            let follows = known.is_none_or(|(_, may)| may.contains(&dependency.name.as_str()));
            let follows = follows && package.name != APART;
            let inward = !AT_THE_EDGE.contains(&dependency.name.as_str());
            // A package may name itself, to switch on features for its own tests.
            if (follows && inward) || dependency.name == package.name {
                continue;
            }
            let message = format!(
                "{} must not depend on {}: arrows point one way",
                package.name, dependency.name
            );
            violations.push(Violation::new(&manifest, 0, message));
        }
    }
    violations
}

fn ours<'a>(tree: &'a Tree, package: &'a Package) -> impl Iterator<Item = &'a Dependency> {
    package
        .dependencies
        .iter()
        .filter(|dependency| tree.packages.iter().any(|other| other.name == dependency.name))
}

/// Third parties stay where they were let in.
pub(super) fn third_parties(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in &tree.packages {
        let manifest = format!("{}/Cargo.toml", package.folder);
        for dependency in package.dependencies.iter().filter(|dependency| !dependency.dev) {
            let only = ONLY.iter().find(|(name, _)| *name == dependency.name);
            if let Some((name, may)) = only
                && !may.contains(&package.name.as_str())
            {
                let message = format!("{} must not use {name}: only {may:?} may", package.name);
                violations.push(Violation::new(&manifest, 0, message));
            }
            if dependency.name != "tokio" {
                continue;
            }
            let sync_only = dependency.features.iter().all(|feature| feature == "sync")
                && !dependency.default_features;
            if package.name == "towline-protocol" || (package.name == "towline-wal" && !sync_only) {
                let message = format!("{} may use of tokio: wal sync, protocol none", package.name);
                violations.push(Violation::new(&manifest, 0, message));
            }
        }
    }
    violations
}

/// What the source itself may name.
pub(super) fn source(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, file) in tree.rust() {
        for (index, line) in file.code.lines().enumerate() {
            if let Some(message) = forbidden(path, line) {
                violations.push(Violation::new(path, index + 1, message));
            }
        }
    }
    violations
}

fn forbidden(path: &str, line: &str) -> Option<String> {
    let has = |name: &str| has_word(line, name);
    if path.starts_with("protocol/src/")
        && let Some(name) = NOT_IN_PROTOCOL.iter().find(|name| has(name))
    {
        return Some(format!("{name} in protocol: it has no I/O, no clock and no tasks"));
    }
    if path.starts_with("wal/src/") && !path.ends_with("tests.rs") {
        let other = line.match_indices("tokio::").any(|(at, name)| {
            let rest = &line[at + name.len()..];
            !rest.starts_with("sync")
        });
        if other {
            return Some("wal may use of tokio only tokio::sync".to_owned());
        }
    }
    if !path.starts_with("transport/") && (has("quinn::") || has("rustls::")) {
        return Some("only transport imports quinn and rustls".to_owned());
    }
    // The peers' benchmark writes into a mapping as the log does, to see how fast that can be.
    let may_be_unsafe = path.starts_with("fuzz/")
        || path == "benches/peers/src/limits/skeleton.rs"
        || UNSAFE_MODULES.iter().any(|module| path == *module || path.starts_with(module));
    if !may_be_unsafe && has("unsafe") {
        return Some("unsafe lives in wal/src/map.rs and wal/src/reserve.rs alone".to_owned());
    }
    None
}

/// Whether `name` stands in `line` and not inside a longer word.
fn has_word(line: &str, name: &str) -> bool {
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_word);
        let after = line[at + name.len()..].chars().next().is_some_and(is_word);
        let ends_in_word = name.chars().next_back().is_some_and(is_word);
        !(before || after && ends_in_word)
    })
}
