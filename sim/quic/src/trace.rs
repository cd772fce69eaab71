//! What happened in a run: every packet and every event, in order, in one number.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What of a run is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prints {
    /// Only how it ended.
    Nothing,
    /// The number of its trace.
    Hash,
    /// What clients and faults did, and what nodes log.
    Events,
    /// The packets, too.
    Packets,
}

/// The trace of one run. Clones write to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    begun: Instant,
    prints: Prints,
    written: Arc<Mutex<Written>>,
}

#[derive(Debug)]
struct Written {
    hash: DefaultHasher,
    packets: u64,
}

impl Trace {
    /// A trace that begins now; it prints its events if it is told to.
    pub(crate) fn new(prints: Prints) -> Self {
        let written = Written { hash: DefaultHasher::new(), packets: 0 };
        Self { begun: Instant::now(), prints, written: Arc::new(Mutex::new(written)) }
    }

    /// How long the run has taken, in its own time.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A packet was sent. Its content is left out: keys differ from process to process.
    pub(crate) fn packet(&self, from: SocketAddr, to: SocketAddr, len: usize) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.packets += 1;
        if self.prints == Prints::Packets {
            println!("{:10.3} {from} to {to}: {len}", self.elapsed().as_secs_f64());
        }
        (self.elapsed(), from, to, len).hash(&mut written.hash);
    }

    /// Something else happened.
    pub(crate) fn event(&self, what: impl Display) {
        let (at, what) = (self.elapsed(), what.to_string());
        if matches!(self.prints, Prints::Events | Prints::Packets) {
            println!("{:10.3} {what}", at.as_secs_f64());
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        (at, what).hash(&mut written.hash);
    }

    /// The number that stands for everything so far, and how many packets there were.
    pub(crate) fn sum(&self) -> (u64, u64) {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        (written.hash.finish(), written.packets)
    }
}
