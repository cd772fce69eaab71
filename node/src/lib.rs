//! Replication, promotion and fencing for any storage engine.
//!
//! Implement [`Engine`] (four methods over opaque bytes), start a [`Node`], and [`Node::propose`]
//! records: a record is visible to [`Engine::apply`] on every node once W voters hold it on disk,
//! and never before. What the node decides it decides by the rules of `towline-protocol`; this
//! crate is the driver that acts on them:
//!
//! - [`write_path`]: from a payload to its acknowledgement, on the primary;
//! - `follow`: from a primary's stream to this log, on a replica;
//! - `replay`: from the log to the engine, on every role;
//! - `promotion`: from a candidate to an open primary.

#![forbid(unsafe_code)]

mod calls;
mod config;
mod driver;
mod engine;
mod error;
mod follow;
mod hook;
mod inbound;
mod node;
mod opening;
pub mod platform;
mod promotion;
mod refusals;
mod replay;
mod shared;
mod upkeep;
mod view;
pub mod write_path;

pub use config::{NodeConfig, Peer, TlsFiles};
pub use engine::{Engine, EngineError};
pub use error::{NodeError, PromotionError, ProposeError, WaitError};
pub use hook::{NoHook, PromotionContext, PromotionHook, Veto};
pub use node::{Failover, Node, Promoted};
pub use refusals::RefusalKind;
pub use towline_protocol::machine::Verdict;
pub use upkeep::Upkeep;
pub use view::{Leadership, NodeState, ReplicaStatus, Status, Token, Watermarks};
pub use write_path::Proposed;
