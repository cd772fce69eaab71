//! The promotion hook that runs an executable.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use towline::{PromotionContext, PromotionHook, Veto};

/// The most bytes of a hook's complaint that are kept.
const REASON_LEN_MAX: u64 = 4096;
/// How often a running hook is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Runs an executable with the phase as its argument and the circumstances as `TOWLINE_…`
/// variables. A status other than zero is a veto, and what it wrote to its standard error is the
/// reason; at its deadline it is killed, which is a veto too.
#[derive(Debug, Clone)]
pub struct ExecutableHook {
    path: PathBuf,
}

impl ExecutableHook {
    /// A hook that runs `path`.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn call(&self, phase: &str, context: &PromotionContext) -> Result<(), Veto> {
        let veto = |problem: String| {
            Veto(format!("the promotion hook {} {phase} {problem}", self.path.display()))
        };
        let mut child =
            self.start(phase, context).map_err(|error| veto(format!("did not start: {error}")))?;
        let complaint = child.stderr.take().map(|stderr| thread::spawn(move || bounded(stderr)));
        let status = wait(&mut child, context.deadline)
            .map_err(|error| veto(format!("could not be waited for: {error}")))?;
        let Some(status) = status else {
            // Something it started may still hold its standard error open, so nobody waits for
            // the end of that.
            return Err(veto(format!("was killed at its deadline of {:?}", context.deadline)));
        };
        if status.success() {
            return Ok(());
        }
        let complaint = complaint.and_then(|reader| reader.join().ok()).unwrap_or_default();
        Err(veto(format!("ended with {status}: {}", complaint.trim())))
    }

    fn start(&self, phase: &str, context: &PromotionContext) -> io::Result<Child> {
        Command::new(&self.path)
            .arg(phase)
            .env("TOWLINE_LOG", context.log.to_string())
            .env("TOWLINE_NODE", context.node.as_str())
            .env("TOWLINE_OLD_EPOCH", context.old_epoch.to_string())
            .env("TOWLINE_NEW_EPOCH", context.new_epoch.to_string())
            .env("TOWLINE_FINAL_LSN", context.final_lsn.to_string())
            .env("TOWLINE_PLANNED", context.planned.to_string())
            .env("TOWLINE_POSSIBLE_LOSS", context.possible_loss.to_string())
            .env("TOWLINE_DEADLINE_MS", context.deadline.as_millis().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    }
}

impl PromotionHook for ExecutableHook {
    fn check(&self, context: &PromotionContext) -> Result<(), Veto> {
        self.call("check", context)
    }

    fn pre_promote(&self, context: &PromotionContext) -> Result<(), Veto> {
        self.call("pre_promote", context)
    }

    fn post_promote(&self, context: &PromotionContext) {
        if let Err(veto) = self.call("post_promote", context) {
            tracing::warn!("{veto}; this node is the primary all the same");
        }
    }
}

/// How the child ended; `None` if it had to be killed.
fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// The beginning of what a stream holds. The rest is read too, so that the writer never blocks.
fn bounded(mut stream: impl Read) -> String {
    let mut kept = Vec::new();
    // A stream that cannot be read has nothing to say.
    let _ = stream.by_ref().take(REASON_LEN_MAX).read_to_end(&mut kept);
    let _ = io::copy(&mut stream, &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    use towline_protocol::epoch::Epoch;
    use towline_protocol::id::{Incarnation, LogId};
    use towline_protocol::lsn::Lsn;

    use super::*;

    /// A child forked while another test's script is open for writing makes that script busy.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    fn hook(name: &str, script: &str) -> ExecutableHook {
        let path = std::env::temp_dir().join(format!("towline-hook-{}-{name}", std::process::id()));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        ExecutableHook::new(path)
    }

    fn context(deadline: Duration) -> PromotionContext {
        PromotionContext {
            log: LogId(7),
            node: "b".parse().unwrap(),
            old_epoch: Epoch { number: 1, incarnation: Incarnation(1) },
            new_epoch: Epoch { number: 2, incarnation: Incarnation(1) },
            final_lsn: Lsn::new(4_242),
            planned: false,
            possible_loss: false,
            deadline,
        }
    }

    #[test]
    fn the_exit_status_decides_and_the_circumstances_are_told() {
        let _alone = ONE_AT_A_TIME.lock().unwrap();
        let told = hook("told", "test \"$1 $TOWLINE_NODE $TOWLINE_FINAL_LSN\" = 'check b 4242'");
        let long = Duration::from_secs(20);
        told.check(&context(long)).unwrap();
        let refusal = told.pre_promote(&context(long)).unwrap_err();
        assert!(refusal.0.contains("pre_promote ended with"), "{refusal}");

        let vetoed = hook("veto", "echo not on a sunday >&2; exit 3");
        let refusal = vetoed.check(&context(long)).unwrap_err();
        assert!(refusal.0.contains("not on a sunday"), "{refusal}");
        for hook in [told, vetoed] {
            fs::remove_file(hook.path).unwrap();
        }
    }

    #[test]
    fn a_slow_or_loud_or_absent_hook_is_a_bounded_veto() {
        let _alone = ONE_AT_A_TIME.lock().unwrap();
        let slow = hook("slow", "exec sleep 60");
        let refusal = slow.check(&context(Duration::from_millis(200))).unwrap_err();
        assert!(refusal.0.contains("deadline"), "{refusal}");

        let loud = hook("loud", "head -c 1000000 /dev/zero >&2; exit 1");
        let refusal = loud.check(&context(Duration::from_secs(20))).unwrap_err();
        assert!(refusal.0.len() < 8_192);

        let absent = ExecutableHook::new("/nonexistent/hook".into());
        assert!(absent.check(&context(Duration::from_secs(1))).is_err());
        for hook in [slow, loud] {
            fs::remove_file(hook.path).unwrap();
        }
    }
}
