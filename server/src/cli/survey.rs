//! Asking every node of a cluster what it shows of itself.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use towline_protocol::id::NodeId;

use super::client::{self, Answer};
use super::exit::{Exit, Failure};
use crate::config::{Config, Overrides};

/// The file that a folder stands for.
const CONFIG_FILE: &str = "towline.toml";

/// Which cluster is meant.
#[derive(Clone, Debug, Args)]
pub(super) struct ClusterArgs {
    /// Any node's towline.toml, its folder, or the folder towline init made.
    #[arg(long, value_name = "FILE", env = "TOWLINE_CONFIG")]
    pub(super) config: PathBuf,
}

impl ClusterArgs {
    pub(super) fn load(&self) -> Result<Config, Failure> {
        let file = config_file(&self.config)?;
        Ok(Config::load(&file, std::env::vars_os(), &Overrides::default())?)
    }
}

/// The file itself, or the first one in a folder or in one of the folders there.
fn config_file(path: &Path) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let own = path.join(CONFIG_FILE);
    if own.is_file() {
        return Ok(own);
    }
    let entries = path.read_dir().map_err(|error| {
        Failure::new(Exit::Config, format!("{}: cannot be read: {error}", path.display()))
    })?;
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path().join(CONFIG_FILE))
        .filter(|file| file.is_file())
        .collect();
    files.sort();
    files.into_iter().next().ok_or_else(|| {
        let message = format!("{}: there is no node's {CONFIG_FILE} in it", path.display());
        Failure::new(Exit::Config, message)
    })
}

/// A node, and what it shows of itself or why it cannot be asked.
pub(super) struct Seen {
    pub(super) node: NodeId,
    pub(super) address: String,
    pub(super) status: Result<Value, String>,
}

impl Seen {
    pub(super) fn text(&self, key: &str) -> &str {
        self.status.as_ref().ok().and_then(|status| status[key].as_str()).unwrap_or_default()
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.status.as_ref().ok().and_then(|status| status[key].as_u64())
    }

    /// Whether it may write now.
    pub(super) fn is_open(&self) -> bool {
        !self.text("open").is_empty()
    }
}

/// Asks all nodes at once.
pub(super) fn ask_all(config: &Config, timeout: Duration) -> Vec<Seen> {
    thread::scope(|scope| {
        let asked: Vec<_> = config
            .peers
            .iter()
            .map(|(node, peer)| {
                let address = peer.resp.clone();
                let asking = scope.spawn({
                    let address = address.clone();
                    move || status_of(&address, timeout)
                });
                (*node, address, asking)
            })
            .collect();
        asked
            .into_iter()
            .map(|(node, address, asking)| {
                let status = asking.join().unwrap_or_else(|_| Err("asking it failed".to_owned()));
                Seen { node, address, status }
            })
            .collect()
    })
}

fn status_of(address: &str, timeout: Duration) -> Result<Value, String> {
    match client::ask(address, &["TOWLINE", "STATUS"], timeout) {
        Ok(Answer::Text(text)) => {
            serde_json::from_str(&text).map_err(|error| format!("its status is no JSON: {error}"))
        }
        Ok(Answer::Error(error)) => Err(error),
        Ok(_) => Err("what answers there is no node of Towline".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
