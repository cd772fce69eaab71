//! The log from outside: what it takes, what it survives, and what it refuses.

#![allow(clippy::unwrap_used, missing_docs)]

mod bad_input;
mod blocks;
mod control_file;
mod cuts;
mod damage;
mod digests;
mod faults;
mod flushes;
mod forged;
mod full_disk;
mod golden;
mod image;
mod impossible;
mod log;
mod meddled;
mod opening;
mod page_cache;
mod refused_calls;
mod refused_reads;
mod repair;
mod replica;
mod reports;
mod scrubs;
mod second_look;
mod simulated;
mod support;
mod tail;
mod trim;
mod unreadable;
mod unsynced;
mod written_blocks;
