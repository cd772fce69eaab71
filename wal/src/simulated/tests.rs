//! What the disk promises, and what it does not.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::SimDisk;
use crate::disk::{Access, Disk};

const SEEDS: u64 = 64;
const LEN: usize = 16 << 10;

/// A disk with one file, `/d/one.wal`, all of it durable.
fn with_file(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.create(Path::new("/d/one.wal"), b"header", LEN as u64).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn one(disk: &SimDisk) -> Vec<u8> {
    disk.read(Path::new("/d/one.wal"), u64::MAX).unwrap()
}

fn names(disk: &SimDisk, dir: &str) -> Vec<String> {
    let paths = disk.list(Path::new(dir)).unwrap();
    paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_power_cut_leaves_every_sector_old_or_new_and_a_sync_leaves_it_new() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = with_file(seed);
        let file = disk.open(Path::new("/d/one.wal"), Access::ReadWrite).unwrap();
        let mapping = file.map(LEN).unwrap();
        mapping.store(4_096, &[1; 4_096]);
        file.sync().unwrap();
        mapping.store(4_096, &[2; 2_048]);
        file.write_at(&[2; 2_048], 6_144).unwrap();
        assert_eq!(one(&disk)[4_096..8_192], [2; 4_096], "calls and mappings see one cache");
        disk.power_cut();
        assert!(file.len().is_err() && file.sync().is_err(), "the old file is dead");
        let found = one(&disk);
        assert_eq!((&found[..6], &found[8_192..]), (&b"header"[..], &[0; 8_192][..]));
        for sector in found[4_096..8_192].chunks(512) {
            assert!(sector == [1; 512] || sector == [2; 512], "half a sector");
            seen.insert((sector[0], found[4_096] != found[7_680]));
        }
    }
    assert_eq!(seen.len(), 4, "old and new sectors, alone and mixed");
}

#[test]
fn a_kill_keeps_the_cache_and_what_the_dead_store_reaches_nobody() {
    let disk = with_file(1);
    let file = disk.open(Path::new("/d/one.wal"), Access::ReadWrite).unwrap();
    let mapping = file.map(LEN).unwrap();
    mapping.store(4_096, b"cached");
    disk.kill();
    mapping.store(8_192, b"grave");
    assert_eq!(one(&disk)[4_096..4_102], *b"cached");
    assert_eq!(one(&disk)[8_192..8_197], [0; 5]);
    let file = disk.open(Path::new("/d/one.wal"), Access::ReadWrite).unwrap();
    assert_eq!(file.map(LEN).unwrap().published(4_096..4_102), b"cached");
    assert_eq!(disk.files()[0].1[4_096..4_102], [0; 6], "nobody has synced it");
    file.sync().unwrap();
    assert_eq!(disk.files()[0].1[4_096..4_102], *b"cached");
}

#[test]
fn a_failed_sync_leaves_bytes_that_only_writing_again_takes_to_the_disk() {
    let mut missed = 0;
    for seed in 0..SEEDS {
        let disk = with_file(seed);
        let file = disk.open(Path::new("/d/one.wal"), Access::ReadWrite).unwrap();
        file.write_at(&[1; 512], 4_096).unwrap();
        disk.fail_syncs(1);
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
        file.sync().unwrap();
        assert_eq!(one(&disk)[4_096..4_608], [1; 512], "the cache shows it");
        missed += u64::from(disk.files()[0].1[4_096] == 0);
        file.write_at(&[1; 16], 4_112).unwrap();
        file.sync().unwrap();
        disk.power_cut();
        assert_eq!(one(&disk)[4_096..4_608], [1; 512], "it was written again");
    }
    assert!((SEEDS / 4..SEEDS).contains(&missed), "{missed} of {SEEDS} were missed");
}

#[test]
fn a_sync_of_a_range_takes_its_pages_to_the_disk_and_no_others() {
    let disk = with_file(1);
    let file = disk.open(Path::new("/d/one.wal"), Access::ReadWrite).unwrap();
    let mapping = file.map(LEN).unwrap();
    mapping.store(4_000, &[1; 10_000]);
    file.sync_range(&mapping, 5_000..8_193).unwrap();
    let durable = disk.files()[0].1.to_vec();
    assert_eq!(durable[4_096..12_288], [1; 8_192]);
    assert_eq!((durable[4_095], durable[12_288]), (0, 0));
    file.sync().unwrap();
    assert_eq!(disk.files()[0].1[4_000..14_000], [1; 10_000]);
}

#[test]
fn a_name_is_durable_once_its_folder_is_synced_and_older_changes_come_first() {
    let mut kept = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = with_file(seed);
        disk.write(Path::new("/d/synced"), b"").unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        for name in ["/d/a", "/d/b", "/d/c"] {
            disk.write(Path::new(name), b"content").unwrap();
        }
        disk.power_cut();
        let found = names(&disk, "/d");
        assert!(found.contains(&"synced".to_owned()));
        let new: String = found.concat().replace("one.wal", "").replace("synced", "");
        assert!("abc".starts_with(&new), "{new} is not the oldest");
        kept.insert(new);
        assert!(disk.files().iter().all(|(path, content)| path.ends_with("one.wal")
            || path.ends_with("synced")
            || content == b"content"));
    }
    assert_eq!(kept.len(), 4, "{kept:?}");
}

#[test]
fn a_move_between_folders_is_in_both_or_in_neither() {
    let mut places = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = with_file(seed);
        disk.create_dir_all(Path::new("/d/kept")).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.rename(Path::new("/d/one.wal"), Path::new("/d/kept/one.wal")).unwrap();
        if seed % 2 == 0 {
            disk.sync_dir(Path::new("/d/kept")).unwrap();
        }
        disk.power_cut();
        let is_here = names(&disk, "/d").contains(&"one.wal".to_owned());
        assert_ne!(is_here, names(&disk, "/d/kept").contains(&"one.wal".to_owned()));
        assert!(seed % 2 == 1 || !is_here);
        places.insert(is_here);
    }
    assert_eq!(places.len(), 2);
}

#[test]
fn a_folder_whose_name_is_lost_takes_everything_in_it_along() {
    let lost = (0..SEEDS).filter(|&seed| {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.write(Path::new("/d/a"), b"a").unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.power_cut();
        disk.list(Path::new("/d")).is_err() && disk.files().is_empty()
    });
    assert!((1..SEEDS as usize).contains(&lost.count()));
}

#[test]
fn two_names_are_one_file_until_both_are_gone() {
    let disk = with_file(1);
    let (here, there) = (Path::new("/d/one.wal"), Path::new("/d/two.wal"));
    disk.hard_link(here, there).unwrap();
    let taken = disk.hard_link(here, there).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    disk.open(here, Access::ReadWrite).unwrap().write_at(b"both", 512).unwrap();
    disk.remove(here).unwrap();
    assert_eq!(disk.read(there, 1 << 20).unwrap()[512..516], *b"both");
    disk.remove(there).unwrap();
    let gone = disk.open(there, Access::Read).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_lock_is_held_until_it_is_dropped_or_its_holder_dies() {
    let disk = with_file(1);
    let path = Path::new("/d/lock");
    let first = disk.lock(path).unwrap();
    assert_eq!(disk.lock(path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    disk.kill();
    let second = disk.lock(path).unwrap();
    drop(first);
    assert_eq!(disk.lock(path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(second);
    assert!(disk.lock(path).is_ok());
}

#[test]
fn a_process_dies_in_the_call_it_was_told_to_and_does_nothing_more() {
    let disk = with_file(1);
    disk.die_after(1);
    disk.write(Path::new("/d/a"), b"a").unwrap();
    assert!(!disk.is_dead());
    assert!(disk.write(Path::new("/d/b"), b"b").is_err());
    assert!(disk.is_dead());
    assert!(disk.list(Path::new("/d")).is_err() && disk.sync_dir(Path::new("/d")).is_err());
    disk.kill();
    assert!(names(&disk, "/d").contains(&"a".to_owned()));
    disk.write(Path::new("/d/c"), b"c").unwrap();
}

#[test]
fn rot_is_met_once_the_file_is_no_longer_mapped() {
    for seed in 0..SEEDS {
        let disk = with_file(seed);
        let file = disk.open(Path::new("/d/one.wal"), Access::ReadWrite).unwrap();
        let mapping = file.map(LEN).unwrap();
        let before = one(&disk);
        let (path, offset) = disk.rot(".wal", seed).unwrap();
        assert_eq!((path.as_path(), offset < 512), (Path::new("/d/one.wal"), true));
        assert_eq!(one(&disk), before, "the mapping stays as it was");
        file.sync().unwrap();
        drop(mapping);
        let after = one(&disk);
        assert_ne!(after[offset as usize], before[offset as usize], "and a sync mends nothing");
        let differing = before.iter().zip(&after).filter(|(one, two)| one != two);
        assert_eq!(differing.count(), 1);
    }
    assert!(with_file(1).rot("two.wal", 1).is_none());
}

#[test]
fn a_full_disk_takes_nothing_new() {
    let disk = with_file(1);
    disk.set_full(true);
    let refused = disk.create(Path::new("/d/a"), b"", 512).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    let refused = disk.write(Path::new("/d/a"), b"a").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    disk.set_full(false);
    disk.write(Path::new("/d/a"), b"a").unwrap();
}

#[test]
fn an_outage_leaves_exactly_what_is_chosen_and_the_disk_goes_on() {
    let disk = with_file(1);
    let file = disk.open(Path::new("/d/one.wal"), Access::ReadWrite).unwrap();
    file.write_at(&[1; 1_536], 4_096).unwrap();
    disk.write(Path::new("/d/a"), b"a").unwrap();
    disk.write(Path::new("/d/b"), b"b").unwrap();
    let outage = disk.outage();
    assert_eq!((outage.sectors(), outage.changes()), (3, 2));
    for kept in 0..8_u8 {
        let left = outage.leave(9, |sector| kept >> sector & 1 == 1, |change| change == 0);
        let found = one(&left);
        for (sector, bytes) in found[4_096..5_632].chunks(512).enumerate() {
            assert_eq!(bytes, [kept >> sector & 1; 512]);
        }
        assert_eq!(names(&left, "/d"), ["a", "one.wal"]);
    }
    assert_eq!(outage.kept_changes(|change| change == 1), [false, false], "the older is first");
    assert_eq!(names(&outage.leave(9, |_| true, |change| change == 1), "/d"), ["one.wal"]);
    let dead = outage.kill(9);
    assert_eq!((one(&dead)[4_096], names(&dead, "/d").len()), (1, 3), "the cache stays");
    assert_eq!((dead.outage().sectors(), dead.outage().changes()), (3, 2), "and is not durable");
    file.sync().unwrap();
    let later = disk.outage();
    assert_eq!((outage.sectors(), later.sectors()), (3, 0), "it is of that moment");
}

#[test]
fn every_moment_at_which_the_power_might_fail_is_recorded() {
    let disk = with_file(1);
    disk.record_outages();
    disk.write(Path::new("/d/a"), b"a").unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    let moments: Vec<_> =
        disk.take_outages().iter().map(|outage| (outage.sectors(), outage.changes())).collect();
    // Before it, when it is named and not written, and when it is written and not named.
    assert_eq!(moments, [(0, 0), (1, 1), (0, 1)]);
    assert!(disk.take_outages().is_empty());
}

#[test]
fn a_disk_holds_the_files_it_is_made_of() {
    let content = std::sync::Arc::new(vec![7; 600]);
    let files = [("/d/e/one.wal".into(), std::sync::Arc::clone(&content))];
    let disk = SimDisk::holding(1, files).unwrap();
    disk.power_cut();
    assert_eq!(disk.files(), [("/d/e/one.wal".into(), content.to_vec())]);
    assert_eq!(names(&disk, "/d"), ["e"]);
}

#[test]
fn the_sync_that_was_chosen_fails_and_no_other() {
    let disk = with_file(1);
    let file = disk.open(Path::new("/d/one.wal"), Access::ReadWrite).unwrap();
    disk.fail_sync_behind(2);
    let fails: Vec<_> = (0..4).map(|_| file.sync().is_err()).collect();
    assert_eq!(fails, [false, false, true, false]);
}
