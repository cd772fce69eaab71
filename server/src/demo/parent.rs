//! Nodes that end with the process that started them.

use std::io::Read;
use std::process;
use std::thread;

/// Ends this process once its standard input is closed.
///
/// The demo holds the other end of that pipe, and the kernel closes it when the demo ends, however
/// it ends: also by SIGKILL, which nobody can catch.
pub fn exit_on_stdin_close() {
    let wait = || {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|len| len > 0) {}
        process::exit(0);
    };
    // Without the thread the node only outlives a demo that was killed.
    if let Err(error) = thread::Builder::new().name("stdin-close".to_owned()).spawn(wait) {
        eprintln!("this node will not notice the end of its parent: {error}");
    }
}
