//! What a control file says under a good checksum is looked at field by field, and what an old one
//! does not say the log itself does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use towline_protocol::lsn::Lsn;
use towline_wal::simulated::SimDisk;
use towline_wal::{
    Control, CutMark, Options, SLOTS_MAX, Wal, WalError, read_control, read_control_on,
};

use crate::support::*;

/// What both copies of a control file say that has something in every field, and what that is.
fn said() -> (Vec<u8>, Control) {
    let (_folder, dir) = founded("a");
    let options = Options { threads: false, ..Options::default() };
    let wal = Wal::open(&dir, options).unwrap().0;
    begin(&wal, 1);
    append_all(&wal, 0..600);
    let flushed = wal.flush().unwrap();
    wal.create_slot("reader", flushed, None).unwrap();
    wal.trim(flushed).unwrap();
    wal.update_control(|control| control.cut = Some(CutMark { to: flushed, nonce: 9 })).unwrap();
    let bytes = std::fs::read(dir.join("control.0")).unwrap();
    let body = &bytes[..bytes.len() - 4];
    // The last field is a slot's bound, and no bound is all ones.
    let len = body.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    (body[..len].to_vec(), read_control(&dir).unwrap())
}

/// Reads a control file whose copies both say this.
fn read(said: &[u8]) -> Result<Control, WalError> {
    let mut bytes = said.to_vec();
    bytes.extend_from_slice(&crc32fast::hash(said).to_le_bytes());
    let bytes = Arc::new(bytes);
    let dir = Path::new("/node/log");
    let files = ["control.0", "control.1"].map(|name| (dir.join(name), Arc::clone(&bytes)));
    read_control_on(&SimDisk::holding(1, files).unwrap(), dir)
}

fn refused(said: &[u8]) -> String {
    match read(said) {
        Err(WalError::Control { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_copy_that_ends_anywhere_names_the_field_that_is_missing() {
    let (said, control) = said();
    assert_eq!(read(&said).unwrap(), control);
    let mut missing = Vec::new();
    for len in 0..said.len() {
        let what = refused(&said[..len]);
        let (_, field) = what.rsplit_once("cut short: ").unwrap_or_else(|| panic!("{what}"));
        let field = field.strip_suffix(" is missing").unwrap().to_owned();
        if missing.last() != Some(&field) {
            missing.push(field);
        }
    }
    let voters = "voters.named_by voters.generation voters.w voters.n voters.node \
                  voters.incarnation voters.zone";
    let fields = format!(
        "magic version sequence cluster cluster_name log node incarnation segment_size {voters} \
         role fence history durable committed cut oldest.base oldest.end oldest.digest \
         trimmed_terms sets.len {voters} terms.lease_ms slots slot.name slot.position \
         slot.lagged slot.keep_bytes_max"
    );
    assert_eq!(missing.join(" "), fields.split_whitespace().collect::<Vec<_>>().join(" "));
}

/// Where a field begins: a copy that ends there misses it.
fn start_of(said: &[u8], field: &str) -> usize {
    let misses = format!("cut short: {field} is missing");
    (0..said.len()).find(|&len| refused(&said[..len]).ends_with(&misses)).unwrap()
}

#[test]
fn values_that_no_log_has_are_refused_by_name() {
    let (said, _) = said();
    let [size, slots, name] =
        ["segment_size", "slots", "cluster_name"].map(|field| start_of(&said, field));
    let changes: BTreeMap<&str, (usize, Vec<u8>)> = BTreeMap::from([
        ("magic: this is no control file", (0, b"X".to_vec())),
        ("segment_size: no segment size", (size, vec![1])),
        ("slots: 65 are over 64", (slots, (SLOTS_MAX as u16 + 1).to_le_bytes().to_vec())),
        ("cluster_name: 999 bytes are over 128", (name, 999_u16.to_le_bytes().to_vec())),
    ]);
    for (says, (at, bytes)) in changes {
        let mut changed = said.clone();
        changed[at..at + bytes.len()].copy_from_slice(&bytes);
        let what = refused(&changed);
        assert!(what.contains(says), "{what}");
    }
    let mut roomy = said.clone();
    roomy.extend_from_slice(&[0, 0, 1]);
    assert!(refused(&roomy).contains("room: it is not blank"));
    // Version 2 has no room: what is behind its last field is no part of it.
    let mut older = said.clone();
    older[8] = 2;
    assert_eq!(read(&older).unwrap(), read(&said).unwrap());
    older.push(0);
    assert!(refused(&older).contains("1 bytes too many"));
    for version in [0_u16, 4] {
        let mut other = said.clone();
        other[8..10].copy_from_slice(&version.to_le_bytes());
        let newer = read(&other).unwrap_err();
        assert!(matches!(newer, WalError::NewerVersion { version: it, .. } if it == version));
    }
}

/// Both copies as an operator may have them from a backup.
fn control_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files(dir);
    files.retain(|path, _| path.file_stem().is_some_and(|stem| stem == "control"));
    files
}

#[test]
fn an_older_control_file_learns_from_the_log_which_epochs_there_are() {
    let (_folder, dir) = founded("a");
    let options = Options { threads: false, ..Options::default() };
    let wal = Wal::open(&dir, options).unwrap().0;
    begin(&wal, 1);
    append(&wal, &payload(0));
    let older = control_files(&dir);
    assert_eq!(older.len(), 2);
    begin(&wal, 2);
    append(&wal, &payload(1));
    begin(&wal, 3);
    append(&wal, &payload(2));
    let (history, digest) = (wal.history(), wal.digest());
    drop(wal);
    older.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    let wal = opened(&dir);
    assert_eq!((wal.history(), wal.digest()), (history, digest));
    assert_eq!((contents(&wal), wal.last_epoch().number), (payloads(0..3), 3));
    assert_eq!(wal.next_barrier().epoch.number, 4);
    assert!(wal.appended() > Lsn::ZERO);
}
