//! Appends, syncs, is killed, and opens the log again: `cargo run -p towline-wal --example reopen`.
//!
//! The process starts itself as a child, which flushes some records and dies by its own hand, while
//! more are on their way, without closing anything.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, abort};

use towline_wal::{Level, Lsn, Options, RecordKind, Wal, WalError};

fn main() -> Result<(), WalError> {
    if let Some(dir) = std::env::args().nth(1) {
        write_and_die(Path::new(&dir))?;
    }
    let dir = std::env::temp_dir().join(format!("towline-reopen-{}", std::process::id()));
    let mut child = Command::new(std::env::current_exe().unwrap());
    println!("the writer ended with {}", child.arg(&dir).status().unwrap());

    let (wal, report) = Wal::open_alone(&dir, Options::default())?;
    println!("{report}");
    println!("it took {:?}, {} bytes were read", report.took, report.scanned_bytes);
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
    let (wal, _) = Wal::open_alone(dir, Options::default())?;
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
