//! The open log: the write path, from a payload to a published record.
//!
//! ```text
//! reserve (lock) ─▶ checksum and copy (no lock) ─▶ publish (lock) ─▶ appended ─▶ syncer ─▶ flushed
//! ```
//!
//! A reservation takes the next Lsns of the tail segment. The bytes are made outside the lock, by
//! as many threads as there are writers. Whoever completes the oldest reservation publishes the
//! finished prefix; nobody waits for a predecessor.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use towline_protocol::barrier::Barrier;
use towline_protocol::epoch::{Epoch, EpochStart, History};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{
    Digest, RECORD_HEADER_LEN, RECORD_PAYLOAD_MAX, RecordHeader, RecordKind, stored_len,
};
use towline_protocol::terms::Terms;

use crate::control::Control;
use crate::copies::Copies;
use crate::disk::Disk;
use crate::error::WalError;
use crate::header::SegmentHeader;
use crate::planted::{Bug, planted};
use crate::provision::{Purpose, Ready};
use crate::segment::Segment;
use crate::segments::Segments;
use crate::wal::{Options, SyncMode};

/// A SEAL's length in the log: room for one is kept at the end of every segment.
pub(crate) const SEAL_LEN: u64 = stored_len(8);
/// How long an append waits for a ready segment before it says that there is no room.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a wait lasts before it looks at its deadline.
const MOVED_CHECK: Duration = Duration::from_millis(50);

/// A record in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Where it lies.
    pub lsn: Lsn,
    /// Where it ends.
    pub end: Lsn,
}

/// An open log; see [`Wal`](crate::Wal), which owns it.
#[derive(Debug)]
pub struct Log {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) salvage_dir: Option<PathBuf>,
    pub(crate) size: SegmentSize,
    pub(crate) control: Mutex<Control>,
    /// How the control file lies on the disk; locked after `control`.
    pub(crate) copies: Mutex<Copies>,
    pub(crate) tail: Mutex<Tail>,
    /// Woken when the oldest reservation completes, and when a segment is ready.
    pub(crate) moved: Condvar,
    /// Woken when there is something to sync.
    pub(crate) unsynced: Condvar,
    pub(crate) appended: watch::Sender<Lsn>,
    pub(crate) flushed: watch::Sender<Lsn>,
    /// Whether a sync runs: one at a time, whoever does it.
    pub(crate) syncing: Mutex<bool>,
    /// Woken when a sync has ended.
    pub(crate) synced: Condvar,
    pub(crate) segments: Segments,
    /// Held while the log's beginning moves on: one trim at a time, and no new slot meanwhile.
    pub(crate) trimming: Mutex<()>,
    /// The epoch history and the terms of what is in the log.
    pub(crate) lineage: Mutex<(History, Terms)>,
    pub(crate) poison: Mutex<Option<String>>,
    pub(crate) provision: Ready,
    /// Whether there are threads that sync and provision; otherwise whoever waits does.
    pub(crate) threads: bool,
    /// When the log's own thread syncs.
    pub(crate) sync_mode: SyncMode,
    /// When the sync that runs began.
    pub(crate) sync_began: Mutex<Option<Instant>>,
}

/// The end of the log, where records are added.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The segment that is written; `None` before the first record of the log.
    pub(crate) segment: Option<Arc<Segment>>,
    /// The end of the newest reservation. `appended <= reserved`.
    pub(crate) reserved: Lsn,
    /// Whether the segment takes nothing more: it has its SEAL, or a SEAL is being made.
    sealed: bool,
    /// Reservations that are not published yet, oldest first.
    pub(crate) in_flight: VecDeque<InFlight>,
    /// The digest of everything published.
    pub(crate) digest: Digest,
    /// Segments with bytes that no sync has covered yet, oldest first.
    pub(crate) unsynced: Vec<Arc<Segment>>,
    /// How many threads wait on `moved`: waking nobody would cost a system call.
    waiters: usize,
    /// How far the log has to be appended for the syncer's thread to be woken on `unsynced`, if
    /// it is to be.
    pub(crate) wake_syncer_at: Option<Lsn>,
    pub(crate) stop: bool,
}

impl Tail {
    pub(crate) const fn is_sealed(&self) -> bool {
        self.sealed
    }
}

#[derive(Debug)]
pub(crate) struct InFlight {
    lsn: Lsn,
    done: Option<RecordHeader>,
}

pub(crate) struct Reserved {
    pub(crate) segment: Arc<Segment>,
    pub(crate) lsn: Lsn,
    pub(crate) sync_lsn: Lsn,
}

/// What recovery hands to a new [`Log`].
pub(crate) struct Recovered {
    pub(crate) control: Control,
    pub(crate) copies: Copies,
    pub(crate) segments: Segments,
    pub(crate) tail: Option<Arc<Segment>>,
    pub(crate) end: Lsn,
    pub(crate) sealed: bool,
    pub(crate) digest: Digest,
    pub(crate) history: History,
    pub(crate) terms: Terms,
    pub(crate) ready: VecDeque<Arc<Segment>>,
}

impl Log {
    pub(crate) fn new(dir: &Path, options: Options, recovered: Recovered) -> Self {
        let Recovered { tail, end, sealed, digest, ready, .. } = recovered;
        let unsynced = tail.iter().cloned().collect();
        let tail = Tail {
            segment: tail,
            reserved: end,
            sealed,
            in_flight: VecDeque::new(),
            digest,
            unsynced,
            waiters: 0,
            wake_syncer_at: None,
            stop: false,
        };
        Self {
            dir: dir.to_owned(),
            disk: options.disk,
            salvage_dir: options.salvage_dir,
            size: recovered.control.segment_size,
            control: Mutex::new(recovered.control),
            copies: Mutex::new(recovered.copies),
            tail: Mutex::new(tail),
            moved: Condvar::new(),
            unsynced: Condvar::new(),
            appended: watch::Sender::new(end),
            flushed: watch::Sender::new(end),
            syncing: Mutex::new(false),
            synced: Condvar::new(),
            segments: recovered.segments,
            trimming: Mutex::new(()),
            lineage: Mutex::new((recovered.history, recovered.terms)),
            poison: Mutex::new(None),
            provision: Ready::new(ready),
            threads: options.threads,
            sync_mode: options.sync_mode,
            sync_began: Mutex::new(None),
        }
    }

    /// Appends one record in the current epoch. It is published, not yet flushed, on return.
    ///
    /// # Errors
    /// [`WalError`]; the record is then not in the log.
    pub fn append(&self, kind: RecordKind, tag: u16, payload: &[u8]) -> Result<Appended, WalError> {
        let len = self.check_len(payload.len())?;
        let Reserved { segment, lsn, sync_lsn } = self.reserve_place(kind, len)?;
        let header = RecordHeader::new(kind, tag, lsn, sync_lsn, payload);
        put(&segment, &header, payload);
        self.publish(lsn, header);
        Ok(Appended { lsn, end: header.end() })
    }

    pub(crate) fn check_len(&self, payload_len: usize) -> Result<u32, WalError> {
        let max = self.size.max_payload().min(u64::from(RECORD_PAYLOAD_MAX));
        match u32::try_from(payload_len) {
            Ok(len) if u64::from(len) <= max => Ok(len),
            _ => Err(WalError::TooLarge { len: payload_len, max }),
        }
    }

    pub(crate) fn reserve_place(&self, kind: RecordKind, len: u32) -> Result<Reserved, WalError> {
        let needed = stored_len(len) + SEAL_LEN;
        let mut tail = self.tail();
        loop {
            self.check_open(&tail)?;
            let segment = match &tail.segment {
                Some(segment) if !tail.sealed => Arc::clone(segment),
                Some(_) => {
                    tail = self.rotate(tail, Purpose::of(kind))?;
                    continue;
                }
                None => return Err(WalError::NoBoundary(tail.reserved)),
            };
            let size = segment.header.size;
            let left = size.bytes() - tail.reserved.distance_from(segment.base());
            if left < needed {
                tail = self.seal(tail, &segment)?;
                continue;
            }
            let lsn = tail.reserved;
            tail.reserved = lsn.advance(stored_len(len));
            tail.in_flight.push_back(InFlight { lsn, done: None });
            let promise = *self.flushed.borrow();
            let sync_lsn = if planted(Bug::PromiseTooHigh) { lsn } else { promise };
            return Ok(Reserved { segment, lsn, sync_lsn });
        }
    }

    /// Ends a full segment by a SEAL, once everything before it is published.
    fn seal<'a>(
        &'a self,
        mut tail: MutexGuard<'a, Tail>,
        segment: &Arc<Segment>,
    ) -> Result<MutexGuard<'a, Tail>, WalError> {
        while !tail.in_flight.is_empty() {
            tail = self.wait_moved(tail);
            self.check_open(&tail)?;
        }
        let current = tail.segment.as_ref().is_some_and(|now| now.base() == segment.base());
        if current && !tail.sealed {
            let payload = tail.digest.0.to_le_bytes();
            let (lsn, sync_lsn) = (tail.reserved, *self.flushed.borrow());
            let header = RecordHeader::new(RecordKind::Seal, 0, lsn, sync_lsn, &payload);
            put(segment, &header, &payload);
            tail.sealed = true;
            self.publish_in_order(&mut tail, &header);
        }
        Ok(tail)
    }

    /// Goes on in the next segment of the same epoch.
    fn rotate<'a>(
        &'a self,
        tail: MutexGuard<'a, Tail>,
        purpose: Purpose,
    ) -> Result<MutexGuard<'a, Tail>, WalError> {
        let segment = tail.segment.as_ref().expect("only a segment can be full");
        let (size, epoch) = (segment.header.size, segment.header.epoch);
        let base = size.next_base(segment.base());
        self.enter(tail, (base, epoch), purpose)
    }

    /// Makes the segment at `base` the tail, under a header of `epoch`. Waits until it is ready.
    pub(crate) fn enter<'a>(
        &'a self,
        mut tail: MutexGuard<'a, Tail>,
        (base, epoch): (Lsn, Epoch),
        purpose: Purpose,
    ) -> Result<MutexGuard<'a, Tail>, WalError> {
        let mut deadline = None;
        let before = tail.segment.as_ref().map(|segment| segment.base());
        let ready = loop {
            self.check_open(&tail)?;
            if tail.segment.as_ref().map(|segment| segment.base()) != before {
                return Ok(tail); // Another writer was faster.
            }
            self.provision(&tail, base, purpose)?;
            if let Some(ready) = self.provision.take(base, purpose) {
                break ready;
            }
            tail = self.wait_ready(tail, &mut deadline)?;
        };
        let segment = if ready.header.epoch == epoch {
            ready
        } else {
            let header = SegmentHeader {
                epoch,
                nonce: self.disk.nonce(),
                durable: *self.flushed.borrow(),
                ..ready.header
            };
            Arc::new(ready.with_header(header)?)
        };
        let first = SegmentSize::first_record(base);
        tail.segment = Some(Arc::clone(&segment));
        tail.reserved = first;
        tail.sealed = false;
        tail.unsynced.push(Arc::clone(&segment));
        self.segments.enter(segment, *self.flushed.borrow());
        self.provision.want(epoch);
        Ok(tail)
    }

    pub(crate) fn publish(&self, lsn: Lsn, header: RecordHeader) {
        let mut tail = self.tail();
        let entry = tail.in_flight.iter_mut().find(|entry| entry.lsn == lsn);
        entry.expect("a reservation stays until it is published").done = Some(header);
        while let Some(header) = tail.in_flight.front().and_then(|oldest| oldest.done) {
            tail.in_flight.pop_front();
            self.publish_in_order(&mut tail, &header);
        }
        if tail.in_flight.is_empty() && tail.waiters > 0 {
            self.moved.notify_all();
        }
    }

    /// Waits a moment for the next segment to be ready, as a thread makes it so. The deadline
    /// begins with the first call.
    fn wait_ready<'a>(
        &'a self,
        tail: MutexGuard<'a, Tail>,
        deadline: &mut Option<Instant>,
    ) -> Result<MutexGuard<'a, Tail>, WalError> {
        let now = Instant::now();
        if now >= *deadline.get_or_insert(now + READY_TIMEOUT) {
            return Err(WalError::NoSpace(self.provision.trouble()));
        }
        Ok(self.wait_moved(tail))
    }

    /// Waits until the last reservation is published or a segment is ready; now and then anyway,
    /// so that a caller's deadline is noticed.
    pub(crate) fn wait_moved<'a>(&'a self, mut tail: MutexGuard<'a, Tail>) -> MutexGuard<'a, Tail> {
        tail.waiters += 1;
        let woken = self.moved.wait_timeout(tail, MOVED_CHECK);
        let mut tail = woken.unwrap_or_else(PoisonError::into_inner).0;
        tail.waiters -= 1;
        tail
    }

    pub(crate) fn publish_in_order(&self, tail: &mut Tail, header: &RecordHeader) {
        assert_eq!(header.lsn.max(*self.appended.borrow()), header.lsn, "records are in order");
        tail.digest = tail.digest.with(header);
        self.appended.send_replace(header.end());
        if tail.wake_syncer_at.take_if(|at| *at <= header.end()).is_some() {
            self.unsynced.notify_one();
        }
    }

    /// Begins an epoch: at the next segment boundary, with `barrier` as its first record.
    ///
    /// # Errors
    /// [`WalError::Fork`] if the barrier does not follow on exactly this log.
    pub fn begin_epoch(&self, barrier: &Barrier) -> Result<Appended, WalError> {
        let tail = self.tail();
        let (tail, first) = self.wait_boundary(tail)?;
        let payload = barrier.encode();
        let (tail, sync_lsn) = self.enter_epoch(tail, barrier, first)?;
        let header = RecordHeader::new(RecordKind::Barrier, 0, first, sync_lsn, &payload);
        Ok(self.put_next(tail, &header, &payload))
    }

    /// Waits until nothing is in flight and the segment a BARRIER would open is ready, so that
    /// the epoch is then entered without letting go of the lock. Returns the BARRIER's place.
    pub(crate) fn wait_boundary<'a>(
        &'a self,
        mut tail: MutexGuard<'a, Tail>,
    ) -> Result<(MutexGuard<'a, Tail>, Lsn), WalError> {
        let mut deadline = None;
        loop {
            self.check_open(&tail)?;
            let first = self.size.barrier_after(self.end_of_records());
            let base = self.size.base_of(first);
            self.provision(&tail, base, Purpose::Vital)?;
            if tail.in_flight.is_empty() && self.provision.has(base, Purpose::Vital) {
                return Ok((tail, first));
            }
            tail = if tail.in_flight.is_empty() {
                self.wait_ready(tail, &mut deadline)?
            } else {
                self.wait_moved(tail)
            };
        }
    }

    /// The end of the newest record; [`Lsn::ZERO`] if there is none.
    pub(crate) fn end_of_records(&self) -> Lsn {
        *self.appended.borrow()
    }

    /// Checks that `barrier` follows on this log, persists the history, and enters the segment
    /// whose first record it will be. The history is written first: an entry without its BARRIER
    /// is dropped on opening, a BARRIER without its entry would be an epoch nobody knows.
    pub(crate) fn enter_epoch<'a>(
        &'a self,
        tail: MutexGuard<'a, Tail>,
        barrier: &Barrier,
        first: Lsn,
    ) -> Result<(MutexGuard<'a, Tail>, Lsn), WalError> {
        let fork = |what: String| Err(WalError::Fork { epoch: barrier.epoch, what });
        let (last, end) = (self.last_epoch(), self.end_of_records());
        if (barrier.previous, barrier.previous_end) != (last, end) {
            return fork(format!(
                "it says {} ended at {}, here {last} ends at {end}",
                barrier.previous, barrier.previous_end
            ));
        }
        if barrier.digest != tail.digest {
            return fork(format!(
                "its digest up to {end} is {:016x}, here it is {:016x}",
                barrier.digest.0, tail.digest.0
            ));
        }
        let start: EpochStart = barrier.start(first);
        let mut history = self.history();
        history.push(start)?;
        self.update_control(|control| control.history = history.clone())?;
        let base = self.size.base_of(first);
        let tail = self.enter(tail, (base, barrier.epoch), Purpose::Vital)?;
        let lineage = (history, barrier.terms.clone());
        *self.lineage.lock().unwrap_or_else(PoisonError::into_inner) = lineage;
        Ok((tail, *self.flushed.borrow()))
    }

    /// Puts a record at the end, under the lock.
    pub(crate) fn put_next(
        &self,
        mut tail: MutexGuard<'_, Tail>,
        header: &RecordHeader,
        payload: &[u8],
    ) -> Appended {
        let segment = tail.segment.clone().expect("a segment was entered");
        assert_eq!(tail.reserved, header.lsn, "the next record goes at the end");
        put(&segment, header, payload);
        tail.reserved = header.end();
        tail.sealed = header.kind == RecordKind::Seal;
        self.publish_in_order(&mut tail, header);
        Appended { lsn: header.lsn, end: header.end() }
    }

    pub(crate) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn check_open(&self, tail: &Tail) -> Result<(), WalError> {
        if let Some(reason) = self.poisoned() {
            return Err(WalError::Poisoned(reason));
        }
        if tail.stop { Err(WalError::Closed) } else { Ok(()) }
    }

    /// Wakes those who watch the watermarks, which stay as they are: nothing more will come.
    pub(crate) fn wake_watchers(&self) {
        self.flushed.send_modify(|_| {});
        self.appended.send_modify(|_| {});
    }

    pub(crate) fn stop(&self) {
        self.tail().stop = true;
        self.unsynced.notify_all();
        self.moved.notify_all();
        self.provision.stop();
        self.wake_watchers();
    }
}

/// Stores a record: the payload first, its header last.
fn put(segment: &Segment, header: &RecordHeader, payload: &[u8]) {
    segment.store(header.lsn.advance(RECORD_HEADER_LEN as u64), payload);
    segment.store(header.lsn, &header.encode(segment.seed));
}
