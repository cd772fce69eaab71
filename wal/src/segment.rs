//! A segment: one file of the log, and how it is made ready.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use towline_protocol::epoch::Epoch;
use towline_protocol::frame::SegmentIdentity;
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{HeaderSeed, RECORD_HEADER_LEN, RecordHeader};

use crate::disk::{Access, Disk, DiskFile, FOLIO_MAX};
use crate::error::{AtPath, WalError};
use crate::header::{FORMAT_VERSION, HEADER_PAGE_LEN, SegmentHeader};
use crate::map::{self, Mapping};
use crate::pace::Pace;
use crate::planted::{Bug, planted};
use crate::scan::is_blank;

/// The name of a segment that is not ready yet.
const FRESH_NAME: &str = "segment.new";

/// The file name of the segment at `base`.
pub(crate) fn file_name(base: Lsn) -> String {
    format!("{:020}.wal", base.get())
}

/// The base that a segment's file name says; `None` if it is no such name.
pub(crate) fn named_base(path: &Path) -> Option<Lsn> {
    let base = path.file_stem()?.to_str()?.parse().ok().map(Lsn::new)?;
    (path.file_name()?.to_str()? == file_name(base)).then_some(base)
}

/// How a reader takes bytes of a mapped segment.
#[derive(Debug)]
pub(crate) enum Share {
    /// As they are; a pin is held as long as they.
    Mapping(Option<Arc<()>>),
    /// Copied, so that no mapping is kept for them.
    Copy,
}

/// One segment of an open log.
#[derive(Debug)]
pub(crate) struct Segment {
    disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) seed: HeaderSeed,
    file: Arc<dyn DiskFile>,
    /// Mapped while it is, or was a moment ago, written. Cold segments are read with pread, so
    /// that a bad block is an error and not a signal.
    mapping: Option<Arc<Mapping>>,
    /// Whether neighbouring pages may be one to the page cache, as a stream leaves them, so that a
    /// sync of one writes all.
    lies_together: AtomicBool,
}

impl Segment {
    /// Opens a segment's file.
    pub(crate) fn open(disk: &Arc<dyn Disk>, path: &Path, mapped: bool) -> Result<Self, WalError> {
        let file = disk.open(path, Access::ReadWrite).at("opening", path)?;
        let header = read_header(&*file, path)?;
        let len = file.len().at("reading", path)?;
        let size = header.size.bytes();
        if len > size || (mapped && len != size) {
            let what = format!("it has {len} bytes, its header says {size}");
            return Err(WalError::Foreign { path: path.to_owned(), what });
        }
        let mapping = if mapped { Some(map_whole(&*file, path, size)?) } else { None };
        let (disk, path) = (Arc::clone(disk), path.to_owned());
        let lies_together = AtomicBool::new(mapped);
        Ok(Self { disk, path, header, seed: header.seed(), file, mapping, lies_together })
    }

    /// Makes a segment ready: allocated, zeroed, in memory, and then named, all of it durable.
    pub(crate) fn prepare(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        header: SegmentHeader,
        pace: Pace,
    ) -> Result<Self, WalError> {
        let fresh = dir.join(FRESH_NAME);
        create(&**disk, &fresh, &header)?;
        let mut segment = Self::open(disk, &fresh, true)?;
        if pace != Pace::Stream {
            segment.read_back(header.base)?;
            segment.check_blank()?;
        }
        if let Some(mapping) = segment.mapping.as_ref().filter(|_| pace != Pace::AtRest) {
            mapping.make_writable();
        }
        segment.path = dir.join(file_name(header.base));
        disk.rename(&fresh, &segment.path).at("renaming to", &segment.path)?;
        if !planted(Bug::SegmentNameNotSynced) {
            disk.sync_dir(dir).at("syncing", dir)?;
        }
        Ok(segment)
    }

    /// That what was read back is what was written. It also touches all of it: a machine may hand
    /// out memory only then.
    fn check_blank(&self) -> Result<(), WalError> {
        let size = self.header.size.bytes();
        let mut block = vec![0; FOLIO_MAX];
        for at in (SegmentSize::HEADER_LEN..size).step_by(FOLIO_MAX) {
            let left = usize::try_from(size - at).unwrap_or(FOLIO_MAX).min(FOLIO_MAX);
            self.file.read_exact_at(&mut block[..left], at).at("reading back", &self.path)?;
            if !is_blank(&block[..left]) {
                let what = "the disk does not hold the zeros that were written";
                return Err(std::io::Error::other(what)).at("preparing", &self.path);
            }
        }
        Ok(())
    }

    /// Has what lies behind `from` in memory page by page, if it may lie together there.
    ///
    /// # Errors
    /// A failed sync: what is stored behind `from` may not be on the disk.
    pub(crate) fn read_back(&self, from: Lsn) -> Result<(), WalError> {
        let from = self.offset(from).next_multiple_of(FOLIO_MAX);
        let size = usize::try_from(self.header.size.bytes()).unwrap_or(usize::MAX);
        let lies_together = self.lies_together.swap(false, Ordering::Relaxed);
        match self.mapping.as_ref().filter(|_| lies_together && from < size) {
            Some(mapping) => self.file.read_back(mapping, from..size).at("syncing", &self.path),
            None => Ok(()),
        }
    }

    pub(crate) fn lies_together(&self) -> bool {
        self.lies_together.load(Ordering::Relaxed)
    }

    /// The same file under another header: a ready segment that another epoch takes.
    pub(crate) fn with_header(&self, header: SegmentHeader) -> Result<Self, WalError> {
        self.file.write_at(&header.encode(), 0).at("writing", &self.path)?;
        self.sync()?;
        Ok(self.under(header))
    }

    /// The same file after a new header could not be written: nobody knows which one it has, so
    /// that whoever takes it writes his.
    pub(crate) fn of_no_epoch(&self) -> Self {
        self.under(SegmentHeader { epoch: Epoch::NONE, ..self.header })
    }

    fn under(&self, header: SegmentHeader) -> Self {
        let file = Arc::clone(&self.file);
        let (disk, path) = (Arc::clone(&self.disk), self.path.clone());
        let mapping = self.mapping.clone();
        let lies_together = AtomicBool::new(self.lies_together());
        Self { disk, path, header, seed: header.seed(), file, mapping, lies_together }
    }

    /// The same segment, read with pread from now on.
    pub(crate) fn cold(&self) -> Result<Self, WalError> {
        Self::open(&self.disk, &self.path, false)
    }

    pub(crate) const fn base(&self) -> Lsn {
        self.header.base
    }

    pub(crate) const fn identity(&self) -> SegmentIdentity {
        self.header.identity()
    }

    pub(crate) const fn is_mapped(&self) -> bool {
        self.mapping.is_some()
    }

    fn offset(&self, lsn: Lsn) -> usize {
        let offset = lsn.distance_from(self.header.base);
        usize::try_from(offset).expect("a segment is smaller than the address space")
    }

    /// Stores bytes that the caller has reserved.
    pub(crate) fn store(&self, at: Lsn, bytes: &[u8]) {
        let mapping = self.mapping.as_ref().expect("only a mapped segment is written");
        mapping.store(self.offset(at), bytes);
    }

    /// `len` published bytes at `at`; fewer if the file ends before. From a mapping they are not
    /// copied.
    pub(crate) fn read(&self, at: Lsn, len: usize) -> Result<Bytes, WalError> {
        self.read_for(at, len, Share::Mapping(None))
    }

    /// As [`Segment::read`], for a reader who counts, or does without, the mappings it holds.
    pub(crate) fn read_for(&self, at: Lsn, len: usize, share: Share) -> Result<Bytes, WalError> {
        let offset = self.offset(at);
        if let Some(mapping) = &self.mapping {
            let size = usize::try_from(self.header.size.bytes()).unwrap_or(usize::MAX);
            let range = offset..offset.saturating_add(len).min(size);
            return Ok(match share {
                Share::Mapping(pin) => map::share(mapping, range, pin),
                Share::Copy => Bytes::copy_from_slice(mapping.published(range)),
            });
        }
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            let read = self.file.read_at(&mut bytes[filled..], (offset + filled) as u64);
            match read.at("reading", &self.path)? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        Ok(bytes.into())
    }

    /// The payload of the record at `lsn`, verified.
    pub(crate) fn payload(&self, lsn: Lsn) -> Result<Bytes, WalError> {
        let bad = |source| WalError::Record { at: lsn, source };
        let header = self.read(lsn, RECORD_HEADER_LEN)?;
        let header = RecordHeader::decode(&header, lsn, self.seed).map_err(bad)?;
        let at = lsn.advance(RECORD_HEADER_LEN as u64);
        let payload = self.read(at, header.len as usize)?;
        header.check_payload(&payload).map_err(bad)?;
        Ok(payload)
    }

    /// Writes bytes that are in the file already into it again, so that the next sync takes them
    /// to the disk even if the kernel believes it has done so.
    pub(crate) fn rewrite(&self, at: Lsn, bytes: &[u8]) -> Result<(), WalError> {
        let offset = at.distance_from(self.header.base);
        self.file.write_at(bytes, offset).at("rewriting", &self.path)
    }

    /// Everything written or stored so far is on the disk on return.
    pub(crate) fn sync(&self) -> Result<(), WalError> {
        self.file.sync().at("syncing", &self.path)
    }

    /// Everything stored so far between two positions is on the disk on return.
    pub(crate) fn sync_between(&self, from: Lsn, to: Lsn) -> Result<(), WalError> {
        let size = self.header.size;
        let range = from.max(self.base())..to.min(size.next_base(self.base()));
        let Some(mapping) = self.mapping.as_ref().filter(|_| range.start < range.end) else {
            return self.sync();
        };
        let range = self.offset(range.start)..self.offset(range.end);
        self.file.sync_range(mapping, range).at("syncing", &self.path)
    }

    /// Lets the page cache go of it.
    pub(crate) fn forget_cached(&self) {
        self.file.forget_cached();
    }

    /// Brings all of it into memory, so that nobody who stores to it or reads it waits for that.
    pub(crate) fn make_resident(&self) {
        if let Some(mapping) = &self.mapping {
            let size = usize::try_from(self.header.size.bytes()).unwrap_or(usize::MAX);
            // What can not be read now is met by whoever needs it.
            let _ = mapping.make_resident(0..size);
        }
    }

    /// That something of this segment, at `at`, is damaged although it is below `evidence`.
    pub(crate) fn corrupt(&self, at: Lsn, evidence: Lsn, what: &dyn Display) -> WalError {
        WalError::Corrupt { path: self.path.clone(), at, evidence, what: what.to_string() }
    }
}

fn map_whole(file: &dyn DiskFile, path: &Path, size: u64) -> Result<Arc<Mapping>, WalError> {
    let len = usize::try_from(size).unwrap_or(usize::MAX);
    file.map(len).at("mapping", path)
}

/// Reads and checks a file's header page.
pub(crate) fn read_header(file: &dyn DiskFile, path: &Path) -> Result<SegmentHeader, WalError> {
    let mut page = vec![0; HEADER_PAGE_LEN];
    match file.read_exact_at(&mut page, 0) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => page.clear(),
        read => read.at("reading", path)?,
    }
    SegmentHeader::decode(&page).map_err(|error| match error {
        Ok(version) => {
            WalError::NewerVersion { path: path.to_owned(), version, known: FORMAT_VERSION }
        }
        Err(error) => damaged_header(path, &error),
    })
}

/// A file gets its name only once its header is on the disk, so the header was durable.
fn damaged_header(path: &Path, error: &dyn Display) -> WalError {
    let at = named_base(path).unwrap_or_default();
    let what = format!("its header: {error}");
    let evidence = at.checked_add(SegmentSize::HEADER_LEN).unwrap_or(at);
    WalError::Corrupt { path: path.to_owned(), at, evidence, what }
}

/// Makes a segment's file: its header, and zeros behind it.
pub(crate) fn create(disk: &dyn Disk, path: &Path, header: &SegmentHeader) -> Result<(), WalError> {
    disk.create(path, &header.encode(), header.size.bytes()).at("preparing", path)
}
