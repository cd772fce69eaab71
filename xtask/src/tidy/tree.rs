//! What the rules look at: the packages and the texts of the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::mask::mask;
use crate::process::{cargo, output, root};

/// One line of `[dependencies]`, `[dev-dependencies]` or `[build-dependencies]`.
#[derive(Debug, Clone, Default)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// Only for tests, examples and benches.
    pub(super) dev: bool,
    pub(super) features: Vec<String>,
    pub(super) default_features: bool,
}

/// A package of the workspace.
#[derive(Debug, Clone, Default)]
pub(super) struct Package {
    pub(super) name: String,
    /// Its folder, relative to the repository.
    pub(super) folder: String,
    /// The root files of its libraries and binaries.
    pub(super) roots: Vec<String>,
    pub(super) dependencies: Vec<Dependency>,
}

/// A text file.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) text: String,
    /// The text with comments and literals blanked out, line for line; for `.rs` only.
    pub(super) code: String,
}

/// The repository.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    pub(super) packages: Vec<Package>,
    /// By path relative to the repository, with `/`.
    pub(super) files: BTreeMap<String, File>,
    /// Every path that exists, folders too, for links.
    pub(super) paths: BTreeSet<String>,
}

impl Tree {
    /// Adds a file.
    pub(super) fn insert(&mut self, path: &str, text: &str) {
        let code = if path.ends_with(".rs") { mask(text) } else { String::new() };
        self.files.insert(path.to_owned(), File { text: text.to_owned(), code });
        self.insert_path(path);
    }

    fn insert_path(&mut self, path: &str) {
        let mut path = path;
        while self.paths.insert(path.to_owned()) {
            let Some((folder, _)) = path.rsplit_once('/') else {
                break;
            };
            path = folder;
        }
    }

    /// The `.rs` files.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&str, &File)> {
        self.files
            .iter()
            .filter(|(path, _)| path.ends_with(".rs"))
            .map(|(path, file)| (path.as_str(), file))
    }

    /// The repository as it lies there: what git knows, and what it would add.
    pub(super) fn read() -> Result<Self> {
        let root = root();
        let mut git = std::process::Command::new("git");
        git.current_dir(&root).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
        let mut tree = Self { packages: packages(&root)?, ..Self::default() };
        for path in output(&mut git)?.lines() {
            let full = root.join(path);
            if !full.is_file() {
                continue;
            }
            if [".rs", ".md", ".toml"].iter().any(|end| path.ends_with(end)) {
                let text = std::fs::read_to_string(&full).with_context(|| path.to_owned())?;
                tree.insert(path, &text);
            } else {
                tree.insert_path(path);
            }
        }
        Ok(tree)
    }
}

fn packages(root: &Path) -> Result<Vec<Package>> {
    let text = output(&mut cargo(&["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let listed = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    Ok(listed.iter().map(|package| read_package(root, package)).collect())
}

fn read_package(root: &Path, package: &Value) -> Package {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let relative = |path: &str| {
        let path = Path::new(path);
        path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
    };
    let manifest = relative(&text(&package["manifest_path"]));
    let is_product = |target: &Value| {
        list(&target["kind"]).iter().any(|kind| ["lib", "bin"].contains(&text(kind).as_str()))
    };
    Package {
        name: text(&package["name"]),
        folder: manifest.trim_end_matches("/Cargo.toml").to_owned(),
        roots: list(&package["targets"])
            .iter()
            .filter(|target| is_product(target))
            .map(|target| relative(&text(&target["src_path"])))
            .collect(),
        dependencies: list(&package["dependencies"])
            .iter()
            .map(|line| Dependency {
                name: text(&line["name"]),
                dev: line["kind"].as_str() == Some("dev"),
                features: list(&line["features"]).iter().map(text).collect(),
                default_features: line["uses_default_features"].as_bool().unwrap_or(true),
            })
            .collect(),
    }
}
