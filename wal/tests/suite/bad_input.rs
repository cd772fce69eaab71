//! What a log is given that it can not take: each a typed error that says what to do, and nothing
//! on the disk is changed by it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::RecordKind;
use towline_wal::{Level, OPEN_FILES_MAX, Options, Wal, WalError, found, read_control, read_log};

use crate::support::*;

const RECORDS: u64 = 900;

fn filled(dir: &Path) {
    let wal = opened(dir);
    begin(&wal, 1);
    for number in 0..RECORDS {
        append(&wal, &payload(number));
    }
    wal.flush().unwrap();
}

/// A log of some segments whose headers are all read on opening: it was not closed cleanly.
fn log() -> (tempfile::TempDir, PathBuf, BTreeMap<PathBuf, Vec<u8>>) {
    let (folder, dir) = founded("a");
    filled(&dir);
    let whole = files(&dir);
    (folder, dir, whole)
}

/// A log whose folder only its calls change.
fn opened_without_threads(dir: &Path) -> Arc<Wal> {
    Wal::open(dir, Options { threads: false, ..Options::default() }).unwrap().0
}

/// Opening is refused with an error that tells enough, and nothing is changed.
fn refused(dir: &Path, why: &str, tells: &[&str], is_it: impl Fn(&WalError) -> bool) {
    let before = files(dir);
    for _ in 0..2 {
        match open(dir) {
            Ok(_) => panic!("{why}: it opens"),
            Err(error) => {
                assert!(is_it(&error), "{why}: {error:?}");
                let said = error.to_string();
                assert!(tells.iter().all(|it| said.contains(it)), "{why}: {said}");
            }
        }
    }
    assert!(files(dir) == before, "{why}: something was changed");
}

#[test]
fn records_of_no_length_and_of_too_much() {
    let (_folder, dir) = founded("a");
    let wal = opened_without_threads(&dir);
    let early = wal.append(RecordKind::Data, 0, b"before any epoch");
    assert!(matches!(early, Err(WalError::NoEpoch)), "{early:?}");
    begin(&wal, 1);
    // A record without a payload is one: END is.
    let none = append(&wal, b"");
    assert_eq!(none.end.distance_from(none.lsn), 32);
    let most = SegmentSize::MIN.max_payload() as usize;
    let before = (wal.appended(), files(&dir));
    for len in [most + 1, 1 << 20] {
        for result in [
            wal.append(RecordKind::Data, 0, &vec![1; len]).map(drop),
            wal.reserve(RecordKind::Data, 0, len).map(drop),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, WalError::TooLarge { max, .. } if max == most as u64));
            assert!(error.to_string().contains(&most.to_string()));
        }
    }
    assert!(wal.reserve(RecordKind::Data, 0, usize::MAX).is_err());
    assert!((wal.appended(), files(&dir)) == before, "nothing was written");
    append(&wal, &vec![1; most]);
    wal.flush().unwrap();
    assert_eq!(contents(&wal).iter().map(Vec::len).collect::<Vec<_>>(), [0, most]);
}

#[test]
fn a_folder_that_is_missing_empty_or_no_folder() {
    let folder = folder();
    let absent = folder.path().join("absent");
    assert!(matches!(open(&absent), Err(WalError::NotFounded(_))));
    assert!(!absent.exists());
    refused(folder.path(), "empty", &["create one"], |it| matches!(it, WalError::NotFounded(_)));
    let file = folder.path().join("file");
    fs::write(&file, b"no folder").unwrap();
    assert!(open(&file).is_err() && found(&file, &founding("a")).is_err());
    assert_eq!(fs::read(&file).unwrap(), b"no folder");
    let full = found(folder.path(), &founding("a"));
    assert!(matches!(full, Err(WalError::NotEmpty(_))), "{full:?}");
}

#[test]
fn segments_that_are_missing_swapped_doubled_or_foreign() {
    let (_folder, dir, whole) = log();
    let [zero, one, two] = [0, 1, 2].map(|n| segment(&dir, n << 16));
    let missing = |it: &WalError| matches!(it, WalError::MissingSegment { .. });
    let foreign = |it: &WalError| matches!(it, WalError::Foreign { .. });
    for path in [&zero, &one] {
        fs::remove_file(path).unwrap();
        refused(&dir, "missing", &["missing", "restore"], missing);
        restore(&dir, &whole);
    }
    fs::write(&zero, &whole[&one]).unwrap();
    fs::write(&one, &whole[&zero]).unwrap();
    refused(&dir, "swapped", &["its header says"], foreign);
    restore(&dir, &whole);
    fs::write(&two, &whole[&one]).unwrap();
    refused(&dir, "doubled", &["its header says"], foreign);
    restore(&dir, &whole);
    for name in ["copy of 1.wal", "1.wal", "00000000000000000001.wal"] {
        fs::write(dir.join(name), &whole[&one]).unwrap();
        refused(&dir, name, &["move it elsewhere"], foreign);
        assert!(read_log(&dir).is_err());
        restore(&dir, &whole);
    }
    let (_other, other_dir) = {
        let folder = folder();
        let dir = folder.path().join("log");
        let mut founding = founding("a");
        founding.log.0 += 1;
        found(&dir, &founding).unwrap();
        (folder, dir)
    };
    filled(&other_dir);
    fs::copy(segment(&other_dir, 1 << 16), &one).unwrap();
    refused(&dir, "another log's segment", &["it is of log"], foreign);
    restore(&dir, &whole);
    for copy in ["control.0", "control.1"] {
        fs::copy(other_dir.join(copy), dir.join(copy)).unwrap();
    }
    refused(&dir, "another log's control file", &["it is of log"], foreign);
    restore(&dir, &whole);
    fs::write(&one, &whole[&one][..40_000]).unwrap();
    refused(&dir, "cut short", &["40000 of 65536"], foreign);
    fs::write(&one, b"").unwrap();
    refused(&dir, "empty", &["its header"], |it| matches!(it, WalError::Corrupt { .. }));
}

#[test]
fn a_segment_swapped_long_ago_is_met_by_whoever_reads_it() {
    let (_folder, dir, _) = log();
    let wal = opened(&dir);
    for number in RECORDS..2 * RECORDS {
        append(&wal, &payload(number));
    }
    wal.shutdown().unwrap();
    drop(wal);
    let [one, two] = [1, 2].map(|n| segment(&dir, n << 16));
    let (a, b) = (fs::read(&one).unwrap(), fs::read(&two).unwrap());
    fs::write(&one, b).unwrap();
    fs::write(&two, a).unwrap();
    let wal = opened(&dir);
    let mut cursor = wal.cursor(Lsn::ZERO, Level::Flushed).unwrap();
    let met = loop {
        match cursor.next_record() {
            Ok(Some(_)) => {}
            met => break met,
        }
    };
    assert!(matches!(met, Err(WalError::Foreign { .. })), "{met:?}");
    assert!(cursor.position().get() > 60_000, "what comes before it is read");
    let damaged: Vec<_> = wal.scrub(None).flat_map(|check| check.unwrap().damaged).collect();
    assert_eq!(damaged.len(), 2);
}

#[test]
fn a_file_of_a_newer_version_and_one_that_only_looks_like_it() {
    let (_folder, dir, whole) = log();
    let newer = |it: &WalError| matches!(it, WalError::NewerVersion { .. });
    let zero = segment(&dir, 0);
    let mut bytes = whole[&zero].clone();
    bytes[8] += 1;
    fs::write(&zero, &bytes).unwrap();
    refused(&dir, "rot", &["damaged"], |it| matches!(it, WalError::Corrupt { .. }));
    let crc = crc32fast::hash(&bytes[..74]);
    bytes[74..78].copy_from_slice(&crc.to_le_bytes());
    fs::write(&zero, &bytes).unwrap();
    refused(&dir, "newer", &["version 2", "up to 1", "upgrade"], newer);
    restore(&dir, &whole);
    let control = dir.join("control.1");
    let mut bytes = whole[&control].clone();
    bytes[8] += 1;
    let body = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_le_bytes());
    fs::write(&control, &bytes).unwrap();
    refused(&dir, "newer", &["version 4", "up to 3", "upgrade"], newer);
}

#[test]
fn a_control_file_damaged_in_every_way() {
    let (_folder, dir, whole) = log();
    let [zero, one] = ["control.0", "control.1"].map(|name| dir.join(name));
    let ways: [fn(&Path); 4] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, b"").unwrap(),
        |path| fs::write(path, &fs::read(path).unwrap()[..50]).unwrap(),
        |path| fs::write(path, vec![7; 3 << 20]).unwrap(),
    ];
    for way in ways {
        for path in [&zero, &one] {
            way(path);
            let (wal, report) = open(&dir).unwrap();
            assert!(report.control_healed);
            assert_eq!(contents(&wal), payloads(0..RECORDS));
            drop(wal);
            assert_eq!(fs::read(&zero).unwrap(), fs::read(&one).unwrap(), "healed");
            assert!(!open(&dir).unwrap().1.control_healed);
            restore(&dir, &whole);
        }
        way(&zero);
        way(&one);
        refused(&dir, "both", &["both control files", "rebuild"], |it| {
            matches!(it, WalError::Control { .. })
        });
        assert!(read_control(&dir).is_err() && read_log(&dir).is_err());
        restore(&dir, &whole);
    }
}

#[test]
fn a_second_opener() {
    let (_folder, dir, _) = log();
    let wal = opened(&dir);
    wal.shutdown().unwrap();
    drop(wal);
    let first = opened_without_threads(&dir);
    refused(&dir, "open already", &["stop that one first"], |it| matches!(it, WalError::Locked(_)));
    let cut = towline_wal::cut(&dir, Lsn::ZERO, &Options::default());
    assert!(matches!(cut, Err(WalError::Locked(_))));
    drop(first);
    drop(opened(&dir));
}

/// A file system in memory of so many bytes, which goes away with it; `None`, said loudly, if
/// nobody may mount one.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn of(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        match mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), Some(&*size)) {
            Ok(()) => Some(Self(folder)),
            Err(error) => {
                eprintln!("SKIPPED: no file system can be mounted here: {error}");
                None
            }
        }
    }

    fn remount(&self, flags: MountFlags) {
        mount_remount(self.0.path(), flags, "").unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_file_system_that_is_read_only() {
    let Some(mounted) = Mounted::of(8 << 20) else { return };
    let dir = mounted.0.path().join("log");
    found(&dir, &founding("a")).unwrap();
    filled(&dir);
    mounted.remount(MountFlags::RDONLY);
    refused(&dir, "read-only", &["Mount it for writing"], |it| {
        matches!(it, WalError::NotWritable { .. })
    });
    let other = found(&mounted.0.path().join("other"), &founding("a"));
    assert!(matches!(other, Err(WalError::NotWritable { .. })), "{other:?}");
    let mut reader = read_log(&dir).unwrap();
    assert!(reader.by_ref().all(|record| record.is_ok()));
    assert!(!reader.verdict().unwrap().is_corrupt(), "it can be verified there");
    mounted.remount(MountFlags::empty());
    let (wal, report) = open(&dir).unwrap();
    assert!(report.in_memory, "a log in memory says so");
    assert_eq!(contents(&wal), payloads(0..RECORDS));
}

#[test]
fn a_file_system_that_is_full() {
    let Some(mounted) = Mounted::of(1 << 20) else { return };
    let dir = mounted.0.path().join("log");
    found(&dir, &founding("a")).unwrap();
    let wal = opened_without_threads(&dir);
    begin(&wal, 1);
    let mut next = 0;
    let error = loop {
        match wal.append(RecordKind::Data, 0, &payload(next)) {
            Ok(_) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WalError::NoSpace(_)), "{error:?}");
    assert!(error.to_string().contains("Free space"), "{error}");
    wal.flush().unwrap();
    assert_eq!(contents(&wal), payloads(0..next));
    let other = mounted.0.path().join("other");
    fs::write(mounted.0.path().join("rest"), vec![1; 1 << 20]).unwrap_err();
    let refused = found(&other, &founding("a"));
    assert!(matches!(refused, Err(WalError::NoSpace(_))), "{refused:?}");
    fs::remove_file(mounted.0.path().join("rest")).unwrap();
    found(&other, &founding("a")).unwrap();
    // What is trimmed makes room, and writing goes on.
    wal.trim(wal.appended()).unwrap();
    for number in next..next + 500 {
        append(&wal, &payload(number));
    }
    wal.flush().unwrap();
    drop(wal);
    drop(opened(&dir));
}

/// Run by the next test, in a process of its own that may open few files.
#[test]
fn opens_a_log_with_few_files() {
    let Some(dir) = std::env::var_os("TOWLINE_FEW_FILES_LOG").map(PathBuf::from) else { return };
    let options = Options { threads: false, ..Options::default() };
    match Wal::open(&dir, options) {
        Ok((wal, _)) => println!("RESULT opened {}", contents(&Arc::clone(&wal)).len()),
        Err(error) => println!("RESULT {error:?}"),
    }
}

#[test]
fn a_limit_on_open_files() {
    const MANY: u64 = 20_000;
    let (_folder, dir) = founded("a");
    let wal = opened(&dir);
    begin(&wal, 1);
    for number in 0..MANY {
        append(&wal, &payload(number));
    }
    wal.shutdown().unwrap();
    assert!(wal.appended().get() > 50 * SegmentSize::MIN.bytes());
    drop(wal);
    let whole = files(&dir);
    let run = |limit: usize| {
        let test = std::env::current_exe().unwrap();
        let script = format!(
            "ulimit -n {limit}; exec {} --exact bad_input::opens_a_log_with_few_files --nocapture",
            test.display()
        );
        let mut child = Command::new("sh");
        child.args(["-c", &script]).env("TOWLINE_FEW_FILES_LOG", &dir);
        let out = String::from_utf8(child.output().unwrap().stdout).unwrap();
        let said = out.lines().find_map(|line| line.split_once("RESULT "));
        said.unwrap_or_else(|| panic!("{out}")).1.to_owned()
    };
    // Three more are the process's own, and one is the cursor's.
    assert_eq!(run(OPEN_FILES_MAX + 4), format!("opened {MANY}"));
    let said = run(5);
    assert!(said.starts_with("TooManyFiles"), "{said}");
    assert!(files(&dir) == whole, "nothing was changed");
}
