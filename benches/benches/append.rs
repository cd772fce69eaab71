//! One writer, unsynced: how long an append takes. The syncer's thread runs along, as it always
//! does; a run is kept below a segment, so that the disk is not what is measured.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use towline_protocol::record::RecordKind;

/// Bytes per log: below a segment.
const MOST: u64 = 32 << 20;

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for len in [64_usize, 256, 1_024, 4_096, 16_384] {
        let payload = vec![7; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter_custom(|count| {
                let (mut left, mut took) = (count, Duration::ZERO);
                while left > 0 {
                    let (_folder, wal) = support::log();
                    let now = left.min(MOST / (len as u64 + 48));
                    let start = Instant::now();
                    for _ in 0..now {
                        wal.append(RecordKind::Data, 0, &payload).unwrap();
                    }
                    took += start.elapsed();
                    left -= now;
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
