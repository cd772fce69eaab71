//! What an operator reads of what a log found, and of what it could not do.

use std::path::Path;

use towline_protocol::lsn::Lsn;
use towline_wal::{Founding, Options, Role, WalError, Witness, found, read_control};

use crate::support::*;

#[test]
fn a_witness_is_named() {
    let lsn = Lsn::new(65_536);
    let named = [
        (Witness::Nobody, "nobody"),
        (Witness::Record(lsn), "the record at 65536"),
        (Witness::Segment(lsn), "the header of segment 65536"),
        (Witness::Control, "the control file"),
        (Witness::Caller, "the caller"),
    ];
    for (witness, says) in named {
        assert_eq!(witness.to_string(), says);
    }
}

/// Who said how far a log was durable, in each of the ways there are.
#[test]
fn a_report_names_who_promised_most() {
    let (_folder, dir) = founded("a");
    let witness = |expect_durable| {
        let options = Options { expect_durable, threads: false, ..Options::default() };
        towline_wal::Wal::open(&dir, options).unwrap()
    };
    let (wal, report) = witness(Lsn::ZERO);
    assert_eq!(report.witness.to_string(), "nobody");
    begin(&wal, 1);
    let end = append(&wal, b"one").end;
    wal.flush().unwrap();
    let promising = append(&wal, b"two");
    drop(wal);
    let (wal, report) = witness(Lsn::ZERO);
    assert_eq!((report.witness, report.evidence), (Witness::Record(promising.lsn), end));
    drop(wal);
    let (wal, report) = witness(promising.end);
    assert_eq!((report.witness, report.evidence), (Witness::Caller, promising.end));
    wal.shutdown().unwrap();
    drop(wal);
    let (_, report) = witness(Lsn::ZERO);
    assert_eq!((report.witness, report.evidence), (Witness::Control, promising.end));
}

#[test]
fn a_log_of_its_own_is_founded_with_one_voter() {
    let folder = folder();
    let dir = folder.path().join("log");
    let founding = Founding::alone(LOG, node("solo"));
    found(&dir, &founding).unwrap();
    let control = read_control(&dir).unwrap();
    assert_eq!((control.log, &*control.cluster_name, control.role), (LOG, "solo", Role::Primary));
    assert_eq!((control.cluster.0, control.founding_voters.w()), (LOG.0, 1));
    assert_eq!(control.founding_voters, founding.voters);
    let wal = opened(&dir);
    begin(&wal, 1);
    append(&wal, b"alone");
    wal.flush().unwrap();
    assert_eq!(contents(&wal), [b"alone"]);
}

#[test]
fn an_error_says_what_where_and_what_to_do() {
    let path = || Path::new("/node/log/00000000000000065536.wal").to_owned();
    let denied = || std::io::ErrorKind::PermissionDenied.into();
    let lsn = Lsn::new(70_000);
    let errors: [(WalError, [&str; 3]); 7] = [
        (
            WalError::Corrupt {
                path: path(),
                at: lsn,
                evidence: Lsn::new(80_000),
                what: "its header: crc".to_owned(),
            },
            ["65536.wal is damaged at Lsn 70000", "below 80000 was durable", "peer's copy"],
        ),
        (
            WalError::NotWritable { what: "opening", path: path(), source: denied() },
            ["opening /node", "permission denied", "Mount it for writing"],
        ),
        (
            WalError::TooManyFiles { what: "opening", path: path() },
            ["opening /node", "too many files", "ulimit -n"],
        ),
        (
            WalError::MissingSegment { dir: "/node/log".into(), base: Lsn::new(65_536) },
            ["segment 65536 is missing in /node/log", "nothing was changed", "rebuild"],
        ),
        (
            WalError::Lagged { at: lsn, oldest: Lsn::new(80_000) },
            ["Lsn 70000 is trimmed", "begins at 80000", "snapshot"],
        ),
        (
            WalError::Slot { name: "reader".to_owned(), what: "there is none".to_owned() },
            ["slot", "\"reader\"", "there is none"],
        ),
        (
            WalError::Repair { at: lsn, what: "another record".to_owned() },
            ["no repair at Lsn 70000", "another record", "not changed"],
        ),
    ];
    for (error, says) in errors {
        let said = error.to_string();
        assert!(says.iter().all(|it| said.contains(it)), "{said}");
    }
}
