//! Child processes that end with us: by pid, whatever happens.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a waiting step looks at its child and at Ctrl-C.
const POLL: Duration = Duration::from_millis(10);

/// The repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.to_owned(), Path::to_owned)
}

/// Where this workspace's builds go.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A binary of the workspace, built in `profile`.
pub(crate) fn binary(profile: &str, name: &str) -> PathBuf {
    let folder = if profile == "dev" { "debug" } else { profile };
    target().join(folder).join(name)
}

/// `cargo`, in the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// The profile of CI.
pub(crate) const CI_PROFILE: &str = "ci";

/// The packages that are chosen where `package` is to be built in `profile`. CI builds all of them,
/// whichever is asked for: each alone has its dependencies with other features, and they would be
/// compiled once more.
pub(crate) fn chosen<'a>(package: &'a str, profile: &'a str) -> Vec<&'a str> {
    let packages =
        if profile == CI_PROFILE { vec!["--workspace"] } else { vec!["--package", package] };
    [&packages[..], &["--quiet", "--profile", profile]].concat()
}

/// Builds the programs of `package` in `profile`, and says where the one called `name` is.
pub(crate) fn build(package: &str, name: &str, profile: &str) -> Result<PathBuf> {
    // The tests as well: their dependencies' features are everybody's.
    let tests: &[&str] = if profile == CI_PROFILE { &["--tests"] } else { &[] };
    run(cargo(&["build", "--bins"]).args(chosen(package, profile)).args(tests))?;
    Ok(binary(profile, name))
}

/// Names a `towline` to use instead of building one: a release to compare with, or an impostor
/// that a test must catch. `primary` and `replica` lie beside it.
const OTHER_TOWLINE: &str = "XTASK_TOWLINE";

/// Builds the `towline` binary in `profile` and says where it is.
pub(crate) fn build_towline(profile: &str) -> Result<PathBuf> {
    if let Some(other) = std::env::var_os(OTHER_TOWLINE) {
        return Ok(other.into());
    }
    build("towline-server", "towline", profile)
}

/// Whether Ctrl-C or a SIGTERM has come. The first call starts listening.
pub(crate) fn interrupted() -> bool {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let flag = FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // Without it Ctrl-C ends us at once, as it does every program.
            let _ = signal_hook::flag::register(signal, Arc::clone(&flag));
        }
        flag
    });
    flag.load(Ordering::Relaxed)
}

/// Fails once Ctrl-C has come, so that everything that was started is dropped on the way out.
pub(crate) fn check_interrupted() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// Sleeps, but not through Ctrl-C.
pub(crate) fn sleep(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        check_interrupted()?;
        std::thread::sleep(POLL.min(time));
    }
    check_interrupted()
}

/// Runs a command to its end; its failure is ours.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = Running::spawn(command)?.wait(None)?;
    if !status.success() {
        bail!("{} ended with {status}", show(command));
    }
    Ok(())
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot start {}", show(command)))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr);
        bail!("{} ended with {}\n{text}{why}", show(command), done.status);
    }
    Ok(text)
}

/// A command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// A child that does not outlive this handle.
pub(crate) struct Running {
    child: Child,
    what: String,
}

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        interrupted();
        let what = show(command);
        let child = command.spawn().with_context(|| format!("cannot start {what}"))?;
        Ok(Self { child, what })
    }

    /// Starts a server: nothing on stdin, what it says into `log`.
    pub(crate) fn serve(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        let errors = file.try_clone()?;
        Self::spawn(command.stdin(Stdio::null()).stdout(file).stderr(errors))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its stderr, if that was asked to be piped; once.
    pub(crate) fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end, for at most `limit`.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if limit.is_some_and(|limit| started.elapsed() > limit) {
                bail!("{} still runs after {:?}", self.what, started.elapsed());
            }
            sleep(POLL)?;
        }
    }

    /// Sends a signal by name, as `kill -NAME` does, and waits for the end.
    pub(crate) fn end_by(&mut self, signal: &str) -> Result<ExitStatus> {
        let pid = self.pid().to_string();
        run(Command::new("kill").args(["-s", signal, &pid]))?;
        self.wait(Some(Duration::from_secs(10)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder of our own under the target folder: on a real disk, as /tmp need not be. It is removed
/// with its handle unless it is kept.
pub(crate) struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    pub(crate) fn new(name: &str) -> Result<Self> {
        Self::within(&target().join("xtask"), name)
    }

    /// One on another file system.
    pub(crate) fn within(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(format!("{name}-{}", std::process::id()));
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, keep: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it behind, for somebody to look at.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // A leftover under target/ is no harm.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
