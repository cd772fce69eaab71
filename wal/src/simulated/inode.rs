//! A file's bytes: what the page cache shows, and what the disk holds.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::SECTOR_LEN;
use super::random::Random;
use crate::map::Mapping;
use crate::scan::is_blank;

/// The unit the page cache writes, in bytes.
const PAGE_LEN: usize = 4096;

/// The content of a file, whatever its names.
#[derive(Default)]
pub(super) struct Inode {
    /// Shared with every copy of the file until one of them changes.
    durable: Arc<Vec<u8>>,
    /// What calls and mappings see; `None` while it is what the disk holds.
    cache: Option<Arc<Mapping>>,
    /// Sectors that the kernel believes to be on the disk and that are not, as they were when it
    /// began to believe so.
    believed: BTreeMap<usize, Vec<u8>>,
    /// Sectors whose cached bytes are dropped as soon as nobody has the file mapped.
    dropped: Vec<usize>,
}

impl fmt::Debug for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inode").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Inode {
    pub(super) fn len(&self) -> usize {
        self.durable.len()
    }

    pub(super) fn durable(&self) -> &Arc<Vec<u8>> {
        &self.durable
    }

    /// A file that holds this, on the disk.
    pub(super) fn holding(durable: Arc<Vec<u8>>) -> Self {
        Self { durable, ..Self::default() }
    }

    /// The sectors that a power cut may take or leave, and their newer bytes.
    pub(super) fn unsynced(&self) -> Vec<(usize, Vec<u8>)> {
        let Some(cache) = &self.cache else { return Vec::new() };
        cache.inspect_stored(|all, stored| {
            let mut unsynced = Vec::new();
            stored.retain(|sector| {
                let from = sector * SECTOR_LEN;
                let to = all.len().min(from + SECTOR_LEN);
                let new = &all[from..to];
                let is_believed = self.believed.get(&sector).is_some_and(|then| then == new);
                let differs = *new != self.durable[from..to] && !is_believed;
                if differs {
                    unsynced.push((sector, new.to_vec()));
                }
                differs
            });
            unsynced
        })
    }

    /// A sector reaches the disk.
    pub(super) fn reach(&mut self, sector: usize, new: &[u8]) {
        let from = sector * SECTOR_LEN;
        Arc::make_mut(&mut self.durable)[from..from + new.len()].copy_from_slice(new);
        self.believed.remove(&sector);
    }

    /// Forgets everything, and takes `content` and then zeros, up to `len` bytes, into the cache.
    pub(super) fn fill(&mut self, content: &[u8], len: usize) {
        *self = Self::holding(Arc::new(vec![0; len]));
        if !content.is_empty() {
            self.write_at(content, 0);
        }
    }

    /// As [`Inode::fill`], and all of it is on the disk.
    pub(super) fn fill_durable(&mut self, content: &[u8], len: usize) {
        let mut durable = Vec::with_capacity(len);
        durable.extend_from_slice(content);
        durable.resize(len, 0);
        *self = Self::holding(Arc::new(durable));
    }

    pub(super) fn read_at(&mut self, bytes: &mut [u8], offset: usize) -> usize {
        self.drop_rotten();
        let from = offset.min(self.len());
        let len = bytes.len().min(self.len() - from);
        let mut copy = |all: &[u8]| bytes[..len].copy_from_slice(&all[from..from + len]);
        match &self.cache {
            Some(cache) => cache.inspect(copy),
            None => copy(&self.durable),
        }
        len
    }

    /// Writes into the cache. The sectors count as changed even if the bytes are the same, but
    /// only bytes that differ are stored: nobody may see a published byte change.
    pub(super) fn write_at(&mut self, bytes: &[u8], offset: usize) {
        let cache = self.cached();
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let sector = at / SECTOR_LEN;
            let (part, behind) = rest.split_at(rest.len().min((sector + 1) * SECTOR_LEN - at));
            let differs = cache.inspect_stored(|all, stored| {
                stored.add(at..at + part.len());
                all[at..at + part.len()] != *part
            });
            if differs {
                cache.store(at, part);
            }
            self.believed.remove(&sector);
            at += part.len();
            rest = behind;
        }
    }

    /// The cache, as memory that can be mapped.
    pub(super) fn cached(&mut self) -> Arc<Mapping> {
        self.drop_rotten();
        let durable = &self.durable;
        Arc::clone(self.cache.get_or_insert_with(|| Arc::new(in_memory(durable))))
    }

    /// Takes every changed sector for which `reaches` says so to the disk; the others it does not
    /// take, even if the kernel believes that it did.
    fn write_back(
        &mut self,
        range: &Range<usize>,
        mut reaches: impl FnMut() -> bool,
        kernel_believes: bool,
    ) {
        // Whole pages, as far as they are changed.
        let from = range.start - range.start % PAGE_LEN;
        let to = range.end.checked_next_multiple_of(PAGE_LEN).unwrap_or(usize::MAX);
        for (sector, new) in self.unsynced() {
            if !(from..to).contains(&(sector * SECTOR_LEN)) {
                continue;
            }
            if reaches() {
                self.reach(sector, &new);
            } else if kernel_believes {
                self.believed.insert(sector, new);
            }
        }
    }

    /// A sync that succeeds.
    pub(super) fn sync(&mut self, range: &Range<usize>) {
        self.write_back(range, || true, false);
    }

    /// A sync that fails, and that the kernel takes for done.
    pub(super) fn fail_sync(&mut self, range: &Range<usize>, random: &mut Random) {
        let newest = random.below(4);
        self.write_back(range, || random.below(4) < newest, true);
    }

    /// Some changed sectors reach the disk, unasked.
    pub(super) fn write_some_back(&mut self, random: &mut Random) {
        let newest = random.below(5);
        self.write_back(&(0..usize::MAX), || random.below(4) < newest, false);
    }

    /// The power fails: the cache is gone.
    pub(super) fn power_cut(&mut self, random: &mut Random) {
        self.write_some_back(random);
        self.cache = None;
        self.believed.clear();
        self.dropped.clear();
    }

    /// Whoever has the file mapped writes into memory of its own from now on.
    pub(super) fn detach(&mut self) {
        if let Some(cache) = &mut self.cache {
            if Arc::strong_count(cache) > 1 {
                let copy = cache.inspect(in_memory);
                copy.inspect_stored(|all, stored| stored.add(0..all.len()));
                *cache = Arc::new(copy);
            }
        }
        self.drop_rotten();
    }

    /// Flips a bit on the disk, in a sector that is as the cache has it, if there is one, rather
    /// in one that is not blank. Returns the byte's offset.
    pub(super) fn rot(&mut self, random: &mut Random) -> Option<usize> {
        let clean = self.clean_sectors();
        let is_unwritten = |sector: &usize| {
            let sector = self.durable.chunks(SECTOR_LEN).nth(*sector);
            sector.is_none_or(is_blank)
        };
        let written: Vec<_> =
            clean.iter().copied().filter(|sector| !is_unwritten(sector)).collect();
        let among = if written.is_empty() { clean } else { written };
        if among.is_empty() {
            return None;
        }
        let sector = among[random.pick(among.len())];
        let from = sector * SECTOR_LEN;
        let offset = from + random.pick(SECTOR_LEN.min(self.len() - from));
        let to = (from + SECTOR_LEN).min(self.len());
        if self.cache.is_some() {
            self.believed.insert(sector, self.durable[from..to].to_vec());
            self.dropped.push(sector);
        }
        Arc::make_mut(&mut self.durable)[offset] ^= 1 << random.below(8);
        self.drop_rotten();
        Some(offset)
    }

    fn clean_sectors(&self) -> Vec<usize> {
        let all = 0..self.len().div_ceil(SECTOR_LEN);
        let Some(cache) = &self.cache else { return all.collect() };
        cache.inspect(|bytes| {
            let pairs = bytes.chunks(SECTOR_LEN).zip(self.durable.chunks(SECTOR_LEN));
            all.zip(pairs).filter(|(_, (new, old))| new == old).map(|(sector, _)| sector).collect()
        })
    }

    fn drop_rotten(&mut self) {
        if self.dropped.is_empty() {
            return;
        }
        let Some(cache) = &self.cache else { return };
        // Nobody may see a published byte change: a mapping that is held stays as it is.
        if Arc::strong_count(cache) > 1 {
            return;
        }
        for sector in std::mem::take(&mut self.dropped) {
            let from = sector * SECTOR_LEN;
            let to = (from + SECTOR_LEN).min(self.durable.len());
            let is_clean = self
                .believed
                .remove(&sector)
                .is_some_and(|then| cache.inspect(|all| all[from..to] == *then));
            if is_clean {
                cache.store(from, &self.durable[from..to]);
            }
        }
    }
}

/// Memory with this content. Blank pages are not touched, so that they cost nothing.
fn in_memory(content: &[u8]) -> Mapping {
    const PAGE_LEN: usize = 4096;
    // A mapping of nothing is an error.
    let memory = Mapping::of_memory(content.len().max(1)).expect("there is memory for the test");
    for (at, page) in content.chunks(PAGE_LEN).enumerate() {
        if !is_blank(page) {
            memory.store(at * PAGE_LEN, page);
        }
    }
    memory
}
