//! `towline wal`: reading a node's log, and repairing it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use towline_protocol::lsn::Lsn;
use towline_wal::{
    LogReader, Options, ReadRecord, Role, Verdict, WalError, read_control, read_log, repair_from,
};

use super::exit::{Exit, Failure};

/// What to do with a log.
#[derive(Debug, Subcommand)]
pub(super) enum WalVerb {
    /// Print one line per record.
    Dump(DumpArgs),
    /// Check every record, and say where the log ends and why.
    Verify(VerifyArgs),
    /// Say what the control file says: whose log it is, from where to where it is kept, for whom.
    Stat(VerifyArgs),
    /// Put back what is damaged or missing in the log of a stopped node, from a peer's folder or a
    /// copy of it. Only what the checksums and digests prove to be right is put back; damaged files
    /// are kept.
    Repair(RepairArgs),
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

/// Arguments of `towline wal verify` and `stat`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The log's folder, or the node's.
    dir: PathBuf,
}

/// Arguments of `towline wal repair`.
#[derive(Debug, Args)]
pub(super) struct RepairArgs {
    /// The damaged log's folder, or its node's, which is stopped.
    dir: PathBuf,
    /// The folder of a peer's log, or its node's.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
}

pub(super) fn run(verb: &WalVerb) -> Result<Exit, Failure> {
    match verb {
        WalVerb::Dump(args) => dump(args),
        WalVerb::Verify(args) => verify(args),
        WalVerb::Stat(args) => stat(args),
        WalVerb::Repair(args) => repair(args),
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

fn stat(args: &VerifyArgs) -> Result<Exit, Failure> {
    let dir = log_dir(&args.dir)?;
    let control = read_control(&dir).map_err(|error| unreadable(&error))?;
    let (segments, bytes) = stored(&dir);
    let size = control.segment_size.bytes();
    let role = match control.role {
        Role::Primary => "primary",
        Role::Replica => "replica",
    };
    let history = &control.history;
    println!("log        {} of cluster {:?}", control.log, control.cluster_name);
    println!("node       {}, incarnation {:016x}, {role}", control.node, control.incarnation.0);
    println!("segments   {segments} of {size} bytes, {bytes} in all");
    println!("oldest     Lsn {}", control.oldest.end);
    println!("durable    at least Lsn {}", control.durable);
    println!("committed  at least Lsn {}", control.committed);
    println!("epochs     {history}");
    println!("fence      {}", control.fence);
    if let Some(cut) = control.cut {
        println!("cut        to Lsn {} under way; opening the log finishes it", cut.to);
    }
    for slot in control.slots() {
        let bound = slot.keep_bytes_max.map_or_else(String::new, |it| format!(", {it} bytes kept"));
        let lagged = if slot.lagged { ", lagged: it holds nothing" } else { "" };
        println!("slot       {:?} at Lsn {}{bound}{lagged}", slot.name, slot.position);
    }
    Ok(Exit::Ok)
}

/// How many segment files a folder holds, and how many bytes.
fn stored(dir: &Path) -> (u64, u64) {
    let entries = dir.read_dir().into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().extension().is_some_and(|it| it == "wal"));
    files
        .filter_map(|file| file.metadata().ok())
        .fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.len()))
}

fn repair(args: &RepairArgs) -> Result<Exit, Failure> {
    let (dir, peer) = (log_dir(&args.dir)?, log_dir(&args.from)?);
    let report = repair_from(&dir, &peer, &Options::default())
        .map_err(|error| Failure::new(Exit::Refused, format!("{}: {error}", dir.display())))?;
    if report.segments.is_empty() {
        println!("{}: nothing is damaged that was durable", dir.display());
    }
    for base in &report.segments {
        println!("{}: repaired", dir.join(file_name(*base)).display());
    }
    for bundle in &report.bundles {
        println!("{}: keeps the damaged file; delete it once nobody wants it", bundle.display());
    }
    verify(&VerifyArgs { dir })
}

fn judged(dir: &Path, verdict: &Verdict, say_well: bool) -> Result<Exit, Failure> {
    if verdict.is_corrupt() {
        let size = read_control(dir).map_err(|error| unreadable(&error))?.segment_size;
        let file = dir.join(file_name(size.base_of(verdict.stopped)));
        return Err(Failure::new(
            Exit::Error,
            format!(
                "{}: damaged from Lsn {} on ({}), though everything below Lsn {} was durable; the \
                 whole records end at Lsn {}. Keep the folder: `towline wal repair` can mend it \
                 from a peer's",
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

#[cfg(test)]
#[path = "wal_tests.rs"]
mod tests;
