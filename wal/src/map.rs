//! The mapped bytes of a segment: the only unsafe code of the project.
//!
//! A mapping is shared between one writer per byte range and any number of readers. The rule that
//! makes it sound is the log's own: a range is written by whoever reserved it, before it is
//! published, and is read only after it was published; published bytes never change. So no byte
//! is ever written while a reference to it exists.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};

/// A writable shared mapping of a whole segment file, or memory that a simulated disk has in the
/// place of one. Only the log looks into it.
#[derive(Debug)]
pub struct Mapping {
    raw: Raw,
    /// Of memory only: held while it is stored to, so that its disk can look at all of it as the
    /// kernel looks at a page that is being written.
    stores: Option<Mutex<()>>,
}

/// Where the bytes lie.
#[derive(Debug)]
enum Raw {
    File(MmapRaw),
    Memory(Memory),
}

impl Raw {
    fn start(&self) -> *mut u8 {
        match self {
            Self::File(mapped) => mapped.as_mut_ptr(),
            Self::Memory(memory) => memory.0.as_ptr().cast(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::File(mapped) => mapped.len(),
            Self::Memory(memory) => memory.0.len(),
        }
    }
}

/// Memory of the allocator, which gives out again what was freed: tests make mappings by the
/// million, and new ones of the kernel would each be faulted in page by page.
#[derive(Debug)]
struct Memory(NonNull<[u8]>);

impl Memory {
    fn zeroed(len: usize) -> Self {
        let bytes = Box::leak(vec![0; len].into_boxed_slice());
        Self(NonNull::from(bytes))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the pointer is of a `Box<[u8]>` that `zeroed` gave up, and nothing else frees it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

// SAFETY: the memory is owned, and bytes may be freed by any thread.
unsafe impl Send for Memory {}
// SAFETY: it is only reached through `Mapping`, whose rule keeps threads apart: see the module.
unsafe impl Sync for Memory {}

impl Mapping {
    /// Maps the first `len` bytes of `file`, and makes them resident.
    ///
    /// The file must keep that length while it is mapped: a store behind its end is SIGBUS.
    pub(crate) fn of_file(file: &File, len: usize) -> std::io::Result<Self> {
        let raw = MmapOptions::new().len(len).map_raw(file)?;
        // Before the first touch: otherwise readahead fills the cache with large folios, and each
        // later store dirties a whole one.
        raw.advise(Advice::Random)?;
        // Residency is a matter of speed; a kernel that can not populate serves faults instead.
        let _ = raw.advise(Advice::PopulateRead);
        Ok(Self { raw: Raw::File(raw), stores: None })
    }

    /// Zeroed memory, with no file behind it.
    pub(crate) fn of_memory(len: usize) -> Self {
        Self { raw: Raw::Memory(Memory::zeroed(len)), stores: Some(Mutex::new(())) }
    }

    /// Stores `bytes` at `offset`. The caller holds the reservation of that range.
    ///
    /// # Panics
    /// If the range is not inside the mapping.
    pub(crate) fn store(&self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len()).expect("a segment is below 2^64 bytes");
        assert!(end <= self.raw.len(), "a store behind the end of the segment");
        let _held = self.hold_stores();
        // SAFETY: the range is inside the mapping (asserted above), which lives as long as
        // `self`. The caller holds the only reservation of it and nobody holds a reference to
        // unpublished bytes, so this neither races nor invalidates a reference. `bytes` can not
        // overlap it: references into the mapping cover published bytes only.
        unsafe {
            let to = self.raw.start().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    fn hold_stores(&self) -> Option<std::sync::MutexGuard<'_, ()>> {
        let stores = self.stores.as_ref();
        stores.map(|stores| stores.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at all of the memory, while nobody stores to it.
    ///
    /// # Panics
    /// If it is the mapping of a file.
    pub(crate) fn inspect<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        let _held = self.hold_stores().expect("only memory can be looked at as a whole");
        // SAFETY: the range is the whole mapping, which lives as long as `self`. Every store to
        // memory takes the lock that is held until `look` has given the reference back.
        look(unsafe { std::slice::from_raw_parts(self.raw.start(), self.raw.len()) })
    }

    /// Published bytes. The caller knows that `range` was published, or that nobody writes yet.
    pub(crate) fn published(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.raw.len(), "a range of the segment");
        // SAFETY: the range is inside the mapping (asserted above) and the mapping lives as long
        // as the borrow of `self`. Published bytes never change again, so the shared reference is
        // never invalidated by a store. The file is never shortened while it is mapped.
        unsafe { std::slice::from_raw_parts(self.raw.start().add(range.start), range.len()) }
    }
}

/// Published bytes that keep their mapping alive.
struct Published {
    mapping: Arc<Mapping>,
    range: Range<usize>,
    /// Counts, for whoever handed the bytes out, how many of them are still held.
    _pin: Option<Arc<()>>,
}

impl AsRef<[u8]> for Published {
    fn as_ref(&self) -> &[u8] {
        self.mapping.published(self.range.clone())
    }
}

/// Published bytes as `Bytes`, without a copy.
pub(crate) fn share(mapping: &Arc<Mapping>, range: Range<usize>, pin: Option<Arc<()>>) -> Bytes {
    Bytes::from_owner(Published { mapping: Arc::clone(mapping), range, _pin: pin })
}
