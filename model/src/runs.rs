//! The runs.
