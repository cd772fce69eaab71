//! Appends, syncs, is killed, and opens the log again: `cargo run -p towline-wal --example reopen`.
//!
//! The process starts itself as a child, which flushes some records and dies by its own hand, while
//! more are on their way, without closing anything.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, abort};

use towline_protocol::id::LogId;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;
use towline_wal::{Founding, Level, Options, Wal, WalError, found};

fn main() -> Result<(), WalError> {
    if let Some(dir) = std::env::args().nth(1) {
        write_and_die(Path::new(&dir))?;
    }
    let dir = std::env::temp_dir().join(format!("towline-reopen-{}", std::process::id()));
    found(&dir, &Founding::alone(LogId(1), "a".parse().unwrap()))?;
    let mut child = Command::new(std::env::current_exe().unwrap());
    println!("the writer ended with {}", child.arg(&dir).status().unwrap());

    let (wal, report) = Wal::open(&dir, Options::default())?;
    println!("opened in {:?}, {} bytes read", report.took, report.scanned_bytes);
    println!("durable up to {}, says {}", report.evidence, report.witness);
    println!("kept up to {}; torn: {:?}", report.end, report.torn);
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed)?;
    let mut records = 0;
    while let Some(record) = cursor.next_record()? {
        records += u64::from(record.header.kind == RecordKind::Data);
    }
    println!("{records} records are there, and are durable now");
    wal.shutdown()?;
    std::fs::remove_dir_all(&dir).unwrap();
    Ok(())
}

fn write_and_die(dir: &Path) -> Result<(), WalError> {
    let (wal, _) = Wal::open(dir, Options::default())?;
    wal.begin_epoch(&wal.next_barrier())?;
    for number in 0..1_000_u32 {
        wal.append(RecordKind::Data, 0, &number.to_le_bytes())?;
    }
    println!("1000 records are flushed: up to {}", wal.flush()?);
    for number in 1_000..1_500_u32 {
        wal.append(RecordKind::Data, 0, &number.to_le_bytes())?;
    }
    println!("500 more are appended: up to {}", wal.appended());
    abort()
}
