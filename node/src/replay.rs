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
use towline_wal::{Cursor, Level, Record, Wal};

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
    let mut tape = Tape::new(wal, from)?;
    let mut acknowledged = shared.acknowledged.subscribe();
    loop {
        let until = acknowledged.borrow_and_update().applicable;
        while !*stop.borrow() && tape.advance(until, |end, record| apply(shared, end, record))? {
            let applied = tape.position;
            shared.tell(|machine, _| machine.handle_applied(applied));
            shared.applied.send_replace(applied);
        }
        tokio::select! {
            _ = stop.changed() => return Ok(()),
            changed = acknowledged.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

fn apply(shared: &Shared, end: Lsn, record: &Record) -> Result<(), String> {
    if record.header.kind != RecordKind::Data {
        return Ok(());
    }
    shared.engine.apply(end, &record.payload).map_err(|error| error.to_string())
}

/// The log as the applier reads it: whole records, none before its end is committed.
struct Tape {
    cursor: Cursor,
    /// The end of the last record that was applied.
    position: Lsn,
    /// A record that was read, and whose end is not committed yet. A peer's word for what is
    /// committed need not be the end of a record.
    held: Option<Record>,
}

impl Tape {
    fn new(wal: &Arc<Wal>, from: Lsn) -> Result<Self, String> {
        let cursor = wal
            .cursor(from, Level::Flushed)
            .map_err(|error| format!("replaying the log from {from}: {error}"))?;
        Ok(Self { cursor, position: from, held: None })
    }

    /// Gives whole records that end at or below `until` to `apply`, [`PUBLISH_RECORDS`] at the
    /// most; whether there was one.
    fn advance(
        &mut self,
        until: Lsn,
        mut apply: impl FnMut(Lsn, &Record) -> Result<(), String>,
    ) -> Result<bool, String> {
        let before = self.position;
        for _ in 0..PUBLISH_RECORDS {
            let at = self.position;
            let wrong = |reason: String| format!("replay at {at}: {reason}");
            if at >= until {
                break;
            }
            let read = match self.held.take() {
                Some(record) => Some(record),
                None => self.cursor.next_record().map_err(|error| wrong(error.to_string()))?,
            };
            let record =
                read.ok_or_else(|| wrong(format!("the log ends below {until}, which is flushed")))?;
            let end = record.header.end();
            if end > until {
                self.held = Some(record);
                break;
            }
            apply(end, &record).map_err(wrong)?;
            self.position = end;
        }
        Ok(self.position > before)
    }
}

#[cfg(test)]
mod tests;
