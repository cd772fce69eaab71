//! The key-value storage engine of the Towline server.
//!
//! Commands become effects on the primary ([`evaluator`]); effects travel in DATA records
//! ([`effects`]); every node applies them to its own copy of the state ([`store`]).

#![forbid(unsafe_code)]

pub mod command;
pub mod effects;
pub mod evaluator;
pub mod reply;
pub mod store;
pub mod value;

pub use command::{Command, CommandError};
pub use evaluator::{Evaluation, Evaluator, read};
pub use reply::Reply;
pub use store::{StateDigest, Store, StoreError, StoreOptions, View};
pub use value::Value;

#[cfg(test)]
mod testing;
