//! Four writers, unsynced: how long 256 B take to be reserved, made and published in order. A run
//! is kept below a segment, so that the disk is not what is measured.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use towline_protocol::record::RecordKind;

const WRITERS: usize = 4;
const PAYLOAD: [u8; 256] = [7; 256];
/// Records of each writer per log: together below a segment.
const MOST: u64 = 32_000;

fn publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(WRITERS as u64));
    group.bench_function("4 writers", |b| {
        b.iter_custom(|count| {
            let (mut left, mut took) = (count, Duration::ZERO);
            while left > 0 {
                let now = left.min(MOST);
                took += append(now);
                left -= now;
            }
            took
        });
    });
    group.finish();
}

/// How long all writers take together for `count` records each.
fn append(count: u64) -> Duration {
    let (_folder, wal) = support::log();
    let ready = Barrier::new(WRITERS + 1);
    let start = std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                ready.wait();
                for _ in 0..count {
                    wal.append(RecordKind::Data, 0, &PAYLOAD).unwrap();
                }
            });
        }
        ready.wait();
        Instant::now()
    });
    start.elapsed()
}

criterion_group!(benches, publish);
criterion_main!(benches);
