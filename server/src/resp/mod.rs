//! The Redis protocol: requests in, replies out.

mod encode;
mod inline;
mod parse;

pub use encode::{Protocol, Value};
pub use parse::{INLINE_LEN_MAX, MAX_ARGS, MAX_BULK_LEN, MAX_REQUEST_LEN, Parser, ProtocolError};
