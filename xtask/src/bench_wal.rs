//! `cargo xtask bench-wal`: the log beside other logs and beside what the machine can do.
//!
//! The peers are a workspace of their own, benches/peers, which this builds and runs. The full run
//! writes docs/benchmarks/wal.md; `--quick` shows that everything works, and prints.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::arguments::Arguments;
use crate::process::{Folder, cargo, root, run as run_command, target};

/// The workspace of the peers, and its program.
const MANIFEST: &str = "benches/peers/Cargo.toml";
const PROGRAM: &str = "towline-bench-peers";

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let mut options = Vec::new();
    if arguments.flag("--quick") {
        options.push("--quick".to_owned());
    }
    for name in ["--rounds", "--only"] {
        if let Some(value) = arguments.value(name)? {
            options.extend([name.to_owned(), value]);
        }
    }
    let dir = arguments.value("--dir")?.map(PathBuf::from);
    arguments.finish()?;
    let built = target().join("peers");
    let what = ["build", "--release", "--locked", "--quiet", "--manifest-path", MANIFEST];
    run_command(cargo(&what).arg("--target-dir").arg(&built))?;
    let folder = match dir {
        Some(dir) => Folder::within(&dir, "bench-wal")?,
        None => Folder::new("bench-wal")?,
    };
    let mut command = Command::new(built.join("release").join(PROGRAM));
    command.arg("run").arg(folder.path()).args(options);
    run_command(command.arg("--docs").arg(root().join("docs/benchmarks")))
}
