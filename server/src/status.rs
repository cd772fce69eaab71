//! What a node shows of itself, as JSON.

use serde_json::{Value, json};
use towline::{NodeState, ReplicaStatus};
use towline_protocol::id::NodeId;
use towline_wal::{Damage, Slot};

use crate::server::Server;

/// A state's name.
#[must_use]
pub const fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Starting => "starting",
        NodeState::Streaming => "streaming",
        NodeState::Candidate => "candidate",
        NodeState::Primary => "primary",
        NodeState::Quarantined => "quarantined",
        NodeState::Failed => "failed",
    }
}

/// The answer to `TOWLINE STATUS`. Positions are Lsns, sizes are bytes.
#[must_use]
pub fn json(server: &Server) -> Value {
    let status = server.node.status();
    let (leadership, at) = (status.leadership, status.watermarks);
    let name = |node: &NodeId| node.as_str().to_owned();
    let replicas: Vec<Value> = status.replicas.iter().map(replica).collect();
    let refused = status.refusals.iter();
    let refused = refused.map(|(kind, count)| (kind.as_str().to_owned(), Value::from(*count)));
    let refusals: serde_json::Map<String, Value> = refused.collect();
    json!({
        "cluster": status.cluster,
        "cluster_id": status.cluster_id.to_string(),
        "log": status.log.to_string(),
        "node": status.node.as_str(),
        "incarnation": status.incarnation.to_string(),
        "state": state_name(leadership.state),
        "open": leadership.open.map(|epoch| epoch.to_string()),
        "primary": leadership.primary.as_ref().map(name),
        "fence": leadership.fence.to_string(),
        "epoch": status.epoch.to_string(),
        "epoch_number": status.epoch.number,
        "appended": at.appended.get(),
        "flushed": at.flushed.get(),
        "committed": at.committed.get(),
        "applied": at.applied.get(),
        "voters": status.voter_nodes.iter().map(name).collect::<Vec<_>>(),
        "n": status.voters.0,
        "w": status.voters.1,
        "replicas": replicas,
        "cut_bytes": status.cut_bytes,
        "oldest": status.oldest.get(),
        "stored_bytes": status.stored_bytes,
        "sync_in_flight_ms": status.sync_in_flight.map_or(0, |sync| sync.as_millis() as u64),
        "slots": status.slots.iter().map(slot).collect::<Vec<_>>(),
        "damaged": status.damage.iter().map(damage).collect::<Vec<_>>(),
        "repair": (!status.damage.is_empty()).then_some(status.repair_command),
        "refusals": refusals,
        "reason": status.reason,
        "clients": server.clients.len(),
        "uptime_s": server.uptime_s(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn slot(slot: &Slot) -> Value {
    json!({
        "name": slot.name,
        "position": slot.position.get(),
        "keep_bytes_max": slot.keep_bytes_max,
        "lagged": slot.lagged,
    })
}

fn damage(damage: &Damage) -> Value {
    json!({
        "file": damage.path.display().to_string(),
        "from": damage.from.get(),
        "to": damage.to.get(),
        "what": damage.what,
    })
}

fn replica(replica: &ReplicaStatus) -> Value {
    json!({
        "node": replica.node.as_str(),
        "connected": replica.connected,
        "shipped": replica.shipped.get(),
        "received": replica.received.get(),
        "flushed": replica.flushed.get(),
        "applied": replica.applied.get(),
        "lag_bytes": replica.lag_bytes,
        "rtt_us": replica.rtt_us,
    })
}
