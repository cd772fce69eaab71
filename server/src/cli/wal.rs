//! `towline wal`: reading a node's log.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use towline_protocol::lsn::Lsn;
use towline_wal::{LogReader, ReadRecord, Verdict, WalError, read_control, read_log};

use super::exit::{Exit, Failure};

/// What to do with a log.
#[derive(Debug, Subcommand)]
pub(super) enum WalVerb {
    /// Print one line per record.
    Dump(DumpArgs),
    /// Check every record, and say where the log ends and why.
    Verify(VerifyArgs),
}

/// Arguments of `towline wal dump`.
#[derive(Debug, Args)]
pub(super) struct DumpArgs {
    /// The log's folder, or the node's.
    dir: PathBuf,
    /// Begin with the first record at or behind this position.
    #[arg(long, value_name = "LSN", default_value_t = 0)]
    from: u64,
    /// The most records to print.
    #[arg(long, value_name = "COUNT", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

/// Arguments of `towline wal verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The log's folder, or the node's.
    dir: PathBuf,
}

pub(super) fn run(verb: &WalVerb) -> Result<Exit, Failure> {
    match verb {
        WalVerb::Dump(args) => dump(args),
        WalVerb::Verify(args) => verify(args),
    }
}

fn dump(args: &DumpArgs) -> Result<Exit, Failure> {
    let dir = log_dir(&args.dir)?;
    let mut reader = read_log(&dir).map_err(|error| unreadable(&error))?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut left = args.limit;
    let mut file = None;
    while left > 0 {
        let Some(record) = reader.next() else { break };
        let record = record.map_err(|error| unreadable(&error))?;
        if record.header.lsn < Lsn::new(args.from) {
            continue;
        }
        left -= 1;
        let base = record.segment.base;
        let written = if file.replace(base) == Some(base) {
            Ok(())
        } else {
            writeln!(out, "{} epoch {}", file_name(base), record.segment.epoch)
        };
        if written.and_then(|()| line(&mut out, &record)).is_err() {
            // Whoever reads this has seen enough.
            return Ok(Exit::Ok);
        }
    }
    // As above.
    let _ = out.flush();
    drop(out);
    match reader.verdict() {
        Some(verdict) => judged(&dir, verdict, false),
        None => Ok(Exit::Ok),
    }
}

fn line(out: &mut impl Write, record: &ReadRecord) -> io::Result<()> {
    let header = &record.header;
    writeln!(
        out,
        "  lsn {} end {} {:?} tag {} len {} sync {}",
        header.lsn,
        header.end(),
        header.kind,
        header.tag,
        header.len,
        header.sync_lsn
    )
}

fn verify(args: &VerifyArgs) -> Result<Exit, Failure> {
    let dir = log_dir(&args.dir)?;
    let mut reader: LogReader = read_log(&dir).map_err(|error| unreadable(&error))?;
    for record in reader.by_ref() {
        record.map_err(|error| unreadable(&error))?;
    }
    match reader.verdict() {
        Some(verdict) => judged(&dir, verdict, true),
        None => Err(Failure::new(Exit::Error, format!("{}: reading stopped", dir.display()))),
    }
}

fn judged(dir: &Path, verdict: &Verdict, say_well: bool) -> Result<Exit, Failure> {
    if verdict.is_corrupt() {
        let size = read_control(dir).map_err(|error| unreadable(&error))?.segment_size;
        let file = dir.join(file_name(size.base_of(verdict.stopped)));
        return Err(Failure::new(
            Exit::Error,
            format!(
                "{}: damaged from Lsn {} on ({}), though everything below Lsn {} was durable; the \
                 whole records end at Lsn {}. Keep the folder: a peer's copy can repair it",
                file.display(),
                verdict.stopped,
                verdict.what,
                verdict.evidence,
                verdict.end
            ),
        ));
    }
    if say_well {
        println!(
            "{}: {} records, {} bytes, end Lsn {}, digest {:016x}; nothing durable is damaged",
            dir.display(),
            verdict.records,
            verdict.bytes,
            verdict.end,
            verdict.digest.0
        );
    }
    Ok(Exit::Ok)
}

fn file_name(base: Lsn) -> String {
    format!("{base:020}.wal", base = base.get())
}

/// The one log of a node's folder or data folder, or else the folder itself.
fn log_dir(dir: &Path) -> Result<PathBuf, Failure> {
    let below = [dir.to_owned(), dir.join("logs"), dir.join("data").join("logs")];
    let found = below.iter().flat_map(|parent| parent.read_dir().into_iter().flatten().flatten());
    let mut logs = found.map(|entry| entry.path()).filter(|path| holds_log(path));
    match (logs.next(), logs.next()) {
        (Some(log), None) => Ok(log),
        (None, _) => Ok(dir.to_owned()),
        (Some(_), Some(_)) => Err(Failure::new(
            Exit::Usage,
            format!("{}: there are several logs in it; name the folder of one", dir.display()),
        )),
    }
}

/// Whether a folder looks like a log's, whole or damaged.
fn holds_log(path: &Path) -> bool {
    ["control.0", "control.1"].iter().any(|name| path.join(name).is_file())
}

fn unreadable(error: &WalError) -> Failure {
    Failure::new(Exit::Error, error.to_string())
}
