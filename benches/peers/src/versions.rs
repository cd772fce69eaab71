//! What was measured, by version.

use std::process::Command;

use anyhow::{Context, Result};

const LOCK_FILE: &str = include_str!("../Cargo.lock");
/// As they are called in the lock file.
const PACKAGES: [&str; 8] = [
    "wal-db",
    "open-wal",
    "okaywal",
    "walrus-rust",
    "raft-engine",
    "fjall",
    "commitlog",
    "crc32fast",
];

/// The peers with their versions, the compiler, and the commit this was built from.
pub(crate) fn describe() -> Result<String> {
    let mut versions = Vec::new();
    for package in PACKAGES {
        let version = version(package).with_context(|| format!("{package} is not locked"))?;
        versions.push(format!("{package} {version}"));
    }
    let rustc = said(Command::new("rustc").arg("--version"))?;
    let here = env!("CARGO_MANIFEST_DIR");
    let commit = said(Command::new("git").args(["-C", here, "rev-parse", "--short=12", "HEAD"]));
    let commit = commit.unwrap_or_else(|_| "unknown".to_owned());
    Ok(format!("versions: towline {commit}, {}, {rustc}", versions.join(", ")))
}

fn version(package: &str) -> Option<&str> {
    let (_, behind) = LOCK_FILE.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    behind.split_once('"').map(|(version, _)| version)
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    anyhow::ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_is_in_the_lock_file() {
        for package in PACKAGES {
            assert!(version(package).is_some_and(|it| it.contains('.')), "{package}");
        }
    }
}
