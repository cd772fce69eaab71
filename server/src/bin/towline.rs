//! The `towline` command: everything a person types.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    towline_server::cli::main()
}
