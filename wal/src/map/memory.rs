//! Memory for simulated disks: where it was written, and how it is used again.

use std::cell::RefCell;
use std::ops::Range;

use memmap2::{MmapOptions, MmapRaw};

use crate::simulated::SECTOR_LEN;

/// A thread keeps so many pieces of memory that nobody uses, and none that is longer.
const KEPT_MAX: usize = 64;
const KEPT_LEN_MAX: usize = 256 << 10;

thread_local! {
    static KEPT: RefCell<Vec<MmapRaw>> = const { RefCell::new(Vec::new()) };
}

/// A piece of `len` zeroed bytes.
pub(super) fn zeroed(len: usize) -> std::io::Result<MmapRaw> {
    let kept = KEPT.with_borrow_mut(|kept| {
        let at = kept.iter().rposition(|memory| memory.len() == len)?;
        Some(kept.swap_remove(at))
    });
    match kept {
        Some(memory) => Ok(memory),
        None => Ok(MmapOptions::new().len(len).map_anon()?.into()),
    }
}

/// Keeps a piece, zeroed, for the next one who needs one of its length.
pub(super) fn keep(memory: MmapRaw) {
    if memory.len() > KEPT_LEN_MAX {
        return;
    }
    // A thread that ends has no list any more; the piece is unmapped.
    let _ = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(memory);
        }
    });
}

/// A set of sectors of a piece of memory.
#[derive(Debug)]
pub(crate) struct Sectors(Box<[u64]>);

impl Sectors {
    pub(super) fn none(len: usize) -> Self {
        Self(vec![0; len.div_ceil(SECTOR_LEN).div_ceil(64)].into())
    }

    /// Adds every sector that a range of bytes touches.
    pub(crate) fn add(&mut self, bytes: Range<usize>) {
        let end = if bytes.is_empty() { 0 } else { bytes.end.div_ceil(SECTOR_LEN) };
        for sector in bytes.start / SECTOR_LEN..end {
            self.0[sector / 64] |= 1 << (sector % 64);
        }
    }

    /// Takes off the list those for which `stays` is false. They come in order.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(usize) -> bool) {
        for (at, word) in self.0.iter_mut().enumerate() {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                if !stays(at * 64 + bit as usize) {
                    *word &= !(1 << bit);
                }
            }
        }
    }

    /// Zeroes them in `memory`.
    pub(super) fn zero(&mut self, memory: &mut [u8]) {
        self.retain(|sector| {
            let from = sector * SECTOR_LEN;
            let to = memory.len().min(from + SECTOR_LEN);
            memory[from..to].fill(0);
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_touches_every_sector_it_reaches_into() {
        let mut sectors = Sectors::none(70 * SECTOR_LEN);
        sectors.add(SECTOR_LEN - 1..SECTOR_LEN + 1);
        sectors.add(65 * SECTOR_LEN..66 * SECTOR_LEN);
        sectors.add(9 * SECTOR_LEN..9 * SECTOR_LEN);
        let mut seen = Vec::new();
        sectors.retain(|sector| {
            seen.push(sector);
            sector == 65
        });
        assert_eq!(seen, [0, 1, 65]);
        sectors.retain(|sector| sector == 65 || panic!("{sector} was taken off"));
    }

    #[test]
    fn memory_that_is_used_again_is_blank() {
        let len = 3 * SECTOR_LEN;
        for round in 0..KEPT_MAX {
            let memory = crate::map::Mapping::of_memory(len).unwrap();
            assert!(memory.inspect(|all| all.iter().all(|byte| *byte == 0)), "round {round}");
            memory.store(SECTOR_LEN - 3, &[7; SECTOR_LEN]);
        }
    }
}
