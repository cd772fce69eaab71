//! What a client sees of three nodes when the quorum goes and when the primary is deposed.

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const COMMIT_TIMEOUT_MS: &str = "700";

struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A node of a cluster in `dir` whose ports follow on `base`.
fn start(dir: &Path, node: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_replica"))
        .arg("--config")
        .arg(dir.join(node).join("towline.toml"))
        .env("TOWLINE_TIMING__COMMIT_TIMEOUT_MS", COMMIT_TIMEOUT_MS)
        .env("TOWLINE_LOG_FILTER", "error")
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn towline(dir: &Path, args: &[&str]) -> Option<i32> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towline"));
    let status = command.args(args).arg("--config").arg(dir).stdin(Stdio::null()).status();
    status.unwrap().code()
}

/// A base whose ports for clients are free.
fn free_base() -> u16 {
    let mut base = 20_000 + (std::process::id() % 200) as u16 * 100;
    while !(1..=3).all(|nth| TcpListener::bind(("127.0.0.1", base + nth)).is_ok()) {
        base += 10;
    }
    base
}

struct Client(TcpStream);

impl Client {
    fn connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self(stream))
    }

    /// The first line of the answer; `None` if the connection has ended.
    fn ask(&mut self, line: &str) -> Option<String> {
        self.0.write_all(format!("{line}\r\n").as_bytes()).ok()?;
        let mut answer = [0; 4096];
        let len = self.0.read(&mut answer).ok().filter(|len| *len > 0)?;
        Some(String::from_utf8_lossy(&answer[..len]).trim_end().to_owned())
    }

    /// Whether the server ends the connection.
    fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0; 16]) {
            Ok(len) => len == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// Asks on new connections until the answer is as expected.
fn until(port: u16, line: &str, expected: impl Fn(&str) -> bool) -> String {
    let began = Instant::now();
    loop {
        let answer = Client::connect(port).and_then(|mut client| client.ask(line));
        match answer {
            Some(answer) if expected(&answer) => return answer,
            other => assert!(began.elapsed() < PATIENCE, "{line} answers {other:?}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_lost_quorum_is_indeterminate_and_a_deposed_primary_hangs_up() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("cluster");
    let base = free_base();
    let made = Command::new(env!("CARGO_BIN_EXE_towline"))
        .args(["init", "--cluster", "orders", "--nodes", "a,b,c", "--segment-size", "1048576"])
        .args(["--dir", dir.to_str().unwrap(), "--base-port", &base.to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let mut nodes = Running(["a", "b", "c"].map(|node| start(&dir, node)).into());
    until(base + 1, "SET k before", |answer| answer == "+OK");

    // Without a quorum nothing is acknowledged, neither a write nor a read.
    for child in &mut nodes.0[1..] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut client = Client::connect(base + 1).unwrap();
    let answer = client.ask("SET k during").unwrap();
    assert!(answer.starts_with("-INDETERMINATE not acknowledged within 700 ms"), "{answer}");
    let token = answer.rsplit(' ').next().unwrap().to_owned();
    assert_eq!(client.ask(&format!("TOWLINE VERDICT {token}")).as_deref(), Some("+PENDING"));
    let answer = client.ask("GET k").unwrap();
    assert!(answer.starts_with("-UNCONFIRMED"), "{answer}");

    // With one it commits, and its token says so.
    nodes.0[1] = start(&dir, "b");
    nodes.0[2] = start(&dir, "c");
    until(base + 1, &format!("TOWLINE VERDICT {token}"), |answer| answer == "+COMMITTED");
    until(base + 1, "GET k", |answer| answer == "$6\r\nduring");
    until(base + 2, "ROLE", |answer| answer.contains("connected"));

    // Whoever is connected to a deposed primary is told so by its hanging up.
    let mut idle = Client::connect(base + 1).unwrap();
    assert_eq!(idle.ask("PING").as_deref(), Some("+PONG"));
    assert_eq!(towline(&dir, &["failover", "--to", "b"]), Some(5), "its primary is alive");
    assert_eq!(towline(&dir, &["failover", "--to", "b", "--force", "--yes"]), Some(0));
    assert!(idle.is_closed());
    let told = format!("Primary is b at 127.0.0.1:{}", base + 2);
    let refusal = until(base + 1, "SET k after", |answer| answer.contains(&told));
    assert!(refusal.starts_with("-READONLY You can't write against a read only replica."));
    until(base + 2, "SET k after", |answer| answer == "+OK");
    until(base + 1, "GET k", |answer| answer == "$5\r\nafter");
    until(base + 2, &format!("TOWLINE VERDICT {token}"), |answer| answer == "+COMMITTED");
}
