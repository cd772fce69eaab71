//! Several writers at once on one log, each of which waits for his record to be durable and tells
//! of it.

use std::path::Path;
use std::sync::Arc;

use towline_protocol::lsn::SegmentSize;
use towline_protocol::record::RecordKind;
use towline_wal::{Appended, Founding, Options, Wal, WalError, found};

use crate::events::{Event, Reporter};
use crate::log::{begin, founding};
use crate::power_cut::Key;

/// How many write at once.
const WRITERS: u64 = 6;
/// A life ends by itself after so many records of a writer.
const RECORDS: u64 = 100_000;
/// In every second life a writer waits for so many records at a time: a sync of much is made in
/// another way than one of little, and segments are made ready in another way for it.
const MANY: usize = 64;

/// Of the log whose writers do not sync: so much of it can be lost.
const UNSYNCED_SEGMENT: SegmentSize = SegmentSize::new(8 << 20).unwrap();

/// Opens or founds the log, begins an epoch and writes until something fails. Without `syncs` they
/// tell of a record as soon as it is appended: a bug that a power cut must show.
pub(crate) fn write(
    dir: &Path,
    life: u64,
    syncs: bool,
    reporter: &Reporter,
) -> Result<(), WalError> {
    if !dir.exists() {
        // However it is synced, the log sees to it that no more than two segments wait.
        let segment_size = if syncs { SegmentSize::MIN } else { UNSYNCED_SEGMENT };
        found(dir, &Founding { segment_size, ..founding() })?;
    }
    let (wal, _) = Wal::open(dir, Options { threads: syncs, ..Options::default() })?;
    let epoch = wal.last_epoch().number + 1;
    reporter.tell(&Event::Appended(begin(&wal, epoch, 0)?));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let wal = Arc::clone(&wal);
            scope.spawn(move || {
                let at_a_time = if life % 2 == 0 { 1 } else { MANY };
                let keys = (0..RECORDS).map(|number| Key { life, writer, number });
                let keys: Vec<_> = keys.collect();
                for keys in keys.chunks(at_a_time) {
                    let Ok(places) = append(&wal, keys, syncs) else { return };
                    for (key, Appended { lsn, end }) in keys.iter().zip(places) {
                        reporter.tell_line(&format!("acked {} {lsn} {end}", key.packed()));
                    }
                }
            });
        }
    });
    wal.poisoned().map_or(Ok(()), |reason| Err(WalError::Poisoned(reason)))
}

/// Appends some records, and waits for the last of them.
fn append(wal: &Wal, keys: &[Key], syncs: bool) -> Result<Vec<Appended>, WalError> {
    let append = |key: &Key| wal.append(RecordKind::Data, 0, &key.payload());
    let appended = keys.iter().map(append).collect::<Result<Vec<_>, _>>()?;
    if let Some(last) = appended.last().filter(|_| syncs) {
        wal.wait_flushed(last.end)?;
    }
    Ok(appended)
}
