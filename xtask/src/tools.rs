//! What the tests need of the machine: looked for, installed if it can be, skipped by name if not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::process::{Running, target};

/// A program the tests run, and the Debian package it comes in.
const PROGRAMS: [(&str, &str); 10] = [
    ("strace", "strace"),
    ("redis-cli", "redis-tools"),
    ("redis-benchmark", "redis-tools"),
    ("redis-server", "redis-server"),
    ("python3", "python3"),
    ("c++", "g++"),
    ("mkfs.ext4", "e2fsprogs"),
    ("xfs_io", "xfsprogs"),
    ("losetup", "mount"),
    ("valgrind", "valgrind"),
];

/// Tells Debian's maintainer scripts not to start the services they install.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// The redis-py the real-client tests drive.
const REDIS_PY: &str = "redis>=8,<9";

/// Whether `program` is on the path.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether strace may attach to a process of ours: some containers forbid it.
pub(crate) fn may_trace() -> bool {
    let traced = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", "trace=fdatasync"])
        .args(["-e", "inject=fdatasync:delay_enter=1", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    traced.is_ok_and(|status| status.success())
}

/// Installs what is missing, as far as this machine lets us.
pub(crate) fn prepare() {
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !has(program)).collect();
    if !missing.is_empty() {
        let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        install(&packages);
    }
}

/// Installs Debian packages without starting their services; whether it worked shows in what is
/// there afterwards.
pub(crate) fn install(packages: &[&str]) {
    if !has("apt-get") {
        return eprintln!("no apt-get here to install {}", packages.join(" "));
    }
    println!("installing {}", packages.join(" "));
    let policy = Policy::set();
    for arguments in [&["-q", "update"][..], &install_arguments(packages)] {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        if let Err(error) = crate::process::run(&mut apt) {
            eprintln!("{error:#}");
        }
    }
    drop(policy);
}

fn install_arguments<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["-q", "-y", "--no-install-recommends", "install"];
    arguments.extend(packages);
    arguments
}

/// Keeps services from being started while packages are installed.
struct Policy {
    ours: bool,
}

impl Policy {
    fn set() -> Self {
        let ours = !Path::new(POLICY).exists()
            && std::fs::write(POLICY, "#!/bin/sh\nexit 101\n").is_ok()
            && Command::new("chmod").args(["+x", POLICY]).status().is_ok();
        Self { ours }
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            // Left behind it would only keep services from starting at installation.
            let _ = std::fs::remove_file(POLICY);
        }
    }
}

/// A Python that has redis-py, in a virtual environment under the target folder.
pub(crate) fn python_with_redis() -> Result<PathBuf> {
    let folder = target().join("redis-py");
    let python = folder.join("bin/python3");
    if imports_redis(&python) {
        return Ok(python);
    }
    if create_environment(&folder).is_err() {
        install(&["python3-venv", "python3-pip"]);
        create_environment(&folder)?;
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", REDIS_PY]);
    crate::process::run(&mut pip)?;
    Ok(python)
}

fn create_environment(folder: &Path) -> Result<()> {
    let mut venv = Command::new("python3");
    crate::process::run(venv.args(["-m", "venv", "--clear"]).arg(folder))
}

fn imports_redis(python: &Path) -> bool {
    let mut check = Command::new(python);
    check.args(["-c", "import redis"]).stderr(Stdio::null());
    let running = Running::spawn(&mut check);
    running.and_then(|mut child| child.wait(None)).is_ok_and(|status| status.success())
}
