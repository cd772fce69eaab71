//! Reading a folder without opening the log: no lock is taken and nothing is changed, so the log
//! of a running node can be dumped and verified.

use std::path::Path;

use bytes::Bytes;
use towline_protocol::frame::SegmentIdentity;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::{Digest, RecordError, RecordHeader, RecordKind};

use crate::control::read_control_on;
use crate::disk::{Disk, FileDisk};
use crate::error::WalError;
use crate::scan::{SegmentFile, promises_behind, segment_files};

/// One record, and the file it lies in.
#[derive(Clone, Debug)]
pub struct ReadRecord {
    /// The file.
    pub segment: SegmentIdentity,
    /// The record's header.
    pub header: RecordHeader,
    /// Its payload.
    pub payload: Bytes,
}

/// Where and why a reading ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The end of the last valid record; [`Lsn::ZERO`] if there is none.
    pub end: Lsn,
    /// The digest of everything read.
    pub digest: Digest,
    /// How many records there are.
    pub records: u64,
    /// How many bytes they take.
    pub bytes: u64,
    /// The first position that holds no valid record.
    pub stopped: Lsn,
    /// What is there instead.
    pub what: String,
    /// Everything below is known to have been durable.
    pub evidence: Lsn,
}

impl Verdict {
    /// Whether something that was durable is damaged or gone. What is not durable yet, or was
    /// torn by a crash, is nobody's loss.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.evidence > self.stopped
    }
}

/// Reads every record of a folder in order; its [`Verdict`] is there once it has no more.
#[derive(Debug)]
pub struct LogReader {
    files: Vec<SegmentFile>,
    at: usize,
    /// Where the next record of the file should lie.
    next: Lsn,
    verdict: Verdict,
    /// What the control file and the headers promised.
    promised: Lsn,
    /// Where a cut that is not finished ends the log, whatever is still there behind it.
    cut: Option<Lsn>,
    done: bool,
}

/// Reads the log of a folder, of a running node as well.
///
/// # Errors
/// [`WalError`] if the folder holds no log or a segment's header is damaged.
pub fn read_log(dir: &Path) -> Result<LogReader, WalError> {
    read_log_on(&FileDisk, dir)
}

/// Reads the log of a folder, as [`read_log`] does, from another disk.
///
/// # Errors
/// As [`read_log`].
pub fn read_log_on(disk: &dyn Disk, dir: &Path) -> Result<LogReader, WalError> {
    let control = read_control_on(disk, dir)?;
    let files = segment_files(disk, dir, control.log, control.segment_size)?;
    let next = files.first().map_or(Lsn::ZERO, SegmentFile::first);
    let promised = files.iter().map(|file| file.header.durable).fold(control.durable, Lsn::max);
    let verdict = Verdict {
        end: Lsn::ZERO,
        digest: Digest::EMPTY,
        records: 0,
        bytes: 0,
        stopped: next,
        what: "there is no segment".to_owned(),
        evidence: Lsn::ZERO,
    };
    let cut = control.cut.map(|mark| mark.to);
    Ok(LogReader { files, at: 0, next, verdict, promised, cut, done: false })
}

impl LogReader {
    /// Where and why the reading ended; `None` while there may be more.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        self.done.then_some(&self.verdict)
    }

    fn read_next(&mut self) -> Result<Option<ReadRecord>, WalError> {
        if self.cut.is_some_and(|end| self.next >= end) {
            self.verdict.stopped = self.next;
            "a cut that is not finished ends the log here".clone_into(&mut self.verdict.what);
            return Ok(None);
        }
        let Some(file) = self.files.get(self.at) else { return Ok(None) };
        match file.record(self.next)? {
            Ok(record) => {
                let segment = file.header.identity();
                self.next = record.header.end();
                self.take(&record.header);
                let payload = record.payload.into();
                Ok(Some(ReadRecord { segment, header: record.header, payload }))
            }
            Err(error) => self.cross(&error),
        }
    }

    fn take(&mut self, header: &RecordHeader) {
        let verdict = &mut self.verdict;
        verdict.digest = verdict.digest.with(header);
        verdict.records += 1;
        verdict.bytes += header.stored_len();
        verdict.end = header.end();
        self.promised = self.promised.max(header.sync_lsn);
        if header.kind == RecordKind::Seal {
            self.enter_next("the next segment has no records");
        }
    }

    fn enter_next(&mut self, what: &str) {
        let here = &self.files[self.at];
        let base = here.header.size.next_base(here.base());
        self.next = towline_protocol::lsn::SegmentSize::first_record(base);
        self.at += 1;
        self.verdict.stopped = self.next;
        what.clone_into(&mut self.verdict.what);
    }

    /// Goes on in the next segment if its BARRIER says that the epoch ended here.
    fn cross(&mut self, error: &RecordError) -> Result<Option<ReadRecord>, WalError> {
        self.verdict.stopped = self.next;
        self.verdict.what = error.to_string();
        let Some(next) = self.files.get(self.at + 1) else { return Ok(None) };
        if !next.follows(self.verdict.end, self.verdict.digest)? {
            return Ok(None);
        }
        self.enter_next("");
        self.read_next()
    }
}

impl Iterator for LogReader {
    type Item = Result<ReadRecord, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let read = self.read_next();
        if !matches!(read, Ok(Some(_))) {
            self.done = true;
        }
        if matches!(read, Ok(None)) {
            match promises_behind(&self.files, self.verdict.stopped) {
                Ok(behind) => {
                    let evidence = behind.max(self.promised);
                    self.verdict.evidence = evidence.min(self.cut.unwrap_or(evidence));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        read.transpose()
    }
}
