//! The replay path: from the log to the engine, one applier per node, on every role.
//!
//! A record is applied once it is both committed and on this disk. So the engine never holds what
//! a new primary could cut, and rewinding a node is truncating its log.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;
use tokio::task;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;
use towline_wal::{Cursor, Level, Wal};

use crate::shared::Shared;

/// After so many records the position is published, so that writers waiting for the engine to
/// catch up are not kept waiting for a whole batch.
const PUBLISH_RECORDS: usize = 256;

/// A running applier; it ends when `stop` says so.
pub(crate) struct Applier {
    runs: Runs,
    stop: watch::Sender<bool>,
}

enum Runs {
    /// An engine may block, and is owed one thread.
    Thread(JoinHandle<()>),
    /// Where nothing has a thread of its own.
    Task(task::JoinHandle<()>),
}

impl Applier {
    /// Applies `wal` to the engine from where the engine stands.
    pub(crate) fn start(shared: Arc<Shared>, wal: Arc<Wal>) -> std::io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let has_threads = shared.platform.has_threads();
        let run = async move {
            if let Err(reason) = replay(&shared, &wal, stopped).await {
                shared.fail(reason);
            }
        };
        if !has_threads {
            return Ok(Self { runs: Runs::Task(tokio::spawn(run)), stop });
        }
        let runtime = tokio::runtime::Handle::current();
        let thread =
            std::thread::Builder::new().name("towline-apply".to_owned()).spawn(move || {
                let _runtime = runtime.enter();
                runtime.block_on(run);
            })?;
        Ok(Self { runs: Runs::Thread(thread), stop })
    }

    /// Ends the applier after the record it is at.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        // A panic in the applier was an engine's; it has been printed.
        match self.runs {
            Runs::Thread(thread) => drop(task::spawn_blocking(|| thread.join()).await),
            Runs::Task(task) => drop(task.await),
        }
    }

    /// Ends the applier at once, as the end of the process does.
    pub(crate) fn abort(&self) {
        self.stop.send_replace(true);
        if let Runs::Task(task) = &self.runs {
            task.abort();
        }
    }
}

async fn replay(
    shared: &Shared,
    wal: &Arc<Wal>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), String> {
    let from = shared.engine.applied();
    let mut cursor = wal
        .cursor(from, Level::Flushed)
        .map_err(|error| format!("replaying the log from {from}: {error}"))?;
    let mut acknowledged = shared.acknowledged.subscribe();
    loop {
        let until = acknowledged.borrow_and_update().applicable;
        while cursor.position() < until && !*stop.borrow() {
            apply_some(shared, &mut cursor, until)?;
            let applied = cursor.position();
            shared.tell(|machine, _| machine.handle_applied(applied));
            shared.applied.send_replace(applied);
        }
        tokio::select! {
            _ = stop.changed() => return Ok(()),
            changed = acknowledged.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// Applies records below `until`, [`PUBLISH_RECORDS`] at the most.
fn apply_some(shared: &Shared, cursor: &mut Cursor, until: Lsn) -> Result<(), String> {
    for _ in 0..PUBLISH_RECORDS {
        if cursor.position() >= until {
            return Ok(());
        }
        let at = cursor.position();
        let record = cursor.next_record().map_err(|error| format!("replay at {at}: {error}"))?;
        let Some(record) = record else {
            return Err(format!("replay at {at}: the log ends below {until}, which is flushed"));
        };
        if record.header.kind == RecordKind::Data {
            let end = record.header.end();
            // A peer's word for what is committed need not be the end of a record.
            if end > until {
                return Err(format!("replay at {at}: {until} lies within a record"));
            }
            let applied = shared.engine.apply(end, &record.payload);
            applied.map_err(|error| format!("replay at {at}: {error}"))?;
        }
    }
    Ok(())
}
