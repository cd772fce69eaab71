//! End to end: 256 B records, each committed by two of three nodes before its writer goes on; 1,
//! 16 and 64 writers. Real logs, real QUIC on loopback, one process.
#![allow(missing_docs, clippy::unwrap_used, dead_code)]

#[path = "../../node/tests/cluster/fixture.rs"]
mod fixture;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fixture::Cluster;

fn commit(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::found(&["a", "b", "c"], None);
    let primary = runtime.block_on(async {
        cluster.start_all().await;
        cluster.primary(Duration::from_secs(30)).await
    });
    let (node, epoch) = (cluster.node(&primary).clone(), cluster.epoch(&primary));
    let payload = format!("key={}", "v".repeat(252));
    let mut group = c.benchmark_group("commit");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for writers in [1_u64, 16, 64] {
        group.throughput(Throughput::Elements(writers));
        group.bench_function(BenchmarkId::from_parameter(writers), |b| {
            b.iter_custom(|count| {
                let start = Instant::now();
                runtime.block_on(async {
                    let mut tasks = tokio::task::JoinSet::new();
                    for _ in 0..writers {
                        let (node, payload) = (node.clone(), payload.clone());
                        tasks.spawn(async move {
                            for _ in 0..count {
                                let put = node.propose(epoch, payload.as_bytes()).unwrap();
                                node.committed(epoch, put.end).await.unwrap();
                            }
                        });
                    }
                    while let Some(done) = tasks.join_next().await {
                        done.unwrap();
                    }
                });
                start.elapsed()
            });
        });
    }
    group.finish();
    runtime.block_on(cluster.stop_all());
}

criterion_group!(benches, commit);
criterion_main!(benches);
