//! Reading 32 MiB of 256 B records, checksums included: by a cursor on the open log, by a scan of
//! the folder, and as the tail that opening the log goes through.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{RecordKind, stored_len};
use towline_wal::{Level, Options, Wal, read_log};

const PAYLOAD: [u8; 256] = [7; 256];
const BYTES: u64 = 32 << 20;

fn read(c: &mut Criterion) {
    let (folder, wal) = support::log();
    let records = BYTES / stored_len(PAYLOAD.len() as u32);
    for _ in 0..records {
        wal.append(RecordKind::Data, 0, &PAYLOAD).unwrap();
    }
    // The last one promises the others, so that opening has nothing to write again.
    wal.flush().unwrap();
    wal.append(RecordKind::Data, 0, &PAYLOAD).unwrap();
    wal.flush().unwrap();

    let mut group = c.benchmark_group("read");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(records));
    group.bench_function("cursor", |b| {
        b.iter(|| {
            let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
            let mut read = 0;
            while cursor.next_record().unwrap().is_some() {
                read += 1;
            }
            assert_eq!(read, records + 2, "the BARRIER and the last one");
        });
    });
    let dir = folder.path().join("log");
    group.bench_function("scan", |b| {
        b.iter(|| {
            let read = read_log(&dir).unwrap().map(Result::unwrap).count() as u64;
            assert_eq!(read, records + 2);
        });
    });
    drop(wal);
    group.bench_function("open", |b| {
        // What is handed back is dropped outside the time.
        b.iter_batched(
            || (),
            |()| Wal::open(&dir, Options { threads: false, ..Options::default() }).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, read);
criterion_main!(benches);
