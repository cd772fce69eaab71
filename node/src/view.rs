//! What a node shows of itself: its leadership, watermarks and status.

use std::collections::BTreeMap;
use std::time::Duration;

use towline_protocol::epoch::Epoch;
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::Lsn;
use towline_wal::{Damage, Slot};

use crate::refusals::RefusalKind;

/// What a node is doing right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeState {
    /// It is looking for a primary to follow, or for the voters it needs to become one.
    Starting,
    /// It is a replica whose primary's stream is live.
    Streaming,
    /// It is trying to become primary.
    Candidate,
    /// It is the primary, and its epoch is open.
    Primary,
    /// Its log contradicts the cluster's in a way only an operator may resolve.
    Quarantined,
    /// A sync failed or its engine did; only a restart helps.
    Failed,
}

/// Who leads, as far as this node knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leadership {
    /// What this node is doing.
    pub state: NodeState,
    /// The epoch this node may write in: set only while it is the primary and open.
    pub open: Option<Epoch>,
    /// The primary, if one is known.
    pub primary: Option<NodeId>,
    /// The highest epoch this node has promised to obey.
    pub fence: Epoch,
}

/// A node's positions. On every role `applied <= min(committed, flushed)` and
/// `flushed <= appended`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watermarks {
    /// Everything below is in the log, perhaps not yet on disk.
    pub appended: Lsn,
    /// Everything below is on this disk.
    pub flushed: Lsn,
    /// Everything below is on W voters' disks, for good.
    pub committed: Lsn,
    /// Everything below is in the engine's state.
    pub applied: Lsn,
}

/// What the primary knows of one replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaStatus {
    /// The replica.
    pub node: NodeId,
    /// Whether its stream is live.
    pub connected: bool,
    /// Everything below has been handed to its stream.
    pub shipped: Lsn,
    /// Everything below has reached it.
    pub received: Lsn,
    /// Everything below is on its disk.
    pub flushed: Lsn,
    /// Everything below is in its engine.
    pub applied: Lsn,
    /// Stored bytes of the log that are not yet on its disk.
    pub lag_bytes: u64,
    /// Round trip of the connection, in microseconds.
    pub rtt_us: u64,
}

/// Everything a node shows of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The log.
    pub log: LogId,
    /// This node.
    pub node: NodeId,
    /// This life of its disk.
    pub incarnation: Incarnation,
    /// Who leads.
    pub leadership: Leadership,
    /// The epoch of the log's last record.
    pub epoch: Epoch,
    /// Its positions.
    pub watermarks: Watermarks,
    /// N, W: how many voters there are, and how many commit.
    pub voters: (usize, usize),
    /// Names of the voters.
    pub voter_nodes: Vec<NodeId>,
    /// Its replicas, if it is the primary.
    pub replicas: Vec<ReplicaStatus>,
    /// The lowest position the log still has.
    pub oldest: Lsn,
    /// About how many bytes of records the log holds.
    pub stored_bytes: u64,
    /// For how long the sync that runs now has been running; one that lasts tells of a disk that
    /// stalls.
    pub sync_in_flight: Option<Duration>,
    /// For whom the log is kept.
    pub slots: Vec<Slot>,
    /// What was found damaged since the node was started.
    pub damage: Vec<Damage>,
    /// The command that mends it, once the node is stopped.
    pub repair_command: String,
    /// Bytes cut from this log since the node was started, by what a primary told it.
    pub cut_bytes: u64,
    /// How often peers were turned away since the node was started, by what they had done.
    pub refusals: BTreeMap<RefusalKind, u64>,
    /// Why it is quarantined, failed or still starting; empty if all is well.
    pub reason: String,
}

/// Names one write, so that its fate can be asked for later, also after a failover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// The log.
    pub log: LogId,
    /// The epoch it was written in.
    pub epoch: Epoch,
    /// The end of its record.
    pub end: Lsn,
}
