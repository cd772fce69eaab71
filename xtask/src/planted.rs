//! `cargo xtask planted protocol` and `planted wal`: every bug that is built in on purpose is
//! caught, those of the rules by the simulator, those of the log by its torture.
//!
//! The bugs are in the code of the product, behind `--cfg towline_planted`; a build of its own, in
//! a folder of its own, has them, and each run switches one of them on.

use std::process::Command;

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::process::{cargo, check_interrupted, output, run as run_command, target};

/// The compiler flag that lets the planted bugs in.
const FLAG: &str = "--cfg towline_planted";

/// Who catches the bugs of a part.
struct Catcher {
    part: &'static str,
    package: &'static str,
    /// The words that make it name the bugs, and those before the name of one that is to be caught.
    list: &'static [&'static str],
    catch: &'static [&'static str],
}

const CATCHERS: [Catcher; 2] = [
    Catcher { part: "protocol", package: "towline-sim", list: &["--plants"], catch: &["--plant"] },
    Catcher { part: "wal", package: "towline-torture", list: &["plants"], catch: &["plant"] },
];

pub(crate) fn run(mut arguments: Arguments) -> Result<()> {
    let what = arguments.verb();
    let profile = arguments.profile()?;
    arguments.finish()?;
    match CATCHERS.iter().find(|catcher| Some(catcher.part) == what.as_deref()) {
        Some(catcher) => catcher.check(&profile),
        None => bail!("say what: cargo xtask planted protocol, or planted wal"),
    }
}

/// Plants every bug there is, one after another.
pub(crate) fn check(profile: &str) -> Result<()> {
    CATCHERS.iter().try_for_each(|catcher| catcher.check(profile))
}

impl Catcher {
    fn check(&self, profile: &str) -> Result<()> {
        let folder = target().join("planted");
        // All of them at once: each alone has its dependencies with other features.
        let packages = CATCHERS.iter().flat_map(|catcher| ["--package", catcher.package]);
        let mut command = cargo(&["build", "--quiet", "--profile", profile]);
        command.args(packages).env("RUSTFLAGS", FLAG).env("CARGO_TARGET_DIR", &folder);
        run_command(&mut command)?;
        let built = if profile == "dev" { "debug" } else { profile };
        let program = folder.join(built).join(self.package);
        let names = output(Command::new(&program).args(self.list))?;
        let mut caught = 0;
        for name in names.lines() {
            check_interrupted()?;
            let found = Command::new(&program).args(self.catch).arg(name).output()?;
            print!("{}", String::from_utf8_lossy(&found.stdout));
            caught += usize::from(found.status.success());
        }
        let planted = names.lines().count();
        println!("planted {}: planted={planted} caught={caught}", self.part);
        if caught < planted || planted == 0 {
            bail!("{} of {planted} planted bugs were not caught", planted - caught);
        }
        Ok(())
    }
}
