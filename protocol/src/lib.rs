//! The rules of Towline, without I/O.
//!
//! Everything two nodes must agree on is here and nowhere else: what a position is, how a record
//! and a frame are laid out, and how a node decides what to accept, acknowledge, commit, fence and
//! adopt. There is no socket, no file, no clock and no task in this crate: bytes and the time come
//! in as arguments and actions go out, so the same code runs in production and under simulation.

#![forbid(unsafe_code)]

pub mod barrier;
pub mod epoch;
pub mod frame;
pub mod id;
pub mod lsn;
pub mod machine;
pub mod planted;
pub mod record;
pub mod tally;
pub mod terms;
pub mod voters;
pub mod wire;
