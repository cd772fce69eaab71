//! The log from outside: what it takes, what it survives, and what it refuses.

#![allow(clippy::unwrap_used, missing_docs)]

mod bad_input;
mod blocks;
mod damage;
mod faults;
mod flushes;
mod full_disk;
mod golden;
mod log;
mod opening;
mod repair;
mod replica;
mod second_look;
mod simulated;
mod support;
mod tail;
mod trim;
