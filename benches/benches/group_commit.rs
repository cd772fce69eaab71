//! 256 B records, each durable before its writer goes on: 1, 4 and 16 writers.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use towline_protocol::record::RecordKind;

fn group_commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("group_commit");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    let (_folder, wal) = support::log();
    for writers in [1_u64, 4, 16] {
        group.throughput(Throughput::Elements(writers));
        group.bench_function(BenchmarkId::from_parameter(writers), |b| {
            b.iter_custom(|count| {
                let start = Instant::now();
                std::thread::scope(|scope| {
                    for _ in 0..writers {
                        scope.spawn(|| {
                            for _ in 0..count {
                                let payload = [7; 256];
                                let put = wal.append(RecordKind::Data, 0, &payload).unwrap();
                                wal.wait_flushed(put.end).unwrap();
                            }
                        });
                    }
                });
                start.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, group_commit);
criterion_main!(benches);
