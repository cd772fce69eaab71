//! Any one call that an operation makes is refused: it fails with an error that says which file,
//! nothing that was durable is lost, and the log opens again.

use std::cell::Cell;

use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;
use towline_wal::{Level, Wal, WalError, cut, found_on, read_control_on};

use crate::image::*;
use crate::support::*;

fn fill(wal: &Wal, records: std::ops::Range<u64>) -> Vec<Lsn> {
    let ends = append_all(wal, records);
    wal.flush().unwrap();
    ends
}

/// A log of 600 records in two epochs that was closed; and where some of them end.
fn closed_log() -> (Image, Vec<Lsn>) {
    let ends = Cell::default();
    let image = Image::after(1, |_, wal| {
        begin(&wal, 1);
        let mut all = fill(&wal, 0..400);
        begin(&wal, 2);
        all.extend(fill(&wal, 400..600));
        wal.shutdown().unwrap();
        ends.set(all);
    });
    (image, ends.take())
}

#[test]
fn founding_is_refused_or_done_and_can_be_done_again() {
    let errors = at_every_call(
        &Image::default(),
        |disk, armed| {
            armed();
            found_on(disk, dir(), &founding("a"))
        },
        |disk, done| {
            if let Err(error) = open_on(disk) {
                assert!(done.is_err() && matches!(error, WalError::NotFounded(_)), "{error:?}");
                disk.kill();
                found_on(disk, dir(), &founding("a")).unwrap();
            }
            disk.kill();
            assert_eq!(open_on(disk).unwrap().0.appended(), Lsn::ZERO);
        },
    );
    assert!(errors > 20, "{errors}");
}

/// The payloads of all that was not trimmed.
fn kept(wal: &Wal) -> Vec<Vec<u8>> {
    let mut cursor = wal.cursor(wal.oldest().end, Level::Flushed).unwrap();
    let all = std::iter::from_fn(|| cursor.next_record().unwrap());
    all.map(|record| record.payload.to_vec()).collect()
}

/// Opening is refused each of its calls; it finds the same log then as without.
fn opens_the_same(what: &str, image: &Image) {
    let found = kept(&open_on(&image.disk()).unwrap().0);
    assert!(found.len() >= 100, "{what}: {}", found.len());
    let errors = at_every_call(
        image,
        |disk, armed| {
            armed();
            Wal::open(dir(), disk.options()).map(drop)
        },
        |disk, done| {
            let (wal, _) = open_on(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(kept(&wal) == found, "{what}: {done:?}");
        },
    );
    assert!(errors > 30, "{what}: {errors}");
}

#[test]
fn opening_a_log_that_was_closed_or_is_torn() {
    opens_the_same("closed", &closed_log().0);
    opens_the_same(
        "empty tail",
        &Image::after(1, |_, wal| {
            begin(&wal, 1);
            fill(&wal, 0..100);
        }),
    );
    let torn = |seed| {
        Image::after(seed, |disk, wal| {
            begin(&wal, 1);
            fill(&wal, 0..300);
            append_all(&wal, 300..350);
            disk.writeback();
        })
    };
    let is_torn = |it: &Image| open_on(&it.disk()).unwrap().1.torn.is_some();
    opens_the_same("torn", &(0..).map(torn).find(is_torn).unwrap());
}

#[test]
fn opening_a_log_with_a_cut_or_a_trim_to_finish() {
    let (closed, ends) = closed_log();
    let cut_at = |calls| {
        let disk = closed.disk();
        disk.die_after(calls);
        assert!(cut(dir(), ends[150], &options(&disk)).is_err());
        disk.kill();
        Image::of(&disk)
    };
    let is_marked = |it: &Image| read_control_on(&it.disk(), dir()).unwrap().cut.is_some();
    let marked: Vec<_> = (0..12).map(cut_at).filter(is_marked).collect();
    assert!(marked.len() > 2, "{}", marked.len());
    marked.iter().for_each(|image| opens_the_same("cut", image));
    let trimmed_at = |calls| {
        let disk = closed.disk();
        let wal = open_on(&disk).unwrap().0;
        disk.die_after(calls);
        let _ = wal.trim(wal.appended());
        drop(wal);
        disk.kill();
        Image::of(&disk)
    };
    let has_leftovers = |it: &Image| {
        let opened = open_on(&it.disk());
        opened.is_ok_and(|(_, report)| report.finished_trim > 0)
    };
    opens_the_same("trim", &(0..20).map(trimmed_at).find(has_leftovers).unwrap());
}

#[test]
fn opening_a_log_with_something_to_heal() {
    let (closed, _) = closed_log();
    opens_the_same("a copy", &closed.clone().rotten("control.0", 30));
    opens_the_same("the other copy", &closed.rotten("control.1", 30));
    // Its header is damaged, and it holds nothing: it is made anew.
    let ready = Image::after(1, |_, wal| {
        begin(&wal, 1);
        fill(&wal, 0..100);
    });
    let ready = ready.rotten(&format!("{:020}.wal", 65_536), 40);
    assert!(open_on(&ready.disk()).unwrap().1.discarded.is_some());
    opens_the_same("a ready segment", &ready);
}

#[test]
fn a_cut_is_refused_or_done_whole() {
    let (image, ends) = closed_log();
    let errors = at_every_call(
        &image,
        |disk, armed| {
            armed();
            cut(dir(), ends[99], &disk.options())
        },
        |disk, done| {
            let found = contents(&open_on(disk).unwrap().0);
            let is_cut = found == payloads(0..100);
            assert!(is_cut || done.is_err() && found == payloads(0..600), "{}", found.len());
            if let Ok(report) = done {
                assert_eq!((report.records, report.to), (502, ends[99]), "and its BARRIER, a SEAL");
            }
        },
    );
    assert!(errors > 60, "{errors}");
}

#[test]
fn a_trim_is_refused_or_done_and_the_log_goes_on() {
    let (image, ends) = closed_log();
    let errors = at_every_call(
        &image,
        |disk, armed| {
            let wal = Wal::open(dir(), disk.options())?.0;
            wal.create_slot("reader", ends[500], None)?;
            armed();
            let trimmed = wal.trim(ends[550]);
            if disk.has_happened() {
                let oldest = wal.trim(ends[550]).unwrap().oldest;
                assert!(oldest.base > Lsn::ZERO, "it is trimmed at the second try");
                append(&wal, &payload(600));
                wal.flush().unwrap();
            }
            trimmed
        },
        |disk, _| {
            let wal = open_on(disk).unwrap().0;
            let mut cursor = wal.cursor(ends[500], Level::Flushed).unwrap();
            let read = std::iter::from_fn(|| cursor.next_record().unwrap());
            let found: Vec<_> = read.map(|record| record.payload.to_vec()).collect();
            assert!(found == payloads(501..600) || found == payloads(501..601), "{}", found.len());
            assert!(wal.oldest().base > Lsn::ZERO, "{:?}", wal.oldest());
            assert_eq!(wal.terms(), barrier(&wal, 3).terms);
        },
    );
    assert!(errors > 20, "{errors}");
}

#[test]
fn a_change_of_the_control_file_is_refused_or_done_and_can_be_tried_again() {
    let (image, ends) = closed_log();
    let errors = at_every_call(
        &image,
        |disk, armed| {
            let wal = Wal::open(dir(), disk.options())?.0;
            armed();
            let steps: [&dyn Fn() -> Result<(), WalError>; 5] = [
                &|| wal.update_control(|control| control.fence.number = 7),
                &|| wal.create_slot("reader", ends[10], None),
                &|| wal.create_slot("gone", ends[20], None),
                &|| wal.advance_slot("reader", ends[500]),
                &|| wal.drop_slot("gone"),
            ];
            let mut refused = Ok(());
            for step in steps {
                if let Err(error) = step() {
                    step().unwrap();
                    refused = Err(error);
                }
            }
            refused
        },
        |disk, _| {
            let control = read_control_on(disk, dir()).unwrap();
            let slots: Vec<_> =
                control.slots().iter().map(|slot| (&*slot.name, slot.position)).collect();
            assert_eq!((control.fence.number, &slots[..]), (7, &[("reader", ends[500])][..]));
            assert!(contents(&open_on(disk).unwrap().0) == payloads(0..600));
        },
    );
    assert!(errors > 20, "{errors}");
}

/// Appends and flushes until the log is poisoned, trying again what was refused otherwise. Returns
/// how many records are flushed for certain.
fn write_all(wal: &Wal, refused: &mut Result<(), WalError>) -> u64 {
    let mut flushed = 0;
    for number in 0..900 {
        if number == 500 {
            if let Err(error) = wal.begin_epoch(&barrier(wal, 2)) {
                *refused = Err(error);
                if wal.begin_epoch(&barrier(wal, 2)).is_err() {
                    return flushed;
                }
            }
        }
        if let Err(error) = wal.append(RecordKind::Data, 0, &payload(number)) {
            *refused = Err(error);
            match wal.append(RecordKind::Data, 0, &payload(number)) {
                Err(WalError::Poisoned(_)) => return flushed,
                appended => drop(appended.unwrap()),
            }
        }
        if number % 90 == 0 {
            if let Err(error) = wal.flush() {
                assert!(matches!(error, WalError::Poisoned(_)), "{error:?}");
                *refused = Err(error);
                return flushed;
            }
            flushed = number + 1;
        }
    }
    flushed
}

#[test]
fn what_is_appended_behind_a_refusal_is_in_its_place() {
    let image = Image::after(1, |_, wal| {
        begin(&wal, 1);
        wal.flush().unwrap();
    });
    let flushed = Cell::new(0);
    let errors = at_every_call(
        &image,
        |disk, armed| {
            let wal = Wal::open(dir(), disk.options())?.0;
            armed();
            let mut refused = Ok(());
            flushed.set(write_all(&wal, &mut refused));
            refused
        },
        |disk, done| {
            let found = contents(&open_on(disk).unwrap().0);
            assert!(found.len() as u64 >= flushed.get(), "{} {done:?}", found.len());
            assert!(found == payloads(0..found.len() as u64), "{done:?}");
        },
    );
    assert!(errors > 20, "{errors}");
}

#[test]
fn a_log_that_could_not_be_closed_opens_again() {
    let (image, _) = closed_log();
    let errors = at_every_call(
        &image,
        |disk, armed| {
            let wal = Wal::open(dir(), disk.options())?.0;
            for number in 600..610 {
                append(&wal, &payload(number));
            }
            armed();
            let closed = wal.shutdown();
            wal.shutdown().unwrap();
            closed
        },
        |disk, done| {
            let (wal, report) = open_on(disk).unwrap();
            let found = contents(&wal);
            assert!(found == payloads(0..found.len() as u64) && found.len() >= 600);
            assert!(done.is_err() || found.len() == 610 && report.rewritten_bytes == 0);
        },
    );
    assert!(errors > 5, "{errors}");
}

/// The log went on in its old epoch, past the place of the one that could not begin; the history
/// said then that this one had begun there.
#[test]
fn an_epoch_that_could_not_begin_is_not_in_the_history() {
    let image = Image::after(1, |_, wal| {
        begin(&wal, 1);
        append_all(&wal, 0..100);
        wal.flush().unwrap();
    });
    let errors = at_every_call(
        &image,
        |disk, armed| {
            let wal = Wal::open(dir(), disk.options())?.0;
            armed();
            let begun = wal.begin_epoch(&barrier(&wal, 2));
            if disk.has_happened() {
                append_all(&wal, 100..800);
                wal.flush().unwrap();
            }
            begun
        },
        |disk, done| {
            let wal = open_on(disk).unwrap().0;
            let epochs: Vec<_> = wal.history().starts().iter().map(|it| it.epoch.number).collect();
            assert!(done.is_ok() || epochs == [1], "{epochs:?} {done:?}");
            let found = contents(&wal);
            assert!(found == payloads(0..found.len() as u64));
            assert!(done.is_ok() || found.len() == 800, "{}", found.len());
            let (data, _) = (wal.digest_at(wal.appended()).unwrap(), wal.terms());
            assert_eq!(data, wal.digest());
        },
    );
    assert!(errors > 5, "{errors}");
}
