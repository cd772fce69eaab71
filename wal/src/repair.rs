//! Putting back what was damaged, from the bytes of a peer.
//!
//! A segment is built anew beside the damaged one: whole records are kept, the others are the
//! peer's. Only if that is, without a gap, what the checksums and the digest say, is it synced and
//! renamed over the damaged file, which is kept in a salvage bundle. So a crash leaves the one or
//! the other, and a published byte never changes under a reader.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use towline_protocol::epoch::Epoch;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{Digest, HeaderSeed, RECORD_HEADER_LEN, RecordHeader, RecordKind};

use crate::block::Block;
use crate::check::{Known, is_of};
use crate::control::Control;
use crate::copies::{self, folder_of};
use crate::cursor::Chunk;
use crate::cut::salvage_dir;
use crate::disk::{Access, Disk};
use crate::error::{AtPath, WalError};
use crate::header::SegmentHeader;
use crate::log::Log;
use crate::newest::named_bases;
use crate::planted::{Bug, planted};
use crate::receive::take_record;
use crate::recovery::take_lock;
use crate::report::{Evidence, Witness};
use crate::scan::{Behind, SegmentFile, parse};
use crate::segment::{create, file_name};
use crate::wal::Options;

const FRESH_NAME: &str = "repair.new";

/// What a repair put back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// The bases of the segments that were built anew; none if nothing was damaged.
    pub segments: Vec<Lsn>,
    /// How many records are the peer's now.
    pub records: u64,
    /// How many bytes they take.
    pub bytes: u64,
    /// Where the damaged files are kept.
    pub bundles: Vec<PathBuf>,
}

/// A peer's records, by where they lie.
type Records<'a> = BTreeMap<Lsn, (RecordHeader, &'a [u8])>;

/// A segment's place, and what its records have to come to.
struct Place<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    control: &'a Control,
    base: Lsn,
    epoch: Epoch,
    known: Known,
    /// Its records have to reach this far.
    reach: Lsn,
    /// Whether the log went on to it, or it was only made ready.
    entered: bool,
}

/// The records of a segment, built anew.
struct Rebuilt {
    header: SegmentHeader,
    /// Everything behind the header page.
    records: Vec<u8>,
    taken: (u64, u64),
}

/// Repairs a closed log with a peer's records. All damage of a segment is repaired at once, so
/// `chunks` must hold all of it; what is whole already is left alone.
///
/// # Errors
/// [`WalError::Repair`] if the log would not be whole then, or the records are not this log's, and
/// [`WalError::Record`] if they are damaged themselves. Nothing is changed then in that segment.
pub fn repair(dir: &Path, chunks: &[Chunk], options: &Options) -> Result<RepairReport, WalError> {
    let (control, _) = copies::read(&*options.disk, dir)?;
    let mut report = RepairReport::default();
    if chunks.is_empty() {
        // Nothing to do, but for the one who has the log open.
        drop(take_lock(&*options.disk, dir)?);
    }
    let mut bases: Vec<Lsn> = chunks.iter().map(|chunk| chunk.segment.base).collect();
    bases.sort_unstable();
    bases.dedup();
    by_segment(&control, chunks)?;
    for base in bases {
        let chunks: Vec<Chunk> =
            chunks.iter().filter(|chunk| chunk.segment.base == base).cloned().collect();
        report.add(repair_one(dir, base, &chunks, options)?);
    }
    Ok(report)
}

/// Repairs one segment of a closed log.
fn repair_one(
    dir: &Path,
    base: Lsn,
    chunks: &[Chunk],
    options: &Options,
) -> Result<RepairReport, WalError> {
    let disk = &*options.disk;
    copies::read(disk, dir)?; // Before the lock file is made: an empty folder stays empty.
    let _lock = take_lock(disk, dir)?;
    let (mut control, _) = copies::read(disk, dir)?;
    let records = by_segment(&control, chunks)?.remove(&base).unwrap_or_default();
    let evidence = evidence_at(disk, dir, &control, base)?;
    let evidence = evidence.or(options.expect_durable, Witness::Caller);
    let known = known_of(disk, dir, &control, base)?;
    let place = Place {
        disk,
        dir,
        control: &control,
        base,
        epoch: control.history.epoch_at(SegmentSize::first_record(base)),
        entered: known.before.is_some() && !control.history.starts().is_empty(),
        known,
        reach: evidence.durable.min(control.segment_size.next_base(base)),
    };
    let mut report = RepairReport::default();
    place.repair(&records, options.salvage_dir.as_deref(), &mut report)?;
    if evidence.durable > control.durable && !report.segments.is_empty() {
        // A header that was lost took promises along.
        control.durable = evidence.durable;
        copies::write(disk, dir, &mut control)?;
    }
    Ok(report)
}

/// Repairs a closed log from the folder of a peer's, of a running one too: every segment of which
/// something is damaged or missing. One segment of each is held in memory at a time.
///
/// # Errors
/// As [`repair`], for the first segment that the peer's does not make whole; those before it are
/// repaired. [`WalError::Foreign`] if the peer's folder holds another log.
pub fn repair_from(dir: &Path, peer: &Path, options: &Options) -> Result<RepairReport, WalError> {
    let disk = &*options.disk;
    let (control, theirs) = (copies::read(disk, dir)?.0, copies::read(disk, peer)?.0);
    if (control.log, control.segment_size) != (theirs.log, theirs.segment_size) {
        let what = format!("it is log {}, the damaged one is log {}", theirs.log, control.log);
        return Err(WalError::Foreign { path: peer.to_owned(), what });
    }
    let size = control.segment_size;
    let newest = named_bases(disk, dir, &control)?.last().copied().unwrap_or_default();
    let durable = control.durable.max(options.expect_durable);
    let newest = newest.max(size.base_of(Lsn::new(durable.get().saturating_sub(1))));
    let mut report = RepairReport::default();
    let mut base = control.oldest.base;
    while base <= newest {
        let repaired = match repair_one(dir, base, &[], options) {
            Err(own) if own.is_damage() || matches!(own, WalError::Repair { .. }) => {
                let chunk = SegmentFile::open(disk, peer, base, &theirs).and_then(|it| it.chunk());
                match chunk {
                    Ok(chunk) => repair_one(dir, base, &[chunk], options)?,
                    // What the peer has is not known: that is to be seen to before anything else.
                    Err(peers) if !peers.is_damage() => return Err(peers),
                    Err(_) => return Err(own),
                }
            }
            // No record helps if a call fails; a sync that has is never tried again.
            whole => whole?,
        };
        report.add(repaired);
        base = size.next_base(base);
    }
    Ok(report)
}

impl SegmentFile {
    /// All whole records from the beginning on, as a peer would ship them.
    fn chunk(&self) -> Result<Chunk, WalError> {
        let bytes = self.bytes()?;
        let mut end = self.first();
        let offset = |at: Lsn| usize::try_from(at.distance_from(self.base())).unwrap_or(usize::MAX);
        while let Ok((header, _)) = parse(&bytes, offset(end), end, self.seed) {
            end = header.end();
        }
        let records = bytes.get(offset(self.first())..offset(end)).unwrap_or_default();
        let bytes = bytes::Bytes::copy_from_slice(records);
        Ok(Chunk { segment: self.header.identity(), from: self.first(), end, bytes })
    }
}

impl RepairReport {
    fn add(&mut self, other: Self) {
        self.segments.extend(other.segments);
        self.records += other.records;
        self.bytes += other.bytes;
        self.bundles.extend(other.bundles);
    }
}

impl Log {
    /// Repairs complete segments of the open log with a peer's records, as [`repair`] does a
    /// closed log. A cursor that met the damage reads on from there.
    ///
    /// # Errors
    /// As [`repair`]; [`WalError::Repair`] also for what is not both complete and flushed.
    pub fn repair(&self, chunks: &[Chunk]) -> Result<RepairReport, WalError> {
        // Nothing is trimmed away meanwhile.
        let _held = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        let control = self.control();
        let history = self.history();
        let mut report = RepairReport::default();
        for (base, records) in by_segment(&control, chunks)? {
            let end = self.complete_end(base).filter(|&end| end <= self.flushed());
            let Some(end) = end else {
                let what = "it is still written; repair it when it is complete".to_owned();
                return Err(WalError::Repair { at: base, what });
            };
            let place = Place {
                disk: &*self.disk,
                dir: &self.dir,
                control: &control,
                base,
                epoch: history.epoch_at(SegmentSize::first_record(base)),
                known: self.known_of(base)?,
                reach: end,
                entered: true,
            };
            let repaired = report.segments.len();
            place.repair(&records, self.salvage_dir.as_deref(), &mut report)?;
            if report.segments.len() > repaired {
                self.segments.forget(base);
            }
        }
        Ok(report)
    }
}

/// Checks a peer's records, and sorts them by segment.
fn by_segment<'a>(
    control: &Control,
    chunks: &'a [Chunk],
) -> Result<BTreeMap<Lsn, Records<'a>>, WalError> {
    let mut segments: BTreeMap<Lsn, Records<'a>> = BTreeMap::new();
    for chunk in chunks {
        let identity = chunk.segment;
        if control.segment_size.base_of(chunk.from) != identity.base {
            let what = format!("the bytes say that they are of segment {}", identity.base);
            return Err(WalError::Repair { at: chunk.from, what });
        }
        if identity.base < control.oldest.base {
            let oldest = control.oldest.end;
            return Err(WalError::Lagged { at: chunk.from, oldest });
        }
        let epoch = control.history.epoch_at(SegmentSize::first_record(identity.base));
        if epoch != identity.epoch {
            let what = format!("the bytes are of epoch {}, here it is {epoch}", identity.epoch);
            return Err(WalError::Repair { at: chunk.from, what });
        }
        let seed = HeaderSeed::new(control.log, identity.epoch, identity.base, identity.nonce);
        let records = segments.entry(identity.base).or_default();
        let (mut at, mut rest) = (chunk.from, &chunk.bytes[..]);
        while !rest.is_empty() {
            let (header, payload) = take_record(rest, at, seed)?;
            records.insert(at, (header, payload));
            let stored = usize::try_from(header.stored_len()).unwrap_or(usize::MAX);
            rest = rest.get(stored..).unwrap_or_default();
            at = header.end();
        }
    }
    Ok(segments)
}

/// What a closed log's control file, and the segment before, say of a segment.
fn known_of(disk: &dyn Disk, dir: &Path, control: &Control, base: Lsn) -> Result<Known, WalError> {
    let first = SegmentSize::first_record(base);
    let next = SegmentSize::first_record(control.segment_size.next_base(base));
    let starts = control.history.starts();
    let ended = starts.iter().find(|start| start.first == next && start.previous_end > base);
    let opened = starts.iter().find(|start| start.first == first).map(|start| start.digest);
    let end = ended.map(|start| (start.previous_end, start.digest));
    if let Some(before) = opened.or((base == control.oldest.base).then_some(control.oldest.digest))
    {
        return Ok(Known { before: Some(before), end });
    }
    let before = Lsn::new(base.get() - control.segment_size.bytes());
    let before = SegmentFile::open_whole(disk, dir, before, control)?;
    let sealed = before.map(|file| file.sealed_before()).transpose()?.flatten();
    Ok(Known { before: sealed.map(|before| before.digest), end })
}

/// How far a closed log is known to have been durable, by all that can still be read of it from a
/// segment on.
fn evidence_at(
    disk: &dyn Disk,
    dir: &Path,
    control: &Control,
    base: Lsn,
) -> Result<Evidence, WalError> {
    let mut evidence = Evidence::default().or(control.durable, Witness::Control);
    for later in named_bases(disk, dir, control)?.into_iter().filter(|&later| later >= base) {
        let Some(file) = SegmentFile::open_whole(disk, dir, later, control)? else { continue };
        let behind =
            Behind::look(std::slice::from_ref(&file), (base, base), &mut Block::new())?.promise;
        evidence = evidence.or(behind.durable, behind.witness);
    }
    Ok(evidence)
}

impl Place<'_> {
    fn repair(
        &self,
        records: &Records<'_>,
        salvage: Option<&Path>,
        report: &mut RepairReport,
    ) -> Result<(), WalError> {
        let file = SegmentFile::open_whole(self.disk, self.dir, self.base, self.control)?;
        let rebuilt = self.rebuild(file.as_ref(), records)?;
        if rebuilt.taken.0 == 0 {
            if file.is_some() || !(self.is_there()? || self.entered) {
                // An earlier repair may have given it its name, and failed to sync that.
                return self.disk.sync_dir(self.dir).at("syncing", self.dir);
            }
            if self.entered {
                let what = "its file can not be read, and what it promised is not known; bring \
                            the peer's records, or rebuild this node from its primary";
                return self.refused(SegmentSize::first_record(self.base), what);
            }
            // It was ready and no more: it is made ready again.
        }
        let bundle = self.keep_damaged(salvage, rebuilt.header.nonce)?;
        self.replace(&rebuilt)?;
        report.segments.push(self.base);
        report.records += rebuilt.taken.0;
        report.bytes += rebuilt.taken.1;
        report.bundles.extend(bundle);
        Ok(())
    }

    /// Whether there is a file in its place, whatever it holds.
    fn is_there(&self) -> Result<bool, WalError> {
        let path = self.dir.join(file_name(self.base));
        match self.disk.open(&path, Access::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            opened => opened.at("opening", &path).map(|_| true),
        }
    }

    fn refused<T>(&self, at: Lsn, what: &str) -> Result<T, WalError> {
        Err(WalError::Repair { at, what: what.to_owned() })
    }

    /// The segment as it should be: whole records of its own, and the peer's where it has none.
    fn rebuild(
        &self,
        file: Option<&SegmentFile>,
        peers: &Records<'_>,
    ) -> Result<Rebuilt, WalError> {
        let nonce = self.disk.nonce();
        let header = file.map_or(
            SegmentHeader {
                log: self.control.log,
                base: self.base,
                epoch: self.epoch,
                size: self.control.segment_size,
                nonce,
                durable: Lsn::ZERO,
            },
            |file| SegmentHeader { nonce, ..file.header },
        );
        let bytes = file.map(SegmentFile::bytes).transpose()?;
        let own = |at: Lsn| {
            let (file, bytes) = file.zip(bytes.as_ref())?;
            let offset = usize::try_from(at.distance_from(self.base)).unwrap_or(usize::MAX);
            let rest = bytes.get(offset..).unwrap_or_default();
            let known = RecordHeader::decode(rest, at, file.seed).ok();
            Some((known, parse(bytes, offset, at, file.seed).ok()))
        };
        let mut rebuilt = Rebuilt { header, records: Vec::new(), taken: (0, 0) };
        let mut promise = header.durable;
        let mut digest = self.known.before;
        let mut at = SegmentSize::first_record(self.base);
        loop {
            let (known, whole) = own(at).unwrap_or_default();
            let peer = peers.get(&at);
            let is_same = |(known, (peer, _)): (RecordHeader, &(RecordHeader, &[u8]))| {
                Digest::EMPTY.with(&known) == Digest::EMPTY.with(peer)
            };
            if known.zip(peer).is_some_and(|both| !is_same(both)) {
                return self.refused(at, "the peer has another record there: its log is not this");
            }
            // Past what it has to reach, the log ends where its own records do. If none of them can
            // be read, nor can what they promised: all that the peer has are taken.
            let peers = peer.copied().filter(|_| at < self.reach || file.is_none());
            let Some((record, payload)) = whole.or(peers) else { break };
            if whole.is_none() {
                rebuilt.taken.0 += 1;
                rebuilt.taken.1 += record.stored_len();
            }
            let is_seal = record.kind == RecordKind::Seal;
            if is_seal && digest.is_some_and(|digest| !is_of(payload, digest)) {
                return self.refused(at, "the records do not have the digest that the SEAL says");
            }
            promise = promise.max(whole.map_or(Lsn::ZERO, |(own, _)| own.sync_lsn));
            rebuilt.push(&RecordHeader { sync_lsn: promise.min(at), ..record }, payload);
            digest = digest.map(|digest| digest.with(&record));
            at = record.end();
            if is_seal {
                return Ok(rebuilt);
            }
            if let Some((_, says)) = self.known.end.filter(|(end, _)| *end == at) {
                if digest.is_some_and(|digest| digest != says) {
                    return self.refused(at, "the records do not have the digest of the BARRIER");
                }
                return Ok(rebuilt);
            }
        }
        if at < self.reach {
            return self.refused(at, "no whole record is there still; bring the peer's from there");
        }
        Ok(rebuilt)
    }

    /// Gives the damaged file a second name in a salvage bundle.
    fn keep_damaged(
        &self,
        salvage: Option<&Path>,
        nonce: u64,
    ) -> Result<Option<PathBuf>, WalError> {
        let name = file_name(self.base);
        let path = self.dir.join(&name);
        let salvage = salvage_dir(self.dir, salvage);
        let bundle = salvage.join(format!("repair-{:020}-{nonce:016x}", self.base.get()));
        if !self.is_there()? || planted(Bug::RepairKeepsNothing) {
            return Ok(None);
        }
        self.disk.create_dir_all(&bundle).at("creating", &bundle)?;
        let kept = bundle.join(name);
        self.disk.hard_link(&path, &kept).at("linking to", &kept)?;
        for dir in [&*bundle, &*salvage, folder_of(&salvage)] {
            self.disk.sync_dir(dir).at("syncing", dir)?;
        }
        Ok(Some(bundle))
    }

    /// Puts the rebuilt segment in the place of the damaged one.
    fn replace(&self, rebuilt: &Rebuilt) -> Result<(), WalError> {
        let fresh = self.dir.join(FRESH_NAME);
        create(self.disk, &fresh, &rebuilt.header)?;
        let out = self.disk.open(&fresh, Access::ReadWrite).at("opening", &fresh)?;
        out.write_at(&rebuilt.records, SegmentSize::HEADER_LEN).at("writing", &fresh)?;
        if !planted(Bug::RepairNotSynced) {
            out.sync().at("syncing", &fresh)?;
        }
        let path = self.dir.join(file_name(self.base));
        self.disk.rename(&fresh, &path).at("renaming over", &path)?;
        if planted(Bug::RepairNameNotSynced) {
            return Ok(());
        }
        self.disk.sync_dir(self.dir).at("syncing", self.dir)
    }
}

impl Rebuilt {
    fn push(&mut self, record: &RecordHeader, payload: &[u8]) {
        self.records.extend_from_slice(&record.encode(self.header.seed()));
        self.records.extend_from_slice(payload);
        let stored = usize::try_from(record.stored_len()).unwrap_or(usize::MAX);
        let padding = stored - RECORD_HEADER_LEN - payload.len();
        self.records.resize(self.records.len() + padding, 0);
    }
}
