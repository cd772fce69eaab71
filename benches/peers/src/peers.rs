//! The logs, one file each.

pub(crate) mod commitlog;
pub(crate) mod fjall;
pub(crate) mod mutex_file;
pub(crate) mod okaywal;
pub(crate) mod open_wal;
pub(crate) mod pwrite;
pub(crate) mod raft_engine;
pub(crate) mod towline;
pub(crate) mod wal_db;
pub(crate) mod walrus;
