//! The mapped bytes of a segment: with `reserve`, the only unsafe code of the project.
//!
//! A mapping is shared between one writer per byte range and any number of readers. The rule that
//! makes it sound is the log's own: a range is written by whoever reserved it, before it is
//! published, and is read only after it was published; published bytes never change. So no byte
//! is ever written while a reference to it exists.
#![allow(unsafe_code)]

mod memory;

use std::fs::File;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::io::Errno;

pub(crate) use memory::Sectors;

/// So many bytes are made writable at once: whoever else changes this process's mappings waits for
/// no more than that.
const WRITABLE_STEP: usize = 256 << 10;
/// So much is asked for at once where a whole file is read: no more than a kernel reads ahead
/// unless it is told otherwise, and what is beyond that it would leave out.
const READ_STEP: usize = 128 << 10;
/// A sync of so many bytes takes their pages out of the mapping first. Below, that costs more than
/// it gives.
const UNMAP_MIN: usize = 32 << 10;

/// A writable shared mapping of a whole segment file, or memory that a simulated disk has in the
/// place of one. Only the log looks into it.
#[derive(Debug)]
pub struct Mapping {
    raw: ManuallyDrop<MmapRaw>,
    /// Of memory only: where it was stored to. Held while it is stored to, so that its disk can
    /// look at all of it as the kernel looks at a page that is being written.
    stores: Option<Mutex<Stores>>,
}

/// The sectors of a piece of memory that were stored to.
#[derive(Debug)]
struct Stores {
    ever: Sectors,
    /// Since its disk last looked at them.
    newly: Sectors,
}

impl Mapping {
    /// Maps the first `len` bytes of `file`.
    ///
    /// The file must keep that length while it is mapped: a store behind its end is SIGBUS.
    pub(crate) fn of_file(file: &File, len: usize) -> std::io::Result<Self> {
        let raw = MmapOptions::new().len(len).map_raw(file)?;
        // Before the first touch: otherwise readahead fills the cache with large folios, and each
        // later store dirties a whole one.
        raw.advise(Advice::Random)?;
        Ok(Self { raw: ManuallyDrop::new(raw), stores: None })
    }

    /// Makes what lies in `range` resident.
    ///
    /// The kernel is told to read ahead first: it takes many pages at a time then, although each
    /// lies in memory by itself. Under random advice it would read one by one.
    ///
    /// # Errors
    /// It can not be read: whoever stores to it would be killed.
    pub(crate) fn make_resident(&self, range: Range<usize>) -> std::io::Result<()> {
        if self.stores.is_some() {
            return Ok(());
        }
        for from in range.clone().step_by(READ_STEP) {
            let len = READ_STEP.min(range.end - from);
            let _ = self.raw.advise_range(Advice::WillNeed, from, len);
        }
        match self.raw.advise_range(Advice::PopulateRead, range.start, range.len()) {
            Err(error) if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) => {
                Err(std::io::Error::other("it can not be read back"))
            }
            // A kernel that can not populate serves faults instead.
            _ => Ok(()),
        }
    }

    /// Zeroed memory, with no file behind it.
    pub(crate) fn of_memory(len: usize) -> std::io::Result<Self> {
        let raw = ManuallyDrop::new(memory::zeroed(len)?);
        let stores = Stores { ever: Sectors::none(len), newly: Sectors::none(len) };
        Ok(Self { raw, stores: Some(Mutex::new(stores)) })
    }

    /// Stores `bytes` at `offset`. The caller holds the reservation of that range.
    ///
    /// # Panics
    /// If the range is not inside the mapping.
    pub(crate) fn store(&self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len()).expect("a segment is below 2^64 bytes");
        assert!(end <= self.raw.len(), "a store behind the end of the segment");
        let mut held = self.hold_stores();
        if let Some(stores) = &mut held {
            stores.ever.add(offset..end);
            stores.newly.add(offset..end);
        }
        // SAFETY: the range is inside the mapping (asserted above), which lives as long as
        // `self`. The caller holds the only reservation of it and nobody holds a reference to
        // unpublished bytes, so this neither races nor invalidates a reference. `bytes` can not
        // overlap it: references into the mapping cover published bytes only.
        unsafe {
            let to = self.raw.as_mut_ptr().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// Makes every page ready to be stored to, so that no store waits for the kernel. It takes them
    /// for changed from then on, and writes them if it comes by before they really are.
    pub(crate) fn make_writable(&self) {
        if self.stores.is_some() {
            return;
        }
        for from in (0..self.raw.len()).step_by(WRITABLE_STEP) {
            let len = WRITABLE_STEP.min(self.raw.len() - from);
            // A matter of speed: without it the first store to each page faults.
            if self.raw.advise_range(Advice::PopulateWrite, from, len).is_err() {
                return;
            }
        }
    }

    /// What was stored in `range`, all of it published, is on the disk on return.
    ///
    /// A sync of the file would do the same, and write every page that is only ready to be stored
    /// to as well.
    pub(crate) fn sync(&self, range: Range<usize>) -> std::io::Result<()> {
        if range.len() >= UNMAP_MIN {
            self.unmap_pages(&range);
        }
        self.raw.flush_range(range.start, range.len())
    }

    /// Takes the pages that end in `range` out of the mapping; the page cache keeps them, and who
    /// reads them next gets them from there.
    ///
    /// The kernel takes the right to store away from each page that it writes, and tells every
    /// processor each time. Taken out together, they cost that once.
    pub(crate) fn unmap_pages(&self, range: &Range<usize>) {
        if self.stores.is_some() {
            return;
        }
        let page = crate::header::HEADER_PAGE_LEN;
        let (from, to) = (range.start / page * page, range.end / page * page);
        // SAFETY: `DontNeed` gives up what is in the memory of a process only. This is the shared
        // mapping of a file (`of_file` makes no other), so its pages are the file's own: a change
        // of them is kept, and a later access, also one that runs meanwhile, finds them again.
        let unmapped =
            unsafe { self.raw.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) };
        // A matter of speed: a kernel that does not takes them out one by one.
        drop(unmapped);
    }

    fn hold_stores(&self) -> Option<MutexGuard<'_, Stores>> {
        let stores = self.stores.as_ref();
        stores.map(|stores| stores.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at all of the memory, while nobody stores to it.
    ///
    /// # Panics
    /// If it is the mapping of a file.
    pub(crate) fn inspect<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        self.inspect_stored(|all, _| look(all))
    }

    /// The same, with the sectors that were stored to since `look` last took them off the list.
    pub(crate) fn inspect_stored<R>(&self, look: impl FnOnce(&[u8], &mut Sectors) -> R) -> R {
        let mut held = self.hold_stores().expect("only memory can be looked at as a whole");
        // SAFETY: the range is the whole mapping, which lives as long as `self`. Every store to
        // memory takes the lock that is held until `look` has given the reference back.
        let all = unsafe { std::slice::from_raw_parts(self.raw.as_ptr(), self.raw.len()) };
        look(all, &mut held.newly)
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

impl Drop for Mapping {
    /// Memory is used again: simulations open logs by the million.
    fn drop(&mut self) {
        // SAFETY: it is taken nowhere else, and not looked at again.
        let raw = unsafe { ManuallyDrop::take(&mut self.raw) };
        if let Some(stores) = &mut self.stores {
            let stores = stores.get_mut().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the range is the whole mapping, and nobody else has it any more.
            let all = unsafe { std::slice::from_raw_parts_mut(raw.as_mut_ptr(), raw.len()) };
            stores.ever.zero(all);
            memory::keep(raw);
        }
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
