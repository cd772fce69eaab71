//! The rules of the house that a compiler does not check.
//!
//! Every rule is a function from what is in the repository to what is wrong with it, so that the
//! tests can plant a violation of each and see it caught.

mod arrows;
mod docs;
mod mask;
mod sizes;
#[cfg(test)]
mod tests;
mod tree;
mod words;

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use tree::Tree;

/// Something that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    /// The file, relative to the repository.
    path: String,
    /// The line, from 1; 0 for the file as a whole.
    line: usize,
    /// Which rule, and what to do.
    message: String,
}

impl Violation {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

/// Every rule.
const RULES: [fn(&Tree) -> Vec<Violation>; 9] = [
    arrows::one_way,
    arrows::third_parties,
    arrows::source,
    sizes::files,
    sizes::functions,
    sizes::columns,
    words::banned,
    docs::links,
    docs::crates,
];

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    arguments.finish()?;
    let tree = Tree::read()?;
    let violations = check(&tree);
    for Violation { path, line, message } in &violations {
        eprintln!("{path}:{line}: {message}");
    }
    if !violations.is_empty() {
        bail!("{} violations of the rules of the house", violations.len());
    }
    println!("tidy: {} files, {} packages", tree.files.len(), tree.packages.len());
    Ok(())
}

fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations: Vec<_> = RULES.iter().flat_map(|rule| rule(tree)).collect();
    violations.sort();
    violations
}
