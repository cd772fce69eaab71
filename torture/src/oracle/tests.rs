use super::*;

fn written(number: u8, epoch: Option<u64>) -> Written {
    let (lsn, end) = (u64::from(number) * 64, u64::from(number) * 64 + 64);
    Written { kind: 1, tag: 0, payload: vec![number; 20].into(), lsn, end, promise: 0, epoch }
}

fn oracle(records: u8, durable: usize) -> Oracle {
    let mut oracle = Oracle::default();
    for number in 0..records {
        oracle.appended(written(number, (number == 0).then_some(1)));
    }
    oracle.story.durable = durable;
    oracle
}

fn read(numbers: impl IntoIterator<Item = u8>) -> Found {
    let read = |number| {
        let Written { kind, tag, payload, lsn, end, .. } = written(number, None);
        Read { kind, tag, payload: payload.to_vec(), lsn, end }
    };
    let records: Vec<_> = numbers.into_iter().map(read).collect();
    let epochs = records.first().map(|_| 1).into_iter().collect();
    Found { records, epochs, ..Found::default() }
}

#[test]
fn any_beginning_that_holds_what_is_durable_is_right() {
    for count in 2..=4 {
        assert_eq!(oracle(4, 2).judge(&read(0..count)), Ok(()));
    }
    assert!(oracle(4, 2).judge(&read(0..1)).unwrap_err().contains("durable"));
    assert!(oracle(4, 2).judge_whole(&read(0..3)).is_err());
    assert!(oracle(4, 0).judge(&read([])).is_ok());
}

#[test]
fn what_was_never_written_or_is_torn_or_out_of_order_is_wrong() {
    assert!(oracle(3, 2).judge(&read(0..4)).unwrap_err().contains("never written"));
    assert!(oracle(4, 2).judge(&read([0, 1, 3])).is_err());
    assert!(oracle(4, 2).judge(&read([0, 2, 1])).is_err());
    let mut torn = read(0..3);
    torn.records[2].payload[7] ^= 1;
    assert!(oracle(4, 2).judge(&torn).is_err());
    let mut tagged = read(0..3);
    tagged.records[2].tag = 1;
    assert!(oracle(4, 2).judge(&tagged).is_err());
}

#[test]
fn epochs_and_the_fence_are_judged_too() {
    let mut unknown = read(0..3);
    unknown.epochs.push(2);
    assert!(oracle(4, 2).judge(&unknown).unwrap_err().contains("epochs"));
    let mut fenced = oracle(4, 2);
    fenced.fence_asked(3);
    assert_eq!(fenced.judge(&read(0..3)), Ok(()));
    fenced.fence_is_durable();
    assert!(fenced.judge(&read(0..3)).unwrap_err().contains("fence"));
}

#[test]
fn a_cut_may_have_happened_or_not_and_once_done_it_has() {
    let before = oracle(4, 4);
    let mut cut = before.clone();
    cut.cut_begins(2);
    assert_eq!((cut.judge(&read(0..4)), cut.judge(&read(0..2))), (Ok(()), Ok(())));
    assert!(cut.judge(&read(0..1)).is_err() && cut.judge(&read(0..3)).is_err());
    cut.cut_is_done();
    assert!(cut.judge(&read(0..4)).is_err() && cut.judge(&read(0..2)).is_ok());
    let during = cut.since(&before);
    assert_eq!((during.judge(&read(0..4)), during.judge(&read(0..2))), (Ok(()), Ok(())));
    assert!(during.judge(&read(0..3)).is_err());
}

#[test]
fn what_was_found_is_what_the_log_is() {
    let mut oracle = oracle(4, 2);
    oracle.settle(&read(0..3));
    assert_eq!((oracle.records().len(), oracle.durable(), oracle.durable_end()), (3, 3, 192));
    assert!(oracle.judge(&read(0..2)).is_err());
}

#[test]
fn what_lies_before_the_beginning_is_not_asked_for_and_what_lies_behind_it_is() {
    let mut oracle = Oracle::default();
    for number in 0..4_u64 {
        let (lsn, end) = (number << 15, (number << 15) + 64);
        oracle.appended(Written { lsn, end, ..written(0, (number == 0).then_some(1)) });
    }
    oracle.all_durable();
    oracle.kept.trim_begins(3 << 15);
    oracle.kept.trim_is_done();
    let mut found = read([0, 0]);
    found.base = 2 << 15;
    for (read, number) in found.records.iter_mut().zip(2_u64..) {
        (read.lsn, read.end) = (number << 15, (number << 15) + 64);
    }
    assert_eq!(oracle.judge_whole(&found), Ok(()));
    found.records.pop();
    assert!(oracle.judge(&found).unwrap_err().contains("durable"));
    found.records.insert(0, read([0]).records.remove(0));
    assert!(oracle.judge(&found).is_err(), "it begins before it begins");
}
