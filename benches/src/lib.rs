//! What Towline costs, measured: `cargo bench -p towline-benches`.

#![forbid(unsafe_code)]
