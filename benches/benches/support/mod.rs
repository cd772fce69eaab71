//! A founded log on the disk below the target folder, ready to append to.

use std::sync::Arc;

use tempfile::TempDir;
use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::Epoch;
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::SegmentSize;
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};
use towline_wal::{Founding, Options, Role, SyncMode, Wal, found};

/// An open log in its first epoch. It goes away with its folder.
#[allow(dead_code, reason = "not every program that includes this takes it")]
pub(crate) fn log() -> (TempDir, Arc<Wal>) {
    log_with(SyncMode::default())
}

/// The same, that syncs by itself when `sync_mode` says so.
pub(crate) fn log_with(sync_mode: SyncMode) -> (TempDir, Arc<Wal>) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let dir = folder.path().join("log");
    let node: NodeId = "bench".parse().expect("a name");
    let incarnation = Incarnation(1);
    let voter = Voter { node, incarnation, zone: String::new() };
    let voters = Voters::new(vec![voter], None).expect("one voter");
    let founding = Founding {
        cluster: ClusterId(1),
        cluster_name: "bench".to_owned(),
        log: LogId(1),
        node,
        incarnation,
        segment_size: SegmentSize::DEFAULT,
        role: Role::Primary,
        voters: voters.clone(),
    };
    found(&dir, &founding).expect("founded");
    let options = Options { sync_mode, ..Options::default() };
    let (wal, _) = Wal::open(&dir, options).expect("opened");
    let barrier = Barrier {
        epoch: Epoch::NONE.next(incarnation),
        previous: wal.last_epoch(),
        previous_end: wal.appended(),
        digest: wal.digest(),
        terms: Terms::founding(voters),
        accepted_loss: false,
    };
    wal.begin_epoch(&barrier).expect("an epoch");
    (folder, wal)
}
