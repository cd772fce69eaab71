//! Every rule is broken once, on purpose.

use super::tree::{Dependency, Package, Tree};
use super::{Violation, check};

fn package(name: &str, folder: &str, dependencies: &[&str]) -> Package {
    Package {
        name: name.to_owned(),
        folder: folder.to_owned(),
        roots: vec![format!("{folder}/src/lib.rs")],
        dependencies: dependencies
            .iter()
            .map(|name| Dependency { name: (*name).to_owned(), ..Dependency::default() })
            .collect(),
    }
}

/// A small house in order.
fn house() -> Tree {
    let mut tree = Tree::default();
    let rooms = [
        package("towline-protocol", "protocol", &["bytes"]),
        package("towline-wal", "wal", &["towline-protocol", "tokio"]),
        package("towline-transport", "transport", &["towline-protocol", "quinn", "rustls"]),
        package("towline-shipper", "shipper", &["towline-wal", "towline-transport"]),
        package("towline-receiver", "receiver", &["towline-wal", "towline-transport"]),
        package("towline-model", "model", &["stateright"]),
        package("xtask", "xtask", &["anyhow"]),
    ];
    for room in rooms {
        tree.insert(&format!("{}/Cargo.toml", room.folder), "[lints]\nworkspace = true\n");
        tree.insert(&room.roots[0], "//! A crate.\n#![forbid(unsafe_code)]\n");
        tree.packages.push(room);
    }
    tree.insert("docs/a.md", "[b](b.md) [top](../README.md#top) [web](https://example.org)\n");
    tree.insert("docs/b.md", "nothing\n");
    tree.insert("README.md", "[docs](docs/) [here](#here)\n```\n[x](nowhere)\n```\n");
    tree
}

fn assert_caught(tree: &Tree, path: &str, line: usize, message: &str) {
    let found = check(tree);
    let matches =
        |one: &&Violation| one.path == path && one.line == line && one.message.contains(message);
    assert!(found.iter().any(|one| matches(&one)), "{path}:{line}: {message} not in {found:#?}");
    assert_eq!(found.len(), 1, "only what was planted: {found:#?}");
}

/// Plants `text` as a file and expects it to be caught.
fn plant(path: &str, text: &str, line: usize, message: &str) {
    let mut tree = house();
    tree.insert(path, text);
    assert_caught(&tree, path, line, message);
}

/// Plants a dependency and expects it to be caught.
fn plant_dependency(from: &str, to: &str, message: &str) {
    let mut tree = house();
    let package = tree.packages.iter_mut().find(|package| package.name == from).unwrap();
    let dependency = Dependency { name: to.to_owned(), ..Dependency::default() };
    package.dependencies.push(dependency);
    let manifest = format!("{}/Cargo.toml", package.folder);
    assert_caught(&tree, &manifest, 0, message);
}

#[test]
fn a_house_in_order_passes() {
    assert_eq!(check(&house()), []);
}

#[test]
fn arrows_point_one_way() {
    plant_dependency("towline-shipper", "towline-receiver", "must not depend on");
    plant_dependency("towline-receiver", "towline-shipper", "must not depend on");
    plant_dependency("towline-protocol", "towline-wal", "must not depend on");
    plant_dependency("towline-transport", "towline-wal", "must not depend on");
    plant_dependency("towline-wal", "xtask", "must not depend on");
    plant_dependency("towline-wal", "towline-model", "must not depend on");
    plant_dependency("towline-model", "towline-protocol", "must not depend on");
}

#[test]
fn a_package_that_is_not_on_the_map_is_named() {
    let mut tree = house();
    tree.packages.push(package("towline-extra", "extra", &[]));
    tree.insert("extra/src/lib.rs", "//! A crate.\n#![forbid(unsafe_code)]\n");
    tree.insert("extra/Cargo.toml", "[lints]\nworkspace = true\n");
    assert_caught(&tree, "extra/Cargo.toml", 0, "not on the map");
}

#[test]
fn third_parties_stay_where_they_were_let_in() {
    plant_dependency("towline-shipper", "quinn", "must not use quinn");
    plant_dependency("towline-wal", "rustls", "must not use rustls");
    plant_dependency("towline-shipper", "anyhow", "must not use anyhow");
    plant_dependency("towline-protocol", "tokio", "may use of tokio");
}

#[test]
fn wal_takes_of_tokio_only_sync() {
    let mut tree = house();
    let wal = tree.packages.iter_mut().find(|package| package.name == "towline-wal").unwrap();
    wal.dependencies[1].features = vec!["sync".to_owned(), "rt".to_owned()];
    assert_caught(&tree, "wal/Cargo.toml", 0, "may use of tokio");
    plant("wal/src/group.rs", "use tokio::time::sleep;\n", 1, "only tokio::sync");
}

#[test]
fn protocol_is_pure() {
    for line in [
        "use std::fs::File;",
        "use std::net::SocketAddr;",
        "use std::time::Instant;",
        "let now = SystemTime::now();",
    ] {
        plant("protocol/src/rule.rs", line, 1, "in protocol");
    }
}

#[test]
fn only_transport_names_quinn_and_rustls() {
    plant("shipper/src/session.rs", "\nuse quinn::Connection;\n", 2, "only transport");
    plant("receiver/src/dial.rs", "fn f(x: rustls::Error) {}\n", 1, "only transport");
}

#[test]
fn unsafe_lives_in_one_module() {
    plant("wal/src/wal.rs", "fn f() { unsafe { g() } }\n", 1, "unsafe lives in");
    let mut tree = house();
    tree.insert("wal/src/map.rs", "fn f() { unsafe { g() } }\n");
    tree.insert("fuzz/fuzz_targets/recovery.rs", "fn f() { unsafe { g() } }\n");
    tree.insert(
        "protocol/src/a.rs",
        "// unsafe is for others\nfn f() -> &'static str { \"unsafe\" }\n",
    );
    assert_eq!(check(&tree), []);
}

#[test]
fn every_other_crate_forbids_it() {
    plant("shipper/src/lib.rs", "//! A crate.\n", 1, "forbid(unsafe_code)");
}

#[test]
fn every_crate_says_what_it_is() {
    plant("shipper/src/lib.rs", "#![forbid(unsafe_code)]\n", 1, "no crate docs");
}

#[test]
fn every_crate_takes_the_lints() {
    plant("shipper/Cargo.toml", "[package]\n", 0, "no [lints]");
}

#[test]
fn files_functions_and_lines_have_a_size() {
    plant("wal/src/long.rs", &"fn f() {}\n".repeat(501), 0, "501 lines");
    plant("wal/src/wide.rs", &format!("// {}\n", "x".repeat(98)), 1, "101 columns");
    let body = "    g();\n".repeat(69);
    let function = format!("\npub(crate) async fn f(\n) {{\n{body}}}\n");
    plant("wal/src/deep.rs", &function, 2, "a function of 72 lines");
    let mut tree = house();
    tree.insert("wal/src/a.rs", &format!("#[cfg(test)]\nmod tests {{\nfn f() {{\n{body}}}\n}}\n"));
    tree.insert("wal/tests/b.rs", &function);
    assert_eq!(check(&tree), [], "tests may be longer");
}

#[test]
fn empty_words_are_not_names() {
    for (line, word) in [
        ("struct LogManager;", "manager"),
        ("fn read_helper() {}", "helper"),
        ("let slave = 1;", "slave"),
        ("mod common;", "common"),
        ("struct Info;", "info"),
    ] {
        plant("wal/src/names.rs", line, 1, word);
    }
    plant("wal/src/utils.rs", "", 0, "a file named utils");
    let mut tree = house();
    tree.insert("wal/src/a.rs", "fn common_point(data_dir: &str) -> &str { \"a manager\" }\n");
    assert_eq!(check(&tree), []);
}

#[test]
fn nothing_is_left_for_later() {
    for word in [concat!("FIX", "ME"), concat!("XX", "X")] {
        plant("wal/src/a.rs", &format!("// {word} later\n"), 1, word);
    }
    for line in ["fn f() { todo!() }", "fn f() { unimplemented!() }", "#[ignore]\nfn f() {}"] {
        plant("wal/src/a.rs", line, 1, "unfinished");
    }
}

#[test]
fn links_lead_somewhere() {
    plant("docs/c.md", "\nsee [there](missing.md)\n", 2, "missing.md");
    plant("docs/c.md", "see [there](../../outside.md)\n", 1, "outside.md");
}
