//! How a command ends.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;

/// The exit codes, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// Something failed.
    Error = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// No node could be reached.
    Unreachable = 3,
    /// It works, but not all is well.
    Degraded = 4,
    /// Refused, because it could lose what was acknowledged.
    Refused = 5,
    /// It took too long.
    Timeout = 6,
    /// The configuration is wrong; starting again does not help.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed, and how it ends.
#[derive(Debug)]
pub struct Failure {
    /// How it ends.
    pub exit: Exit,
    /// What failed and what to do.
    pub message: String,
}

impl Failure {
    /// A failure that ends with `exit`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error.to_string())
    }
}
