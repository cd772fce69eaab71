use super::*;
use crate::epoch::EpochStart;
use crate::voters::{Voter, Voters};

fn epoch(number: u64) -> Epoch {
    Epoch { number, incarnation: Incarnation(number * 11) }
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn history() -> History {
    let first = EpochStart {
        epoch: epoch(1),
        first: Lsn::new(4_096),
        previous: Epoch::NONE,
        previous_end: Lsn::ZERO,
        digest: Digest::EMPTY,
        accepted_loss: false,
    };
    let second = EpochStart {
        epoch: epoch(2),
        first: Lsn::new(69_632),
        previous: epoch(1),
        previous_end: Lsn::new(5_000),
        digest: Digest(7),
        accepted_loss: true,
    };
    History::new([first, second]).unwrap()
}

fn positions() -> Positions {
    let voter = Voter { node: node("a"), incarnation: Incarnation(3), zone: "north".to_owned() };
    Positions {
        incarnation: Incarnation(3),
        fence: epoch(4),
        last: epoch(2),
        end: Lsn::new(70_000),
        committed: Lsn::new(69_900),
        sets: VoterSets::of(Voters::new(vec![voter], None).unwrap()),
        known_primary: Some(KnownPrimary {
            node: node("b"),
            epoch: epoch(4),
            age_ms: 12,
            leads: true,
        }),
    }
}

fn one_of_each() -> Vec<Frame> {
    let hello = Hello {
        version: PROTOCOL_VERSION,
        cluster: ClusterId(5),
        node: node("b"),
        incarnation: Incarnation(6),
        segment_size: SegmentSize::MIN,
        purpose: Purpose::Fetch(epoch(3)),
        fence: epoch(3),
        history: history(),
        end: Lsn::new(70_000),
        committed: Lsn::new(69_700),
    };
    let (from, digest) = (Lsn::new(9), Digest(10));
    let bodies = vec![
        Body::Hello(Box::new(hello)),
        Body::Welcome(Welcome::Stream { from, digest, until: None }),
        Body::Welcome(Welcome::Stream { from, digest, until: Some(Lsn::new(11)) }),
        Body::Welcome(Welcome::Truncate { to: from, digest }),
        Body::Welcome(Welcome::Redirect(None)),
        Body::Welcome(Welcome::Redirect(Some(node("c")))),
        Body::Welcome(Welcome::Ready),
        Body::Welcome(Welcome::Snapshot { oldest: from }),
        Body::Welcome(Welcome::Refuse(Refusal::Stale, "fenced".to_owned())),
        Body::Ack(Ack {
            incarnation: Incarnation(1),
            received: Lsn::new(4),
            flushed: Lsn::new(3),
            applied: Lsn::new(2),
            seen: 1,
        }),
        Body::Heartbeat(Heartbeat {
            committed: Lsn::new(1),
            appended: Lsn::new(2),
            lease_ms: 3,
            ended: true,
        }),
        Body::Ask,
        Body::Positions(Box::new(positions())),
        Body::Fence(Fence { newest: epoch(2), accepts_loss: true }),
        Body::Fenced(Box::new(positions())),
        Body::FenceRefused { at_work: true },
        Body::HandOver,
    ];
    let frame = |body| Frame { log: LogId(77), epoch: epoch(5), number: 99, body };
    bodies.into_iter().map(frame).collect()
}

#[test]
fn every_frame_reads_back_and_no_prefix_of_one_does() {
    for frame in one_of_each() {
        let bytes = frame.encode();
        assert_eq!(Frame::decode(&bytes), Ok(frame));
        for len in 0..bytes.len() {
            assert!(Frame::decode(&bytes[..len]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Frame::decode(&longer), Err(WireError::Trailing(1)));
    }
}

#[test]
fn damaged_frames_are_errors_and_never_panics() {
    for frame in one_of_each() {
        let bytes = frame.encode().to_vec();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = Frame::decode(&damaged);
            }
        }
    }
}

#[test]
fn a_lying_count_costs_nothing() {
    let hello = one_of_each().swap_remove(0).encode().to_vec();
    // The history's count sits behind kind, log, epoch, number and the hello's fixed fields.
    let at = 1 + 16 + 16 + 8 + 2 + 16 + 16 + 8 + 8 + 1 + 16 + 16;
    let mut lying = hello;
    lying[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Frame::decode(&lying).is_err());
}

#[test]
fn an_epoch_that_leaves_no_higher_one_is_refused() {
    let fence = epoch(4);
    let read = |number| {
        let far = Epoch { number, incarnation: Incarnation(1) };
        let frame = Frame { log: LogId(1), epoch: far, number: 0, body: Body::Ask };
        (Frame::decode(&frame.encode()), Frame::decode_near(&frame.encode(), fence))
    };
    assert!(read(fence.number + EPOCH_STEP_MAX).1.is_ok());
    let (anyhow, near) = read(fence.number + EPOCH_STEP_MAX + 1);
    assert!(anyhow.is_ok() && matches!(near, Err(WireError::Epoch { .. })));
    assert!(read(EPOCH_NUMBER_MAX).0.is_ok());
    for number in [EPOCH_NUMBER_MAX + 1, u64::MAX] {
        assert!(matches!(read(number).0, Err(WireError::Epoch { .. })));
    }
}

/// Where the fuzzer begins: a file for each kind of frame. A change of the format changes them;
/// the failure says how.
#[test]
fn the_fuzzers_corpus_holds_one_frame_of_each_kind() {
    macro_rules! corpus {
        ($($nth:literal)*) => {
            [$(&include_bytes!(concat!("../../../testdata/fuzz/frames/seed-", $nth))[..]),*]
        };
    }
    let corpus = corpus!["00" "01" "02" "03" "04" "05" "06" "07" "08" "09" "10" "11" "12" "13"
        "14" "15" "16" "17"];
    let mut seeds: Vec<Vec<u8>> =
        one_of_each().iter().map(|frame| [&[0], &frame.encode()[..]].concat()).collect();
    let segment = SegmentIdentity { base: Lsn::new(65_536), epoch: epoch(2), nonce: 8 };
    let header = Records { epoch: epoch(3), number: 4, segment, from: Lsn::new(69_632) };
    seeds.push([&[1], &header.encode()[..], b"records"].concat());
    assert_eq!(seeds.len(), corpus.len(), "a file for each");
    for (nth, (seed, held)) in seeds.iter().zip(corpus).enumerate() {
        let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(seed == held, "echo {hex} | xxd -r -p > testdata/fuzz/frames/seed-{nth:02}");
    }
}

#[test]
fn records_split_into_header_and_bytes() {
    let segment = SegmentIdentity { base: Lsn::new(65_536), epoch: epoch(2), nonce: 8 };
    let header = Records { epoch: epoch(3), number: 4, segment, from: Lsn::new(69_632) };
    let frame: Bytes = [&header.encode()[..], b"records"].concat().into();
    let (read, bytes) = Records::decode(&frame).unwrap();
    assert_eq!((read, &bytes[..]), (header, &b"records"[..]));
    assert!(Records::decode(&frame.slice(..RECORDS_HEADER_LEN - 1)).is_err());
}
