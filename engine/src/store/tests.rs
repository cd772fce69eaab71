use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::effects::{Effect, Effects};
use crate::testing::{Numbers, put};

/// Small memtables, so that a test sees many flushes.
const SMALL: StoreOptions = StoreOptions { memtable_bytes: 32 << 10, cache_bytes: 1 << 20 };

fn lsn(end: u64) -> Lsn {
    Lsn::new(end)
}

/// Deterministic records, and the keys each of them leaves.
fn records(seed: u64, count: u64) -> Vec<(Vec<u8>, BTreeMap<Bytes, Bytes>)> {
    let mut numbers = Numbers::new(seed);
    let mut state = BTreeMap::new();
    let one = |_| {
        let before = state.len() as i64;
        let mut effects = Effects::default();
        for _ in 0..=numbers.below(3) {
            let key = Bytes::from(format!("key-{}", numbers.below(200)));
            if numbers.below(4) == 0 {
                state.remove(&key);
                effects.push(Effect::Delete { key });
            } else {
                let value = Bytes::from(vec![b'v'; numbers.below(300) as usize]);
                state.insert(key.clone(), value.clone());
                effects.push(Effect::Put { key, value, expires_at_ms: None });
            }
        }
        (effects.encode(7, state.len() as i64 - before), state.clone())
    };
    (0..count).map(one).collect()
}

fn contents(store: &Store) -> BTreeMap<Bytes, Bytes> {
    let entries = store.view().entries().map(|entry| {
        let (key, stored) = entry.unwrap();
        (key, Value::decode(&stored).unwrap().bytes)
    });
    entries.collect()
}

#[test]
fn a_new_store_is_empty_and_stays_what_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!((store.applied(), store.len()), (Lsn::ZERO, 0));
    assert_eq!(store.get(b"k").unwrap(), None);
    store.apply(lsn(10), &put("k", "v", 1)).unwrap();
    assert_eq!(&*store.get(b"k").unwrap().unwrap().bytes, b"v");
    assert_eq!(store.persist().unwrap(), lsn(10));
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!((store.applied(), store.persisted(), store.len()), (lsn(10), lsn(10), 1));
    assert_eq!(&*store.get(b"k").unwrap().unwrap().bytes, b"v");
    assert_eq!(store.view().effect_time_ms(), 1);
}

#[test]
fn a_record_is_applied_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.apply(lsn(10), &put("k", "v", 1)).unwrap();
    for end in [10, 9] {
        assert!(store.apply(lsn(end), &put("k", "w", 0)).is_err());
    }
    assert!(store.apply(lsn(11), b"garbage").is_err());
    assert!(store.apply(lsn(11), &Effects::default().encode(0, 0)).is_ok());
    let mut gone = Effects::default();
    for key in [&b"a"[..], b"b"] {
        gone.push(Effect::Delete { key: Bytes::from_static(key) });
    }
    assert!(store.apply(lsn(12), &gone.encode(0, -2)).is_err(), "fewer keys than none");
    assert_eq!((store.applied(), store.len()), (lsn(11), 1));
    assert_eq!(&*store.get(b"k").unwrap().unwrap().bytes, b"v");
}

#[test]
fn a_crash_leaves_the_state_as_of_one_record_and_replay_brings_back_the_rest() {
    let records = records(1, 4_000);
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = Numbers::new(2);
    let (mut crashes, mut kept) = (0, 0);
    loop {
        let store = Store::open_with(dir.path(), SMALL).unwrap();
        let applied = store.applied().get() as usize;
        let state = applied.checked_sub(1).map_or_else(BTreeMap::new, |at| records[at].1.clone());
        assert_eq!(store.len(), state.len() as u64);
        assert_eq!(contents(&store), state, "as of {applied}");
        kept += usize::from(applied > 0);
        let until = records.len().min(applied + 600 + numbers.below(300) as usize);
        for (at, (payload, _)) in records.iter().enumerate().take(until).skip(applied) {
            store.apply(lsn(at as u64 + 1), payload).unwrap();
            assert!(store.persisted() <= store.applied());
        }
        if until == records.len() {
            assert_eq!(contents(&store), records[until - 1].1);
            break;
        }
        crashes += 1;
        assert!(crashes < 200, "replay gets nowhere");
    }
    assert!(kept > 3, "something reached the disk: {kept}");
}

#[test]
fn reads_see_whole_records_while_memtables_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path(), SMALL).unwrap();
    let both = |value: u64| {
        let mut effects = Effects::default();
        for key in [&b"left"[..], b"right"] {
            let value = Bytes::from(format!("{value:0200}"));
            effects.push(Effect::Put { key: Bytes::from_static(key), value, expires_at_ms: None });
        }
        effects.encode(0, if value == 1 { 2 } else { 0 })
    };
    store.apply(lsn(1), &both(1)).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u64;
            while store.applied() < lsn(5_000) {
                let view = store.view();
                let (left, right) = (view.get(b"left").unwrap(), view.get(b"right").unwrap());
                assert_eq!(left, right);
                let number = std::str::from_utf8(&left.unwrap().bytes).unwrap().parse::<u64>();
                assert_eq!(number.unwrap(), view.applied().get());
                reads += 1;
            }
            reads
        });
        for end in 2..=5_000 {
            store.apply(lsn(end), &both(end)).unwrap();
        }
        assert!(reader.join().unwrap() > 0);
    });
    assert!(store.persisted() > Lsn::ZERO);
}

fn filled(count: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path(), SMALL).unwrap();
    for (at, (payload, _)) in records(3, count).iter().enumerate() {
        store.apply(lsn(at as u64 + 1), payload).unwrap();
    }
    (dir, store)
}

#[test]
fn a_restored_snapshot_is_the_same_state_and_survives_a_restart() {
    for count in [0, 1, 3_000] {
        let (_dir, store) = filled(count);
        let mut snapshot = vec![];
        assert_eq!(store.snapshot(&mut snapshot).unwrap(), lsn(count));
        let digest = store.digest().unwrap();
        assert_eq!((digest.applied, digest.keys), (lsn(count), store.len()));
        let (other_dir, other) = filled(70);
        assert_ne!(other.digest().unwrap().digest, digest.digest);
        assert_eq!(other.restore(&mut snapshot.as_slice()).unwrap(), lsn(count));
        assert_eq!(other.digest().unwrap(), digest);
        assert_eq!((other.persisted(), other.len()), (lsn(count), store.len()));
        drop(other);
        let other = Store::open_with(other_dir.path(), SMALL).unwrap();
        assert_eq!(other.digest().unwrap(), digest);
        assert_eq!(other.view().effect_time_ms(), store.view().effect_time_ms());
        for store in [&store, &other] {
            store.apply(lsn(count + 1), &put("after the snapshot", "v", 1)).unwrap();
        }
        assert_eq!(other.digest().unwrap(), store.digest().unwrap());
    }
}

#[test]
fn a_snapshot_that_is_not_whole_changes_nothing() {
    let (_dir, store) = filled(2_000);
    let mut snapshot = vec![];
    store.snapshot(&mut snapshot).unwrap();
    let (dir, other) = filled(70);
    let before = other.digest().unwrap();
    let mut numbers = Numbers::new(4);
    for _ in 0..40 {
        let cut = numbers.below(snapshot.len() as u64) as usize;
        assert!(other.restore(&mut &snapshot[..cut]).is_err());
        let mut flipped = snapshot.clone();
        flipped[cut] ^= 1 << numbers.below(8);
        assert!(other.restore(&mut flipped.as_slice()).is_err(), "bit flipped at {cut}");
        assert_eq!(other.digest().unwrap(), before);
    }
    let trees = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("tree-"));
    assert_eq!(trees.count(), 1, "nothing is left behind");
    other.apply(lsn(71), &put("still", "works", 1)).unwrap();
}

#[test]
fn a_snapshot_does_not_see_what_is_applied_meanwhile() {
    struct Slow<'a>(&'a Store, u64, Vec<u8>);
    impl Write for Slow<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            for _ in 0..200 {
                self.1 += 1;
                let key = format!("new-{}", self.1);
                self.0.apply(lsn(self.1), &put(&key, &"v".repeat(200), 1)).unwrap();
            }
            self.2.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (_dir, store) = filled(3_000);
    let before = store.digest().unwrap();
    let mut out = Slow(&store, 3_000, vec![]);
    store.snapshot(&mut out).unwrap();
    let (_other_dir, other) = filled(0);
    other.restore(&mut out.2.as_slice()).unwrap();
    assert_eq!(other.digest().unwrap(), before);
    assert_ne!(store.digest().unwrap(), before);
}

#[test]
fn one_process_at_a_time_has_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked { .. })));
    drop(store);
    Store::open(dir.path()).unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let nested = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    nested.collect()
}

#[test]
fn a_damaged_folder_is_an_error_or_does_not_matter() {
    let (dir, store) = filled(500);
    store.persist().unwrap();
    let before = store.digest().unwrap();
    drop(store);
    let reads = || Store::open(dir.path()).and_then(|store| store.digest());
    let mut errors = 0;
    for file in files(dir.path()) {
        let Ok(whole) = fs::read(&file) else { continue };
        if whole.is_empty() {
            continue;
        }
        fs::remove_file(&file).unwrap();
        let gone = reads();
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        let cut = reads();
        fs::write(&file, &whole).unwrap();
        for outcome in [gone, cut] {
            match outcome {
                // Not every file counts: versions that were followed by others do not.
                Ok(digest) => assert_eq!(digest, before, "{}", file.display()),
                Err(_) => errors += 1,
            }
        }
    }
    assert!(errors >= 6, "CURRENT, a table and its version are needed: {errors}");
    assert_eq!(reads().unwrap(), before);
}
