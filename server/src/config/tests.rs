use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const GOOD: &str = r#"cluster = "orders"
node = "a"
data_dir = "data"

[listen]
resp = "127.0.0.1:7001"
repl = "127.0.0.1:7201"

[peers.a]
repl = "127.0.0.1:7201"
resp = "127.0.0.1:7001"

[peers.b]
repl = "b.example:7202"
resp = "b.example:7002"

[tls]
ca = "ca.pem"
cert = "node.pem"
key = "node.key"

[timing]
commit_timeout_ms = 750

[log]
keep_bytes_max = 1000000
"#;

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let unique = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("towline-config-{}-{unique}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&folder.0).unwrap();
        for file in ["ca.pem", "node.pem", "node.key"] {
            fs::write(folder.0.join(file), "x").unwrap();
        }
        folder
    }

    fn load(&self, text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let path = self.0.join("towline.toml");
        fs::write(&path, text).unwrap();
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Config::load(&path, variables, &Overrides::default())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_good_file_is_read_and_paths_are_relative_to_it() {
    let folder = Folder::new();
    let config = folder.load(GOOD, &[]).unwrap();
    assert_eq!(config.cluster, "orders");
    assert_eq!(config.node.as_str(), "a");
    assert_eq!(config.data_dir, folder.0.join("data"));
    assert_eq!(config.tls.ca, folder.0.join("ca.pem"));
    assert_eq!(config.timing.commit_timeout, Duration::from_millis(750));
    assert_eq!(config.peers.len(), 2);
    assert_eq!(config.upkeep.keep_bytes_max, Some(1_000_000));
}

#[test]
fn the_environment_overrides_the_file() {
    let folder = Folder::new();
    let variables = [
        ("TOWLINE_LISTEN__RESP", "127.0.0.1:9"),
        ("TOWLINE_TIMING__HEARTBEAT_MS", "7"),
        ("TOWLINE_PEERS__C__RESP", "c:1"),
        ("TOWLINE_PEERS__C__REPL", "c:2"),
        ("TOWLINE_PORT", "tcp://10.0.0.1:6379"),
        ("TOWLINE_LOG", "0"),
    ];
    let config = folder.load(GOOD, &variables).unwrap();
    assert_eq!(config.resp.port(), 9);
    assert_eq!(config.timing.heartbeat, Duration::from_millis(7));
    assert_eq!(config.peers.len(), 3);
}

#[test]
fn errors_name_the_line_and_the_fix() {
    let cases = [
        ("node = \"a\"", "node = \"a\"\nacks = \"local\"", ":3", "unknown field `acks`"),
        ("[timing]", "[timing]\nfast = 1", ":23", "unknown field `fast`"),
        ("node = \"a\"", "node = ", ":2", ""),
        ("cluster = \"orders\"", "", "", "`cluster` is missing"),
        ("resp = \"127.0.0.1:7001\"", "resp = \"nowhere\"", ":6", "no address"),
        ("repl = \"b.example:7202\"", "repl = \"b.example\"", ":14", "no address"),
        ("repl = \"b.example:7202\"", "", ":13", "`peers.b.repl` is missing"),
        ("node = \"a\"", "node = \"z\"", ":2", "[peers.z]"),
        ("node = \"a\"", "node = \"A B\"", ":2", "no node name"),
        ("ca.pem", "absent.pem", ":18", "cannot be read"),
        ("750", "0", ":23", "`timing.commit_timeout_ms` is 0"),
        ("750", "\"soon\"", ":23", "invalid type"),
    ];
    let folder = Folder::new();
    for (from, to, line, problem) in cases {
        let error = folder.load(&GOOD.replacen(from, to, 1), &[]).unwrap_err();
        let file = format!("towline.toml{line}");
        assert!(error.place.contains(&file), "{error}");
        assert!(error.problem.contains(problem), "{error}");
        assert!(!error.fix.is_empty());
    }
}

#[test]
fn a_bad_variable_is_named() {
    let folder = Folder::new();
    for (name, value) in
        [("TOWLINE_LISTEN__RSP", "x:1"), ("TOWLINE_LISTEN__RESP", "x"), ("TOWLINE_TLS__CA", "no")]
    {
        let error = folder.load(GOOD, &[(name, value)]).unwrap_err();
        assert!(error.place.contains(name), "{error}");
    }
}
