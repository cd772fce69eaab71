//! The mapped bytes of a segment: the only unsafe code of the project.
//!
//! A mapping is shared between one writer per byte range and any number of readers. The rule that
//! makes it sound is the log's own: a range is written by whoever reserved it, before it is
//! published, and is read only after it was published; published bytes never change. So no byte
//! is ever written while a reference to it exists.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};

/// A writable shared mapping of a whole segment file.
#[derive(Debug)]
pub(crate) struct Mapping {
    raw: MmapRaw,
}

impl Mapping {
    /// Maps the first `len` bytes of `file`, and makes them resident.
    ///
    /// The file must keep that length while it is mapped: a store behind its end is SIGBUS.
    pub(crate) fn new(file: &File, len: usize) -> std::io::Result<Self> {
        let raw = MmapOptions::new().len(len).map_raw(file)?;
        // Before the first touch: otherwise readahead fills the cache with large folios, and each
        // later store dirties a whole one.
        raw.advise(Advice::Random)?;
        // Residency is a matter of speed; a kernel that can not populate serves faults instead.
        let _ = raw.advise(Advice::PopulateRead);
        Ok(Self { raw })
    }

    /// Stores `bytes` at `offset`. The caller holds the reservation of that range.
    ///
    /// # Panics
    /// If the range is not inside the mapping.
    pub(crate) fn store(&self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len()).expect("a segment is below 2^64 bytes");
        assert!(end <= self.raw.len(), "a store behind the end of the segment");
        // SAFETY: the range is inside the mapping (asserted above), which lives as long as
        // `self`. The caller holds the only reservation of it and nobody holds a reference to
        // unpublished bytes, so this neither races nor invalidates a reference. `bytes` can not
        // overlap it: references into the mapping cover published bytes only.
        unsafe {
            let to = self.raw.as_mut_ptr().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// Published bytes. The caller knows that `range` was published, or that nobody writes yet.
    pub(crate) fn published(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.raw.len(), "a range of the segment");
        // SAFETY: the range is inside the mapping (asserted above) and the mapping lives as long
        // as the borrow of `self`. Published bytes never change again, so the shared reference is
        // never invalidated by a store. The file is never shortened while it is mapped.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr().add(range.start), range.len()) }
    }
}

/// Published bytes that keep their mapping alive.
struct Published {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Published {
    fn as_ref(&self) -> &[u8] {
        self.mapping.published(self.range.clone())
    }
}

/// Published bytes as `Bytes`, without a copy.
pub(crate) fn share(mapping: &Arc<Mapping>, range: Range<usize>) -> Bytes {
    Bytes::from_owner(Published { mapping: Arc::clone(mapping), range })
}
