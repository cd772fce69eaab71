//! The Towline server: a replicated key-value store that every Redis client speaks to.

#![forbid(unsafe_code)]

pub mod batch;
pub mod cli;
pub mod clients;
pub mod commands;
pub mod config;
pub mod connection;
pub mod demo;
pub mod hook;
pub mod info;
pub mod listener;
pub mod resp;
pub mod run;
pub mod server;
pub mod session;
pub mod status;
pub mod token;
pub mod write_path;
