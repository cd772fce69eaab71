//! Docs: their links lead somewhere, every crate says what it is, and every crate takes the
//! workspace's lints.

use super::Violation;
use super::tree::Tree;

/// Every relative link of a Markdown file leads to something that exists.
pub(super) fn links(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, file) in tree.files.iter().filter(|(path, _)| path.ends_with(".md")) {
        let mut fenced = false;
        for (index, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            for target in targets(line) {
                if !leads_somewhere(tree, path, target) {
                    let message = format!("a link to {target}, which does not exist");
                    violations.push(Violation::new(path, index + 1, message));
                }
            }
        }
    }
    violations
}

/// Every crate's root says what the crate is and forbids unsafe code, and its manifest takes the
/// lints.
pub(super) fn crates(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in &tree.packages {
        let manifest = format!("{}/Cargo.toml", package.folder);
        let lints = tree.files.get(&manifest).is_some_and(|file| file.text.contains("[lints"));
        if !lints {
            violations.push(Violation::new(&manifest, 0, "no [lints]: workspace = true"));
        }
        for root in &package.roots {
            let Some(file) = tree.files.get(root) else {
                continue;
            };
            if !file.text.starts_with("//!") {
                violations.push(Violation::new(root, 1, "no crate docs: start with //!"));
            }
            let forbids = file.code.contains("#![forbid(unsafe_code)]");
            if package.name != "towline-wal" && !forbids {
                let message = "no #![forbid(unsafe_code)]: only wal may be without";
                violations.push(Violation::new(root, 1, message));
            }
        }
    }
    violations
}

/// What the links of a line point at, in this repository.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split_whitespace().next()?;
        let outside = target.contains("://") || target.starts_with("mailto:");
        (!outside && !target.starts_with('#')).then_some(target)
    })
}

fn leads_somewhere(tree: &Tree, from: &str, target: &str) -> bool {
    let target = target.split('#').next().unwrap_or(target);
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." if parts.pop().is_none() => return false,
            ".." => {}
            part => parts.push(part),
        }
    }
    parts.is_empty() || tree.paths.contains(&parts.join("/"))
}
