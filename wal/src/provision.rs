//! The provisioner: keeps the next segment ready, so that no writer ever allocates, zeroes or
//! syncs one.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use towline_protocol::lsn::Lsn;

use crate::error::WalError;
use crate::header::SegmentHeader;
use crate::log::{Log, Tail};
use crate::segment::Segment;

/// The pause after a failure to prepare a segment, before the next try.
const RETRY: Duration = Duration::from_millis(200);

/// The ready segment, and whether one is wanted.
#[derive(Debug)]
pub(crate) struct Ready {
    state: Mutex<State>,
    wanted: Condvar,
}

#[derive(Debug)]
struct State {
    ready: Option<Arc<Segment>>,
    trouble: String,
    stop: bool,
}

impl Ready {
    pub(crate) fn new(ready: Option<Arc<Segment>>) -> Self {
        let trouble = "the next segment is still being prepared".to_owned();
        let state = State { ready, trouble, stop: false };
        Self { state: Mutex::new(state), wanted: Condvar::new() }
    }

    /// Takes the segment at `base`, if that is the one that is ready.
    pub(crate) fn take(&self, base: Lsn) -> Option<Arc<Segment>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ready.take_if(|ready| ready.base() == base)
    }

    /// Whether the segment at `base` is ready.
    pub(crate) fn has(&self, base: Lsn) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ready.as_ref().is_some_and(|ready| ready.base() == base)
    }

    /// Why none is ready.
    pub(crate) fn trouble(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }

    pub(crate) fn want(&self) {
        self.wanted.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.wanted.notify_all();
    }

    /// Waits until a segment is wanted; `false` once stopped.
    fn wait_until_wanted(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.ready.is_some() && !state.stop {
            state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.stop
    }

    pub(crate) fn put(&self, prepared: Result<Segment, WalError>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match prepared {
            Ok(segment) => state.ready = Some(Arc::new(segment)),
            Err(error) => {
                state.trouble = error.to_string();
                if !state.stop {
                    drop(self.wanted.wait_timeout(state, RETRY));
                }
            }
        }
    }
}

/// The provisioner's thread.
pub(crate) fn run(log: &Log) {
    while log.provision.wait_until_wanted() {
        log.segments.cool(log.flushed());
        let header = next_header(log, &log.tail());
        let prepared = Segment::prepare(&log.disk, &log.dir, header);
        if let Some(segment) = prepared.as_ref().ok().filter(|_| log.tail().in_bulk) {
            segment.make_writable();
        }
        log.provision.put(prepared);
        // Under the writers' lock, so that none of them misses it between looking and waiting.
        let _tail = log.tail();
        log.moved.notify_all();
    }
}

/// The header of the segment behind the tail.
pub(crate) fn next_header(log: &Log, tail: &Tail) -> SegmentHeader {
    let control = log.control();
    let (base, epoch) = match &tail.segment {
        Some(segment) => (segment.header.size.next_base(segment.base()), segment.header.epoch),
        None => (control.segment_size.base_of(log.appended()), log.last_epoch()),
    };
    SegmentHeader {
        log: control.log,
        base,
        epoch,
        size: control.segment_size,
        nonce: log.disk.nonce(),
        durable: log.flushed(),
    }
}
