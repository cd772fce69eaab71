//! Damage of several sectors at once, as disks do it: sectors that read as zeros, that changed
//! places, that hold what they held before, or what was meant for another place.

use std::path::PathBuf;
use std::sync::Arc;

use super::specimen::{Content, Specimen, is_segment};
use crate::random::Random;

const SECTOR_LEN: usize = 512;
/// At most so many things happen to one log.
const AT_ONCE: usize = 4;
/// At most so many sectors in a row are hit by one.
const IN_A_ROW: usize = 4;

/// Damages a specimen as `seed` says; the files that changed.
pub(super) fn damaged(specimen: &Specimen, seed: u64) -> Vec<(PathBuf, Content)> {
    let mut random = Random::new(seed);
    let segments = specimen.files.iter().filter(|(path, _)| is_segment(path));
    let mut files: Vec<_> =
        segments.map(|(path, content)| (path.clone(), Arc::clone(content))).collect();
    for _ in 0..=random.below(AT_ONCE) {
        hit(specimen, &mut files, &mut random);
    }
    files.retain(|(path, content)| specimen.files[path] != *content);
    files
}

fn hit(specimen: &Specimen, files: &mut [(PathBuf, Content)], random: &mut Random) {
    let (to, at, len) = place(files, random);
    let end = at + len;
    match random.below(5) {
        0 => Arc::make_mut(&mut files[to].1)[at..end].fill(0),
        1 => {
            let (from, other) = (random.below(files.len()), sector(files, random));
            let other = other.min(files[from].1.len() - len);
            let (one, two) =
                (files[to].1[at..end].to_vec(), files[from].1[other..other + len].to_vec());
            Arc::make_mut(&mut files[to].1)[at..end].copy_from_slice(&two);
            Arc::make_mut(&mut files[from].1)[other..other + len].copy_from_slice(&one);
        }
        2 => {
            let stale: Vec<_> =
                specimen.stale.iter().filter(|(path, _)| *path == files[to].0).collect();
            if !stale.is_empty() {
                let (_, before) = stale[random.below(stale.len())];
                Arc::make_mut(&mut files[to].1)[at..end].copy_from_slice(&before[at..end]);
            }
        }
        3 => {
            let (from, other) = (random.below(files.len()), sector(files, random));
            let meant = files[from].1[other.min(files[from].1.len() - len)..][..len].to_vec();
            Arc::make_mut(&mut files[to].1)[at..end].copy_from_slice(&meant);
        }
        _ => {
            let content = Arc::make_mut(&mut files[to].1);
            content[at + random.below(len)] ^= 1 << random.below(8);
        }
    }
}

/// A file, and some sectors of it.
fn place(files: &[(PathBuf, Content)], random: &mut Random) -> (usize, usize, usize) {
    let (file, at) = (random.below(files.len()), sector(files, random));
    let len = SECTOR_LEN * (1 + random.below(IN_A_ROW));
    (file, at, len.min(files[file].1.len() - at))
}

fn sector(files: &[(PathBuf, Content)], random: &mut Random) -> usize {
    random.below(files[0].1.len() / SECTOR_LEN) * SECTOR_LEN
}
