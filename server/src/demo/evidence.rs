//! What the check looks at: a node's log on disk, and every node's values.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use towline_engine::effects::Decoded;
use towline_protocol::record::RecordKind;

use super::check::LoggedWrites;
use super::client::{Client, Reply};
use super::write::{KEY_PREFIX, WriteId};

/// Keys asked for at once.
const KEYS_PER_REQUEST: usize = 100;

/// Every write of the workload in the log below `data_dir`, read as `towline wal dump` does:
/// from the files, without asking the node.
pub(super) fn logged_writes(data_dir: &Path) -> Result<LoggedWrites, String> {
    let folder = log_folder(data_dir)?;
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
    let mut logged = LoggedWrites::new();
    for record in towline_wal::read_log(&folder).map_err(|error| wrong(&error))? {
        let record = record.map_err(|error| wrong(&error))?;
        if record.header.kind != RecordKind::Data {
            continue;
        }
        let batch = Decoded::new(&record.payload).map_err(|error| wrong(&error))?;
        for effect in batch.effects() {
            let key = String::from_utf8_lossy(effect.key).into_owned();
            if !key.starts_with(KEY_PREFIX) {
                continue;
            }
            let value = effect.put.and_then(|(value, _)| WriteId::of_value(value));
            let write = value.filter(|write| write.key() == key);
            let write = write.ok_or_else(|| wrong(&format!("{key} holds what nobody wrote")))?;
            logged.entry(key).or_default().push(write);
        }
    }
    Ok(logged)
}

/// The one log of a node.
fn log_folder(data_dir: &Path) -> Result<PathBuf, String> {
    let logs = data_dir.join("logs");
    let listed =
        std::fs::read_dir(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let mut folders = listed.filter_map(Result::ok).map(|entry| entry.path());
    folders.find(|path| path.is_dir()).ok_or_else(|| format!("no log in {}", logs.display()))
}

/// What a node shows for each key: the write whose value it is, or nothing that was ever written.
pub(super) async fn values(
    address: SocketAddr,
    logged: &LoggedWrites,
) -> Result<BTreeMap<String, Option<WriteId>>, String> {
    let wrong = |error: std::io::Error| format!("{address}: {error}");
    let mut client = Client::connect(address).await.map_err(wrong)?;
    let keys: Vec<&String> = logged.keys().collect();
    let mut values = BTreeMap::new();
    for some in keys.chunks(KEYS_PER_REQUEST) {
        for key in some {
            client.push(&[b"GET", key.as_bytes()]);
        }
        client.flush().await.map_err(wrong)?;
        for key in some {
            let shown = match client.receive().await.map_err(wrong)? {
                Reply::Bulk(value) => WriteId::of_value(&value),
                Reply::Nil => None,
                other => return Err(format!("{address}: GET {key}: {other:?}")),
            };
            values.insert((*key).clone(), shown.filter(|write| write.key() == **key));
        }
    }
    Ok(values)
}
