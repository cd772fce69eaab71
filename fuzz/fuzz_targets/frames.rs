//! Bytes from a peer, read as a frame: what is read can be said again, costs no more memory than
//! it was sent, and nothing panics.
//!
//! The first byte picks what the rest is: a control frame, or a frame of records.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use towline_protocol::epoch::Epoch;
use towline_protocol::frame::{Frame, RECORDS_HEADER_LEN, Records};

/// What reading may allocate for every byte it was given: a growing list, twice over.
const PER_BYTE: usize = 6;
/// What it may allocate beside that: the words of an error.
const BESIDE: usize = 4_096;

/// Adds up what is asked for. Nothing is taken off: churn counts, too.
struct Counting;

static ASKED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn cheaply<T>(len: usize, read: impl FnOnce() -> T) -> T {
    let before = ASKED.load(Ordering::Relaxed);
    let value = read();
    let asked = ASKED.load(Ordering::Relaxed) - before;
    assert!(asked <= PER_BYTE * len + BESIDE, "{asked} bytes asked for, to read {len}");
    value
}

fn control(bytes: &[u8]) {
    let near = cheaply(bytes.len(), || Frame::decode_near(bytes, Epoch::NONE));
    match cheaply(bytes.len(), || Frame::decode(bytes)) {
        Err(_) => assert!(near.is_err(), "what is no frame is none near any fence"),
        Ok(frame) => {
            let again = frame.encode();
            assert!(again.len() <= bytes.len(), "it grew");
            assert_eq!(Frame::decode(&again).as_ref(), Ok(&frame));
            assert!(near.is_err() || near.as_ref() == Ok(&frame));
        }
    }
}

fn records(bytes: Bytes) {
    match cheaply(bytes.len(), || Records::decode(&bytes)) {
        Err(_) => assert!(bytes.len() < RECORDS_HEADER_LEN, "a whole header was refused"),
        Ok((header, rest)) => {
            assert_eq!([&header.encode()[..], &rest[..]].concat(), bytes);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        None => {}
        Some((kind, rest)) if kind % 2 == 0 => control(rest),
        Some((_, rest)) => records(Bytes::copy_from_slice(rest)),
    }
});
