//! Reading a folder without opening the log: no lock is taken and nothing is changed, so the log
//! of a running node can be dumped and verified.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use towline_protocol::frame::SegmentIdentity;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{Digest, RecordError, RecordHeader, RecordKind};

use crate::block::Block;
use crate::control::Control;
use crate::copies::read_control_on;
use crate::disk::{Disk, FileDisk};
use crate::error::WalError;
use crate::newest::{bases, files_from};
use crate::report::{Evidence, Witness};
use crate::scan::{Behind, SegmentFile};

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

impl ReadRecord {
    fn copied(segment: SegmentIdentity, (header, payload): (RecordHeader, &[u8])) -> Self {
        Self { segment, header, payload: Bytes::copy_from_slice(payload) }
    }
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
    /// Who says so.
    pub witness: Witness,
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
    dir: PathBuf,
    control: Control,
    files: Vec<Place>,
    at: usize,
    /// What was read of that file last.
    block: Block,
    /// Where the next record of the file should lie.
    next: Lsn,
    verdict: Verdict,
    /// What the control file, the headers and the records promised.
    promised: Evidence,
    done: bool,
}

/// A segment of a folder.
#[derive(Debug)]
enum Place {
    /// One that is opened when its turn comes, so that a log's length costs no file descriptors.
    Closed(Lsn),
    Open(Box<SegmentFile>),
    /// One that was read.
    Done,
}

/// Reads the log of a folder, of a running node as well.
///
/// # Errors
/// [`WalError`] if the folder holds no log or a segment is missing.
pub fn read_log(dir: &Path) -> Result<LogReader, WalError> {
    let control = read_control_on(&FileDisk, dir)?;
    let files = bases(&FileDisk, dir, &control)?.into_iter().map(Place::Closed);
    Ok(LogReader::new(dir, control, files.collect()))
}

/// Reads the log of a folder, as [`read_log`] does, from another disk. Opens all segments at once.
///
/// # Errors
/// As [`read_log`], and if a segment's header is damaged.
pub fn read_log_on(disk: &dyn Disk, dir: &Path) -> Result<LogReader, WalError> {
    let control = read_control_on(disk, dir)?;
    let files = files_from(disk, dir, &control, control.oldest.base)?.into_iter();
    let files = files.map(|file| Place::Open(Box::new(file)));
    Ok(LogReader::new(dir, control, files.collect()))
}

impl LogReader {
    fn new(dir: &Path, control: Control, files: Vec<Place>) -> Self {
        let next = crate::trim::first_of(&control);
        let verdict = Verdict {
            end: control.oldest.end,
            digest: control.oldest.digest,
            records: 0,
            bytes: 0,
            stopped: next,
            what: "there is no segment".to_owned(),
            evidence: Lsn::ZERO,
            witness: Witness::Nobody,
        };
        let promised = Evidence::default().or(control.durable, Witness::Control);
        let dir = dir.to_owned();
        Self {
            dir,
            control,
            files,
            at: 0,
            block: Block::new(),
            next,
            verdict,
            promised,
            done: false,
        }
    }

    /// Where and why the reading ended; `None` while there may be more.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        self.done.then_some(&self.verdict)
    }

    /// The segment at a place; `None` behind the last one.
    fn open(&mut self, at: usize) -> Result<Option<&SegmentFile>, WalError> {
        if let Some(Place::Closed(base)) = self.files.get(at) {
            let file = SegmentFile::open(&FileDisk, &self.dir, *base, &self.control)?;
            self.files[at] = Place::Open(Box::new(file));
        }
        Ok(match self.files.get(at) {
            Some(Place::Open(file)) => Some(file),
            _ => None,
        })
    }

    fn read_next(&mut self) -> Result<Option<ReadRecord>, WalError> {
        let cut = self.control.cut.map(|mark| mark.to);
        if cut.is_some_and(|end| self.next >= end) {
            self.verdict.stopped = self.next;
            "a cut that is not finished ends the log here".clone_into(&mut self.verdict.what);
            return Ok(None);
        }
        let (at, next) = (self.at, self.next);
        let mut block = std::mem::replace(&mut self.block, Block::new());
        let Some(file) = self.open(at)? else { return Ok(None) };
        let (segment, durable) = (file.header.identity(), file.header.durable);
        let mut record = block.record(file, next)?.map(|it| ReadRecord::copied(segment, it));
        if record.is_err() {
            // It may have been written since the block was read.
            block.forget();
            record = block.record(file, next)?.map(|it| ReadRecord::copied(segment, it));
        }
        self.block = block;
        match record {
            Ok(record) => {
                self.promised = self.promised.or(durable, Witness::Segment(segment.base));
                self.next = record.header.end();
                self.take(&record.header);
                Ok(Some(record))
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
        self.promised = self.promised.or(header.sync_lsn, Witness::Record(header.lsn));
        if header.kind == RecordKind::Seal {
            self.enter_next("the next segment has no records");
        }
    }

    fn enter_next(&mut self, what: &str) {
        if let Place::Open(here) = &self.files[self.at] {
            self.next = SegmentSize::first_record(here.header.size.next_base(here.base()));
        }
        self.files[self.at] = Place::Done;
        self.block.forget();
        self.at += 1;
        self.verdict.stopped = self.next;
        what.clone_into(&mut self.verdict.what);
    }

    /// Goes on in the next segment if its BARRIER says that the epoch ended here.
    fn cross(&mut self, error: &RecordError) -> Result<Option<ReadRecord>, WalError> {
        self.verdict.stopped = self.next;
        self.verdict.what = error.to_string();
        let (end, digest, at) = (self.verdict.end, self.verdict.digest, self.at + 1);
        let Some(next) = self.open(at)? else { return Ok(None) };
        if !next.follows(end, digest)? {
            return Ok(None);
        }
        self.enter_next("");
        self.read_next()
    }

    /// Everything that promised something: what was read, and what lies behind.
    fn evidence(&mut self) -> Result<Evidence, WalError> {
        let mut evidence = self.promised;
        let stopped = self.verdict.stopped;
        let mut block = Block::new();
        for at in self.at..self.files.len() {
            let Some(file) = self.open(at)? else { continue };
            let behind =
                Behind::look(std::slice::from_ref(file), (stopped, stopped), &mut block)?.promise;
            let (durable, base) = (file.header.durable, file.base());
            evidence = evidence.or(durable, Witness::Segment(base));
            evidence = evidence.or(behind.durable, behind.witness);
            self.files[at] = Place::Done;
        }
        Ok(evidence)
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
            match self.evidence() {
                Ok(evidence) => {
                    let cut = self.control.cut.map(|mark| mark.to);
                    self.verdict.evidence = evidence.durable.min(cut.unwrap_or(evidence.durable));
                    self.verdict.witness = evidence.witness;
                }
                Err(error) => return Some(Err(error)),
            }
        }
        read.transpose()
    }
}
