//! Threads that really run at the same time; their every order is checked in `loom_tests`.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const LIMIT: u64 = 1 << 26;

fn opened() -> Reservations<u32> {
    let all = Reservations::new(Lsn::ZERO, Digest::EMPTY, LIMIT);
    all.enter(Lsn::ZERO, 0, 7);
    all.open();
    all
}

fn append(all: &Reservations<u32>, len: u64, value: u64) -> Result<Lsn, Refused> {
    loop {
        match all.reserve(len, || Lsn::ZERO) {
            Ok(place) => {
                assert_eq!(*place.target(), 7);
                let lsn = place.lsn;
                place.publish(lsn.advance(len), Fingerprint(value));
                return Ok(lsn);
            }
            Err(Refused::Full) => all.wait_slot(),
            Err(refused) => return Err(refused),
        }
    }
}

#[test]
fn the_published_prefix_is_every_record_once_and_in_order() {
    const WRITERS: u64 = 4;
    const RECORDS: u64 = 60_000;
    let (all, done) = (opened(), AtomicBool::new(false));
    let mut records: Vec<_> = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut before = Lsn::ZERO;
            while !done.load(Ordering::Acquire) {
                let end = all.prefix().end;
                assert!(end >= before);
                before = end;
            }
        });
        let all = &all;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let append = move |nth| {
                    let value = writer * RECORDS + nth;
                    let len = 16 * (1 + value % 3);
                    let lsn = append(all, len, value).unwrap();
                    if value % 1_000 == 0 {
                        assert!(all.wait_published(lsn.advance(len)));
                        assert!(all.prefix().end >= lsn.advance(len));
                    }
                    (lsn, len, value)
                };
                scope.spawn(move || (0..RECORDS).map(append).collect::<Vec<_>>())
            })
            .collect();
        let records = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        done.store(true, Ordering::Release);
        reader.join().unwrap();
        records
    });
    records.sort_unstable();
    let mut expected = (Lsn::ZERO, Digest::EMPTY);
    for (lsn, len, value) in records {
        assert_eq!(lsn, expected.0, "no gap and no overlap");
        expected = (lsn.advance(len), expected.1.followed_by(Fingerprint(value)));
    }
    let prefix = all.prefix();
    assert_eq!((prefix.end, prefix.digest), expected);
}

#[test]
fn a_full_ring_holds_writers_up_until_the_oldest_is_published() {
    let all = opened();
    let oldest = all.reserve(16, || Lsn::ZERO).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for nth in 0..2 * SLOTS {
                append(&all, 16, nth).unwrap();
            }
        });
        while all.left() > LIMIT - 16 * SLOTS {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(all.left(), LIMIT - 16 * SLOTS, "the ring bounds what is in flight");
        assert_eq!(all.prefix().end, Lsn::ZERO);
        oldest.publish(Lsn::new(16), Fingerprint(1));
        writer.join().unwrap();
    });
    assert_eq!(all.prefix().end, Lsn::new(16 * (2 * SLOTS + 1)));
}

#[test]
fn what_does_not_fit_is_refused_and_what_is_closed_takes_nothing() {
    let all = opened();
    assert_eq!(append(&all, LIMIT + 16, 0), Err(Refused::NoRoom));
    assert_eq!(append(&all, LIMIT - 32, 0), Ok(Lsn::ZERO));
    assert_eq!(append(&all, 48, 0), Err(Refused::NoRoom));
    assert_eq!(append(&all, 32, 0), Ok(Lsn::new(LIMIT - 32)));
    all.close();
    assert_eq!(append(&all, 16, 0), Err(Refused::Closed));
    assert!(all.wait_quiet());
    all.enter(Lsn::new(2 * LIMIT), 4_096, 7);
    all.open();
    assert_eq!(append(&all, 16, 0), Ok(Lsn::new(2 * LIMIT + 4_096)));
    assert!(!all.wait_published(Lsn::new(3 * LIMIT)), "nobody has reserved that much");
}
