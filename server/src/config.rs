//! A node's configuration: a TOML file, overridden by `TOWLINE_…` variables and flags.
//!
//! It holds addresses, paths and times only. Who votes and how many commit is state of the log.

mod file;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use towline::{Peer, TlsFiles, Upkeep};
use towline_protocol::id::NodeId;

use file::{RawFile, RawPeer, Source};

/// Everything a node must know to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// The cluster's name; two clusters can then never merge by accident.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// The folder of its log and state.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub resp: SocketAddr,
    /// Where other nodes connect.
    pub repl: SocketAddr,
    /// Every node's addresses, this one's included.
    pub peers: BTreeMap<NodeId, Peer>,
    /// Its certificate.
    pub tls: TlsFiles,
    /// How long things may take.
    pub timing: Timing,
    /// How the node looks after its log.
    pub upkeep: Upkeep,
    /// An executable that is run around a promotion.
    pub promotion_hook: Option<PathBuf>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// How long a client waits for its write to be committed.
    pub commit_timeout: Duration,
    /// How long a candidate may try before it gives way.
    pub candidate_deadline: Duration,
    /// How long one call of the promotion hook may take.
    pub hook_deadline: Duration,
}

/// Flags that override the file and the environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The folder of log and state.
    pub data_dir: Option<PathBuf>,
    /// Where clients connect.
    pub resp: Option<String>,
    /// Where other nodes connect.
    pub repl: Option<String>,
}

/// What is wrong with a configuration, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}\n  fix: {fix}")]
pub struct ConfigError {
    /// The file and line, or the variable.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub fix: String,
}

impl Config {
    /// Reads `path`, the `TOWLINE_…` variables among `environment`, and flags; each overrides what
    /// comes before it. Relative paths in the file are relative to its folder.
    ///
    /// # Errors
    /// [`ConfigError`] if a key is unknown or missing, a value cannot be, or a file that is named
    /// cannot be read.
    pub fn load(
        path: &Path,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError {
            place: path.display().to_string(),
            problem: format!("cannot be read: {error}"),
            fix: "name a node's towline.toml with --config (towline init writes one per node)"
                .to_owned(),
        })?;
        let source = Source::new(path, text, environment)?;
        let raw = source.merged()?;
        let config = Self::resolve(&source, raw, overrides)?;
        config.check_files(&source)?;
        Ok(config)
    }

    fn resolve(source: &Source, raw: RawFile, overrides: &Overrides) -> Result<Self, ConfigError> {
        let folder = source.folder();
        let cluster = raw.cluster.filter(|name| !name.is_empty()).ok_or_else(|| {
            source.missing(
                "cluster",
                "add `cluster = \"<name>\"`: it is mandatory, so that two clusters never merge",
            )
        })?;
        let node = raw.node.ok_or_else(|| source.missing("node", "add `node = \"<name>\"`"))?;
        let node = node_id(source, "node", &node)?;
        let peers = raw
            .peers
            .iter()
            .map(|(name, peer)| peer_of(source, name, peer))
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        let Some(own) = peers.get(&node) else {
            return Err(ConfigError {
                place: source.place(&["node"]),
                problem: format!("there is no [peers.{node}], the addresses of this node itself"),
                fix: format!("add [peers.{node}] with `repl` and `resp`, as other nodes reach it"),
            });
        };
        let listen = |flag: &Option<String>, key: &str, own: &str| {
            let text = flag.as_deref().or(match key {
                "resp" => raw.listen.resp.as_deref(),
                _ => raw.listen.repl.as_deref(),
            });
            let path = ["listen", key];
            let place =
                if flag.is_some() { format!("--listen-{key}") } else { source.place(&path) };
            address(place, &path, text.unwrap_or(own))
        };
        Ok(Self {
            path: source.path().to_owned(),
            cluster,
            node,
            data_dir: overrides.data_dir.clone().unwrap_or_else(|| {
                folder.join(raw.data_dir.unwrap_or_else(|| PathBuf::from("data")))
            }),
            resp: listen(&overrides.resp, "resp", &own.resp)?,
            repl: listen(&overrides.repl, "repl", &own.repl)?,
            tls: TlsFiles {
                ca: folder.join(raw.tls.ca.ok_or_else(|| missing_tls(source, "ca"))?),
                cert: folder.join(raw.tls.cert.ok_or_else(|| missing_tls(source, "cert"))?),
                key: folder.join(raw.tls.key.ok_or_else(|| missing_tls(source, "key"))?),
            },
            timing: raw.timing.resolve(source)?,
            upkeep: raw.log.resolve(),
            promotion_hook: raw.hooks.promotion.map(|path| folder.join(path)),
            peers,
        })
    }

    fn check_files(&self, source: &Source) -> Result<(), ConfigError> {
        let files = [("ca", &self.tls.ca), ("cert", &self.tls.cert), ("key", &self.tls.key)];
        for (key, path) in files {
            fs::read(path).map_err(|error| ConfigError {
                place: source.place(&["tls", key]),
                problem: format!("{} cannot be read: {error}", path.display()),
                fix: "name the file that towline init wrote, readable by the user that runs this"
                    .to_owned(),
            })?;
        }
        match &self.promotion_hook {
            Some(path) if !path.is_file() => Err(ConfigError {
                place: source.place(&["hooks", "promotion"]),
                problem: format!("{} is no file", path.display()),
                fix: "name an executable, or remove the line".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

fn missing_tls(source: &Source, key: &str) -> ConfigError {
    source.missing(
        &format!("tls.{key}"),
        "add it below [tls]: nodes only ever speak to each other with certificates",
    )
}

fn node_id(source: &Source, key: &str, name: &str) -> Result<NodeId, ConfigError> {
    name.parse().map_err(|error: towline_protocol::id::InvalidNodeId| ConfigError {
        place: source.place(&[key]),
        problem: error.to_string(),
        fix: "choose another name".to_owned(),
    })
}

fn peer_of(source: &Source, name: &str, peer: &RawPeer) -> Result<(NodeId, Peer), ConfigError> {
    let node = name.parse().map_err(|error: towline_protocol::id::InvalidNodeId| ConfigError {
        place: source.place(&["peers", name]),
        problem: error.to_string(),
        fix: "name the table [peers.<node>]".to_owned(),
    })?;
    let host_and_port = |key: &str, text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Ok(text.to_owned());
        }
        Err(bad_address(source.place(&["peers", name, key]), &["peers", name, key], text))
    };
    let repl = host_and_port("repl", &peer.repl)?;
    let resp = host_and_port("resp", &peer.resp)?;
    Ok((node, Peer { repl, resp }))
}

fn address(place: String, path: &[&str], text: &str) -> Result<SocketAddr, ConfigError> {
    let resolved = text.to_socket_addrs().ok().and_then(|mut found| found.next());
    resolved.ok_or_else(|| bad_address(place, path, text))
}

fn bad_address(place: String, path: &[&str], text: &str) -> ConfigError {
    let problem = if text.is_empty() {
        format!("`{}` is missing", path.join("."))
    } else {
        format!("`{}` is {text:?}, which is no address", path.join("."))
    };
    ConfigError {
        place,
        problem,
        fix: "write \"host:port\", such as \"127.0.0.1:7001\"".to_owned(),
    }
}

#[cfg(test)]
mod tests;
