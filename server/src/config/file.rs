//! The file as it is written, and where in it each value stands.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};
use towline::Upkeep;

use super::{ConfigError, Timing};

/// Variables that are not settings: how a process is told its file and log filter, and what a
/// promotion hook is told.
const VARIABLE_PREFIX: &str = "TOWLINE_";
/// Settings that stand in no table.
const TOP_LEVEL: [&str; 3] = ["cluster", "node", "data_dir"];
const TABLES: [&str; 6] = ["listen", "peers", "tls", "timing", "log", "hooks"];
/// The longest time a setting may name, in milliseconds: one hour.
const TIME_MAX_MS: u64 = 3_600_000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) cluster: Option<String>,
    pub(super) node: Option<String>,
    pub(super) data_dir: Option<PathBuf>,
    #[serde(default)]
    pub(super) listen: RawListen,
    #[serde(default)]
    pub(super) peers: BTreeMap<String, RawPeer>,
    #[serde(default)]
    pub(super) tls: RawTls,
    #[serde(default)]
    pub(super) timing: RawTiming,
    #[serde(default)]
    pub(super) log: RawLog,
    #[serde(default)]
    pub(super) hooks: RawHooks,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListen {
    pub(super) resp: Option<String>,
    pub(super) repl: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPeer {
    pub(super) resp: Option<String>,
    pub(super) repl: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTiming {
    heartbeat_ms: Option<u64>,
    commit_timeout_ms: Option<u64>,
    candidate_deadline_ms: Option<u64>,
    hook_deadline_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHooks {
    pub(super) promotion: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    keep_bytes_max: Option<u64>,
    scrub_bytes_per_s: Option<u64>,
}

impl RawLog {
    /// Without `keep_bytes_max` the whole log is kept; a pace of 0 means never.
    pub(super) fn resolve(&self) -> Upkeep {
        let unless_told = Upkeep::default();
        Upkeep {
            keep_bytes_max: self.keep_bytes_max,
            scrub_bytes_per_s: match self.scrub_bytes_per_s {
                None => unless_told.scrub_bytes_per_s,
                Some(pace) => NonZeroU64::new(pace),
            },
            ..unless_told
        }
    }
}

impl RawTiming {
    pub(super) fn resolve(&self, source: &Source) -> Result<Timing, ConfigError> {
        let time = |key: &str, value: Option<u64>, default_ms: u64| {
            let ms = value.unwrap_or(default_ms);
            if (1..=TIME_MAX_MS).contains(&ms) {
                return Ok(Duration::from_millis(ms));
            }
            Err(ConfigError {
                place: source.place(&["timing", key]),
                problem: format!("`timing.{key}` is {ms}"),
                fix: format!("write a number of milliseconds from 1 to {TIME_MAX_MS}"),
            })
        };
        Ok(Timing {
            heartbeat: time("heartbeat_ms", self.heartbeat_ms, 100)?,
            commit_timeout: time("commit_timeout_ms", self.commit_timeout_ms, 5_000)?,
            candidate_deadline: time("candidate_deadline_ms", self.candidate_deadline_ms, 10_000)?,
            hook_deadline: time("hook_deadline_ms", self.hook_deadline_ms, 5_000)?,
        })
    }
}

/// The text of a file and the variables that override it.
pub(super) struct Source {
    path: PathBuf,
    text: String,
    table: Table,
    variables: Vec<(String, Vec<String>, String)>,
}

impl Source {
    pub(super) fn new(
        path: &Path,
        text: String,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        // Once for its own sake: only the text knows the line of an unknown key.
        let checked = toml::from_str::<RawFile>(&text).and_then(|_| toml::from_str(&text));
        let table = checked.map_err(|error| ConfigError {
            place: match error.span() {
                Some(span) => at_line(path, &text, span.start),
                None => path.display().to_string(),
            },
            problem: error.message().replace('\n', " "),
            fix: "correct what it names, or remove the line".to_owned(),
        })?;
        let variables = environment.into_iter().filter_map(setting).collect();
        Ok(Self { path: path.to_owned(), text, table, variables })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn folder(&self) -> PathBuf {
        match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        }
    }

    /// The file with the variables laid over it.
    pub(super) fn merged(&self) -> Result<RawFile, ConfigError> {
        let mut table = self.table.clone();
        for (name, path, value) in &self.variables {
            let at_variable = |problem: String| ConfigError {
                place: format!("the environment variable {name}"),
                problem,
                fix: "correct the variable or remove it".to_owned(),
            };
            lay_over(&mut table, path, value)
                .ok_or_else(|| at_variable("it names no setting".to_owned()))?;
            // The file alone was well-formed, so what is wrong now came with this variable.
            RawFile::deserialize(table.clone())
                .map_err(|error| at_variable(error.message().replace('\n', " ")))?;
        }
        RawFile::deserialize(table).map_err(|error| ConfigError {
            place: self.path.display().to_string(),
            problem: error.message().to_owned(),
            fix: "correct the file".to_owned(),
        })
    }

    pub(super) fn missing(&self, key: &str, fix: &str) -> ConfigError {
        let end = self.text.len();
        ConfigError {
            place: at_line(&self.path, &self.text, end),
            problem: format!("`{key}` is missing"),
            fix: fix.to_owned(),
        }
    }

    /// Where a value was set: a variable, a line of the file, or else the file.
    pub(super) fn place(&self, path: &[&str]) -> String {
        if let Some((name, ..)) = self.variables.iter().find(|(_, at, _)| at == path) {
            return format!("the environment variable {name}");
        }
        let table = DeTable::parse(&self.text).ok();
        match table.and_then(|table| offset_of(table.get_ref(), path)) {
            Some(offset) => at_line(&self.path, &self.text, offset),
            None => self.path.display().to_string(),
        }
    }
}

fn offset_of(table: &DeTable<'_>, path: &[&str]) -> Option<usize> {
    let (first, rest) = path.split_first()?;
    let (key, value): (_, &Spanned<DeValue<'_>>) =
        table.iter().find(|(key, _)| key.get_ref() == first)?;
    match value.get_ref() {
        DeValue::Table(inner) if !rest.is_empty() => {
            // A value that is missing is looked for in its table.
            offset_of(inner, rest).or(Some(key.span().start))
        }
        _ => Some(key.span().start),
    }
}

fn at_line(path: &Path, text: &str, offset: usize) -> String {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    let last = text.lines().count().max(1);
    format!("{}:{}", path.display(), line.min(last))
}

/// `TOWLINE_LISTEN__RESP` is `listen.resp`. Other variables with the prefix are left alone unless
/// they name a table of the file: an orchestrator sets `TOWLINE_PORT` and its like for a service
/// with that name.
fn setting((name, value): (OsString, OsString)) -> Option<(String, Vec<String>, String)> {
    let name = name.into_string().ok()?;
    let path = name.strip_prefix(VARIABLE_PREFIX)?.to_ascii_lowercase();
    let path: Vec<String> = path.split("__").map(str::to_owned).collect();
    let known = match path.as_slice() {
        [only] => TOP_LEVEL.contains(&only.as_str()),
        [table, ..] => TABLES.contains(&table.as_str()),
        [] => false,
    };
    known.then_some(())?;
    Some((name, path, value.into_string().ok()?))
}

fn lay_over(table: &mut Table, path: &[String], text: &str) -> Option<()> {
    let (last, tables) = path.split_last()?;
    let mut at = table;
    for name in tables {
        let inner = at.entry(name).or_insert_with(|| Value::Table(Table::new()));
        at = inner.as_table_mut()?;
    }
    let number = last.ends_with("_ms").then(|| text.parse().ok()).flatten();
    let value = number.map_or_else(|| Value::String(text.to_owned()), Value::Integer);
    at.insert(last.clone(), value);
    Some(())
}
