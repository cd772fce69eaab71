use std::fs;

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/wal/v1");

/// Two copies of one log, as a node and its peer have it.
fn two_copies() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name).join("logs/log"));
    for copy in [&one, &two] {
        fs::create_dir_all(copy).unwrap();
        for entry in fs::read_dir(GOLDEN).unwrap().flatten() {
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    (folder, one, two)
}

#[test]
fn a_damaged_log_is_told_and_repaired_from_a_peers_folder() {
    let (folder, dir, peer) = two_copies();
    let node = folder.path().join("one");
    let args = || VerifyArgs { dir: node.clone() };
    assert_eq!(verify(&args()).unwrap(), Exit::Ok);
    assert_eq!(stat(&args()).unwrap(), Exit::Ok);
    let file = dir.join(file_name(Lsn::ZERO));
    let mut bytes = fs::read(&file).unwrap();
    bytes[9_000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let told = verify(&args()).unwrap_err();
    assert_eq!(told.exit, Exit::Error);
    assert!(told.message.contains("towline wal repair"), "{told}");
    let mend = |from: &Path| repair(&RepairArgs { dir: node.clone(), from: from.to_owned() });
    let itself = mend(&dir).unwrap_err();
    assert_eq!(itself.exit, Exit::Refused, "what is damaged there as well does not help");
    assert_eq!(mend(&peer).unwrap(), Exit::Ok);
    assert_eq!(verify(&args()).unwrap(), Exit::Ok);
    assert_eq!(mend(&peer).unwrap(), Exit::Ok, "and again");
    assert_eq!(stored(&dir), (2, 2 << 16));
}
