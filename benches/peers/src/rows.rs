//! The rows of the table: what is asked of the log, and what it is held against.

use crate::peer::OURS;
use crate::samples::Samples;

/// Which way is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// How a figure is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    PerSecond,
    BytesPerSecond,
    Bytes,
    Micros,
    Millis,
    Mib,
    Count,
    Percent,
}

/// One round of the figures.
pub(crate) struct At<'a> {
    pub(crate) samples: &'a Samples,
    pub(crate) round: usize,
}

impl At<'_> {
    fn get(&self, workload: &str, who: &str, metric: &str) -> Option<f64> {
        self.samples.get(self.round, workload, who, metric)
    }
}

/// What a figure is held against in the same round.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&At<'_>, &Row) -> Option<f64>,
    /// The share of it to reach, or not to exceed.
    pub(crate) goal: f64,
}

/// A row.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) workload: &'static str,
    pub(crate) metric: &'static str,
    pub(crate) unit: Unit,
    pub(crate) better: Better,
    pub(crate) limit: Option<Limit>,
    /// Where the peers were measured, and the goal against the best of them.
    pub(crate) peers: Option<(&'static str, f64)>,
    /// What the figure itself may be at the most.
    pub(crate) most: Option<f64>,
}

impl Row {
    const fn new(
        what: &'static str,
        workload: &'static str,
        metric: &'static str,
        unit: Unit,
    ) -> Self {
        let better = match unit {
            Unit::PerSecond | Unit::BytesPerSecond => Better::Higher,
            _ => Better::Lower,
        };
        Self { what, workload, metric, unit, better, limit: None, peers: None, most: None }
    }

    const fn limit(
        mut self,
        name: &'static str,
        goal: f64,
        of: fn(&At<'_>, &Self) -> Option<f64>,
    ) -> Self {
        self.limit = Some(Limit { name, of, goal });
        self
    }

    const fn peers(mut self, goal: f64) -> Self {
        self.peers = Some((self.workload, goal));
        self
    }

    const fn peers_at(mut self, workload: &'static str, goal: f64) -> Self {
        self.peers = Some((workload, goal));
        self
    }

    const fn most(mut self, most: f64) -> Self {
        self.most = Some(most);
        self
    }

    /// Our figure in a round.
    pub(crate) fn ours(&self, at: &At<'_>) -> Option<f64> {
        at.get(self.workload, OURS, self.metric)
    }

    /// A ratio, or a figure, that meets a goal.
    pub(crate) fn meets(&self, ratio: f64, goal: f64) -> bool {
        match self.better {
            Better::Higher => ratio >= goal,
            Better::Lower => ratio <= goal,
        }
    }
}

const fn append(what: &'static str, workload: &'static str, of_limit: f64, of_peer: f64) -> Row {
    Row::new(what, workload, "records/s", Unit::PerSecond)
        .limit("skeleton", of_limit, skeleton)
        .peers(of_peer)
}

const fn durable(what: &'static str, workload: &'static str, of_peer: f64) -> Row {
    Row::new(what, workload, "commits/s", Unit::PerSecond).peers(of_peer)
}

const fn cpu(what: &'static str, workload: &'static str) -> Row {
    Row::new(what, workload, "cpu us/commit", Unit::Micros)
}

fn skeleton(at: &At<'_>, row: &Row) -> Option<f64> {
    at.get(row.workload, "skeleton", row.metric)
}

/// The page cache, or half of the device: what is fresh is written twice.
fn fresh(at: &At<'_>, row: &Row) -> Option<f64> {
    let cached = at.get(row.workload, "page-cache", row.metric)?;
    let device = at.get(row.workload, "device", row.metric)?;
    Some(cached.min(device / 2.0))
}

fn one_writer(at: &At<'_>, row: &Row) -> Option<f64> {
    at.get("append-256", OURS, row.metric)
}

fn syncs(at: &At<'_>, row: &Row) -> Option<f64> {
    at.get(row.workload, "fdatasync", "syncs/s")
}

fn syncs_of_4(at: &At<'_>, row: &Row) -> Option<f64> {
    syncs(at, row).map(|syncs| 4.0 * syncs)
}

fn syncs_of_16(at: &At<'_>, row: &Row) -> Option<f64> {
    syncs(at, row).map(|syncs| 16.0 * syncs)
}

fn elsewhere(at: &At<'_>, row: &Row) -> Option<f64> {
    at.get(row.workload, OURS, "far us")
}

fn checksums(at: &At<'_>, row: &Row) -> Option<f64> {
    at.get(row.workload, "checksums", "records/s")
}

fn short_log(at: &At<'_>, row: &Row) -> Option<f64> {
    at.get(row.workload, OURS, "short ms")
}

/// Every row.
pub(crate) const ALL: [Row; 27] = [
    append("append unsynced, 1 writer, 64 B", "append-64", 0.6, 3.0),
    append("append unsynced, 1 writer, 256 B", "append-256", 0.6, 3.0),
    append("append unsynced, 1 writer, 1 KiB", "append-1k", 0.6, 3.0),
    append("append unsynced, 1 writer, 4 KiB", "append-4k", 0.7, 1.2),
    append("append unsynced, 1 writer, 16 KiB", "append-16k", 0.7, 1.2),
    Row::new("append unsynced, 4 writers, 256 B", "writers-4", "records/s", Unit::PerSecond)
        .limit("own 1 writer", 1.2, one_writer)
        .peers(3.0),
    Row::new("sustained, 1 KiB, fresh segments", "sustained", "bytes/s", Unit::BytesPerSecond)
        .limit("page cache or device / 2", 0.8, fresh)
        .peers(1.0),
    Row::new("sustained, 1 KiB, trimmed", "recycled", "bytes/s", Unit::BytesPerSecond)
        .limit("skeleton", 0.6, skeleton)
        .peers_at("sustained", 1.0),
    durable("durable, 1 thread, 256 B", "durable-1", 1.0).limit("fdatasync/s", 0.9, syncs),
    durable("durable, 4 threads, 256 B", "durable-4", 1.3).limit(
        "4 x fdatasync/s",
        0.4,
        syncs_of_4,
    ),
    durable("durable, 16 threads, 256 B", "durable-16", 1.3).limit(
        "16 x fdatasync/s",
        0.4,
        syncs_of_16,
    ),
    durable("durable, 64 threads, 256 B", "durable-64", 1.3),
    cpu("CPU per commit, 64 threads", "durable-64"),
    Row::new("durable, 64 tasks on 2 threads", "tasks-64", "commits/s", Unit::PerSecond),
    cpu("CPU per commit, 64 tasks", "tasks-64"),
    Row::new("durable, 1,000 tasks on 2 threads", "tasks-1000", "commits/s", Unit::PerSecond),
    cpu("CPU per commit, 1,000 tasks", "tasks-1000"),
    Row::new("disk bytes per durable commit of 288 B", "disk-bytes", "bytes/commit", Unit::Bytes)
        .most(4_915.2)
        .peers(1.0),
    Row::new("major page faults of the caller", "sustained", "major faults", Unit::Count).most(0.0),
    Row::new(
        "minor page faults of the caller per GiB",
        "sustained",
        "minor faults/GiB",
        Unit::Count,
    ),
    Row::new("the same, trimmed", "recycled", "minor faults/GiB", Unit::Count),
    Row::new("p99.9 of appends around a rollover", "rollover", "near us", Unit::Micros)
        .limit("p99.9 elsewhere", 3.0, elsewhere)
        .peers(0.2),
    Row::new("opening a tail, records", "reading", "opened records/s", Unit::PerSecond)
        .limit("checksums alone", 0.7, checksums)
        .peers(2.0),
    Row::new("opening a long log", "opening", "long ms", Unit::Millis).limit(
        "opening a short one",
        1.3,
        short_log,
    ),
    Row::new(
        "cursor at the tail, verifying, records",
        "reading",
        "read records/s",
        Unit::PerSecond,
    )
    .limit("checksums alone", 0.7, checksums)
    .peers(2.0),
    Row::new("records that the cursor copied", "reading", "share copied", Unit::Percent).most(0.01),
    Row::new("memory grown by a sustained run", "sustained", "grown MiB", Unit::Mib).most(16.0),
];
