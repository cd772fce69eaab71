//! One opening of the log: its handle, its applier, and the tasks that see to its flushes.
//!
//! Watermarks are monotonic within one opening. A cut ends it and begins another.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use tokio::task::JoinHandle;
use towline_protocol::lsn::Lsn;
use towline_wal::{CutReport, Wal, WalError};

use crate::node::log_options;
use crate::platform::Platform;
use crate::replay::Applier;
use crate::shared::Shared;

pub(crate) struct Opening {
    wal: Arc<Wal>,
    running: Option<Running>,
}

struct Running {
    applier: Applier,
    flushes: JoinHandle<()>,
    /// Where the log has no thread to sync it.
    syncer: Option<JoinHandle<()>>,
}

impl Opening {
    /// An opened log that nothing runs on yet.
    pub(crate) const fn new(wal: Arc<Wal>) -> Self {
        Self { wal, running: None }
    }

    pub(crate) fn wal(&self) -> Arc<Wal> {
        Arc::clone(&self.wal)
    }
}

/// Where a log of `data_dir` lies.
pub(crate) fn log_dir(data_dir: &Path, log: towline_protocol::id::LogId) -> PathBuf {
    data_dir.join("logs").join(log.to_string())
}

impl Shared {
    /// Starts the applier and the reporting of flushes.
    pub(crate) fn run_opening(self: &Arc<Self>) -> std::io::Result<()> {
        let wal = self.wal();
        let applier = Applier::start(Arc::clone(self), Arc::clone(&wal))?;
        let flushes = tokio::spawn(report_flushes(Arc::clone(self), Arc::clone(&wal)));
        let syncer =
            (!self.platform.has_threads()).then(|| tokio::spawn(sync(self.platform.clone(), wal)));
        let mut opening = self.opening.write().unwrap_or_else(PoisonError::into_inner);
        opening.running = Some(Running { applier, flushes, syncer });
        Ok(())
    }

    /// Stops what runs on the log. The applier is done with its record on return.
    pub(crate) async fn halt_opening(&self) {
        let running = self.running();
        if let Some(running) = running {
            // Seen to have ended, so that no flush of this opening is reported after a cut.
            for task in [Some(running.flushes), running.syncer].into_iter().flatten() {
                task.abort();
                let _ = task.await;
            }
            running.applier.stop().await;
        }
    }

    /// Ends what runs on the log, as the end of the process does.
    pub(crate) fn abort_opening(&self) {
        if let Some(running) = self.running() {
            running.flushes.abort();
            running.syncer.iter().for_each(JoinHandle::abort);
            running.applier.abort();
        }
    }

    fn running(&self) -> Option<Running> {
        self.opening.write().unwrap_or_else(PoisonError::into_inner).running.take()
    }

    /// Cuts the log to `to` and opens it again. Nothing may be receiving or appending.
    pub(crate) async fn cut(self: &Arc<Self>, to: Lsn) -> Result<CutReport, String> {
        let shared = Arc::clone(self);
        self.halt_opening().await;
        let done = self.platform.blocking(move || shared.cut_and_reopen(to)).await;
        let report = done
            .map_err(|panicked| format!("cutting the log to {to}: {panicked}"))?
            .map_err(|error| format!("cutting the log to {to}: {error}"))?;
        self.run_opening().map_err(|error| format!("starting the applier: {error}"))?;
        Ok(report)
    }

    fn cut_and_reopen(&self, to: Lsn) -> Result<CutReport, WalError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = log_dir(&self.config.data_dir, self.identity.log);
        self.wal().shutdown()?;
        let options = log_options(&self.platform, &self.config);
        let report = towline_wal::cut(&dir, to, &options)?;
        let (wal, _) = Wal::open(&dir, options)?;
        self.replace_log(wal);
        Ok(report)
    }
}

/// Syncs whatever is appended.
async fn sync(platform: Platform, wal: Arc<Wal>) {
    let mut appended = wal.watch_appended();
    while let Some(delay) = platform.sync_delay() {
        appended.borrow_and_update();
        if wal.appended() > wal.flushed() {
            tokio::time::sleep(delay).await;
            // A failed sync has poisoned the log, and whoever reports flushes is told.
            if wal.flush().is_err() {
                return;
            }
        } else if appended.changed().await.is_err() {
            return;
        }
    }
}

async fn report_flushes(shared: Arc<Shared>, wal: Arc<Wal>) {
    let mut flushed = wal.watch_flushed();
    loop {
        let up_to = *flushed.borrow_and_update();
        shared.tell(|machine, _| machine.handle_flushed(up_to));
        if flushed.changed().await.is_err() {
            break;
        }
        if let Some(reason) = wal.poisoned() {
            return shared.fail(format!(
                "the log of {} is poisoned: {reason}. Restart the node; it recovers from what \
                 the disk holds",
                shared.identity.node
            ));
        }
    }
}
