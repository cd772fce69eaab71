//! The log's paths with fixed inputs, for `cargo xtask instructions` to count what they take.
//!
//! ```text
//! towline-instructions write DIR N      makes a log of N records
//! towline-instructions OPERATION DIR N  does it N times, or over such a log of N records
//! ```
//!
//! Everything is done on one thread, without a clock and inside one segment, so that the difference
//! between two counts is the cost of the operations and of nothing else.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use towline_protocol::id::LogId;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_wal::{Founding, Level, Options, Wal, found, read_log};

type Done = Result<(), Box<dyn Error>>;

/// The payload of the records that are read.
const READ_LEN: usize = 256;
/// So many are open at once while they are published out of order.
const CLAIMS: u64 = 4;
/// All the records of a run fit.
const SEGMENT: u64 = 16 << 20;

fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [operation, dir, count] = &words[..] else {
        return Err("usage: towline-instructions OPERATION DIR N".into());
    };
    let (dir, count) = (Path::new(dir), count.parse()?);
    match operation.as_str() {
        "write" => write(&*open(dir)?, count),
        "append-64" => append(&*open(dir)?, 64, count),
        "append-256" => append(&*open(dir)?, READ_LEN, count),
        "append-4k" => append(&*open(dir)?, 4 << 10, count),
        "publish" => publish(&*open(dir)?, count),
        "cursor" => cursor(&*open(dir)?, count),
        "scan" => scan(dir, count),
        other => Err(format!("no operation is called {other}").into()),
    }
}

/// Opens the log, which is founded now if need be.
fn open(dir: &Path) -> Result<Arc<Wal>, Box<dyn Error>> {
    let is_new = !dir.exists();
    if is_new {
        let segment_size = SegmentSize::new(SEGMENT).ok_or("a segment size")?;
        let alone = Founding::alone(LogId(1), "instructions".parse()?);
        found(dir, &Founding { segment_size, ..alone })?;
    }
    let (wal, _) = Wal::open(dir, Options { threads: false, ..Options::default() })?;
    if is_new {
        wal.begin_epoch(&wal.next_barrier())?;
    }
    Ok(wal)
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

/// Costs something only in a build with regressions planted.
fn planted(payload: &[u8]) {
    if cfg!(towline_planted) {
        let mut sum = 0_u8;
        for byte in payload {
            sum = std::hint::black_box(sum.wrapping_add(*byte));
        }
    }
}

fn append(wal: &Wal, len: usize, count: u64) -> Done {
    let payload = payload(len);
    for _ in 0..count {
        planted(&payload);
        wal.append(RecordKind::Data, 0, &payload)?;
    }
    Ok(())
}

/// The last record is made once the others are on the disk, so that it promises them and nothing
/// is written again when the log is opened.
fn write(wal: &Wal, count: u64) -> Done {
    append(wal, READ_LEN, count - 1)?;
    wal.flush()?;
    append(wal, READ_LEN, 1)?;
    wal.flush()?;
    Ok(())
}

/// The newest of a few reservations is published first: the others hold it back.
fn publish(wal: &Wal, count: u64) -> Done {
    let payload = payload(READ_LEN);
    for _ in 0..count / CLAIMS {
        let mut claims = Vec::with_capacity(CLAIMS as usize);
        for _ in 0..CLAIMS {
            planted(&payload);
            let mut claim = wal.reserve(RecordKind::Data, 0, payload.len())?;
            claim.fill(&payload)?;
            claims.push(claim);
        }
        while let Some(claim) = claims.pop() {
            claim.commit()?;
        }
    }
    Ok(())
}

/// Reads the first records of a log that has twice as many.
fn cursor(wal: &Wal, count: u64) -> Done {
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed)?;
    for _ in 0..count {
        let record = cursor.next_record()?.ok_or("the log is shorter")?;
        planted(&record.payload);
    }
    Ok(())
}

fn scan(dir: &Path, count: u64) -> Done {
    let mut records = 0;
    for record in read_log(dir)? {
        planted(&record?.payload);
        records += 1;
    }
    // The BARRIER is one, too.
    if records == count + 1 { Ok(()) } else { Err(format!("{records} records").into()) }
}
