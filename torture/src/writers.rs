//! Several writers at once on one log, each of which waits for his record to be durable and tells
//! of it.

use std::path::Path;
use std::sync::Arc;

use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;
use towline_wal::{Options, Wal, WalError, found};

use crate::events::{Event, Reporter};
use crate::log::{begin, founding};
use crate::power_cut::Key;

/// How many write at once.
const WRITERS: u64 = 6;
/// A life ends by itself after so many records of a writer.
const RECORDS: u64 = 100_000;

/// Opens or founds the log, begins an epoch and writes until something fails. Without `syncs` they
/// tell of a record as soon as it is appended: a bug that a power cut must show.
pub(crate) fn write(
    dir: &Path,
    life: u64,
    syncs: bool,
    reporter: &Reporter,
) -> Result<(), WalError> {
    if !dir.exists() {
        found(dir, &founding())?;
    }
    let (wal, _) = Wal::open(dir, Options { threads: syncs, ..Options::default() })?;
    let epoch = wal.last_epoch().number + 1;
    reporter.tell(&Event::Appended(begin(&wal, epoch, 0)?));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let wal = Arc::clone(&wal);
            scope.spawn(move || {
                for number in 0..RECORDS {
                    let key = Key { life, writer, number };
                    let Ok((lsn, end)) = append(&wal, key, syncs) else { return };
                    reporter.tell_line(&format!("acked {} {lsn} {end}", key.packed()));
                }
            });
        }
    });
    wal.poisoned().map_or(Ok(()), |reason| Err(WalError::Poisoned(reason)))
}

fn append(wal: &Wal, key: Key, syncs: bool) -> Result<(Lsn, Lsn), WalError> {
    let appended = wal.append(RecordKind::Data, 0, &key.payload())?;
    if syncs {
        wal.wait_flushed(appended.end)?;
    }
    Ok((appended.lsn, appended.end))
}
