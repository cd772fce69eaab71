//! The open log: the write path, from a payload to a published record.
//!
//! ```text
//! reserve (one CAS) ─▶ checksum and copy ─▶ publish (one store) ─▶ appended ─▶ syncer ─▶ flushed
//! ```
//!
//! A [`Place`] is the next Lsns of the tail segment, and its writer's alone until it publishes.
//! What happens once per segment (a SEAL, the next segment, a BARRIER) happens under the tail's
//! lock, with the reservations closed and nothing in flight.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use towline_protocol::epoch::{Epoch, History};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::record::{
    Digest, RECORD_HEADER_LEN, RECORD_PAYLOAD_MAX, RecordHeader, RecordKind, stored_len,
};
use towline_protocol::terms::Terms;

use crate::control::Control;
use crate::copies::Copies;
use crate::disk::Disk;
use crate::error::WalError;
use crate::flushes::Flushes;
use crate::header::SegmentHeader;
use crate::pace::Pace;
use crate::planted::{Bug, planted};
use crate::provision::{Purpose, Ready};
use crate::reserve::{self, Refused, Reservations};
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
    /// How the control file lies on the disk, until the log is closed; locked after `control`.
    pub(crate) copies: Mutex<Option<Copies>>,
    pub(crate) tail: Mutex<Tail>,
    /// Woken when a segment is ready, and when nobody is at a boundary any more.
    pub(crate) moved: Condvar,
    pub(crate) reservations: Arc<Reservations<Arc<Segment>>>,
    pub(crate) flushes: Flushes,
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
}

/// The end of the log, where records are added: what changes once per segment.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The segment that is written; `None` before the first record of the log.
    pub(crate) segment: Option<Arc<Segment>>,
    /// Whether the segment has its SEAL.
    sealed: bool,
    /// Whether somebody begins an epoch: nobody else reserves, seals or rotates meanwhile.
    pub(crate) held: bool,
    /// Segments with bytes that no sync has covered yet, oldest first.
    pub(crate) unsynced: Vec<Arc<Segment>>,
    /// Where the log ended, at the most, when the segment was entered.
    pub(crate) entered_at: Lsn,
    /// So much the control file says is durable, at the least.
    pub(crate) noted: Lsn,
    pub(crate) stop: bool,
    /// When the segment was entered, if this process entered it.
    filled_since: Option<Instant>,
    /// How often was synced since.
    syncs: u64,
    /// From where on.
    synced_from: Lsn,
    /// How fast the one before was filled.
    pub(crate) pace: Pace,
}

impl Tail {
    pub(crate) const fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Whether the next segment may be entered: only once it is noted that everything before this
    /// one is durable. So no more than two wait for a sync, and opening need not look further
    /// than one segment behind the place where the records end.
    pub(crate) fn may_be_left(&self) -> bool {
        self.noted >= self.entered_at || planted(Bug::EnteredUnnoted)
    }

    /// The log was synced up to there; whether a stream is over with that.
    pub(crate) fn synced(&mut self, flushed: Lsn) -> bool {
        self.syncs += 1;
        let may_be_stream = self.segment.as_ref().is_some_and(|segment| segment.lies_together());
        let bytes = flushed.max(self.synced_from).distance_from(self.synced_from);
        may_be_stream && Pace::is_over(bytes, self.syncs)
    }
}

/// A place in the tail segment.
pub(crate) type Place<'a> = reserve::Place<'a, Arc<Segment>>;

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
        let entered_at = tail.as_ref().map_or(Lsn::ZERO, |segment| segment.base().min(end));
        let size = recovered.control.segment_size;
        let reservations = Reservations::new(end, digest, size.bytes() - SEAL_LEN);
        if let Some(segment) = &tail {
            let base = segment.base();
            reservations.enter(base, end.distance_from(base), Arc::clone(segment));
            if !sealed {
                reservations.open();
            }
        }
        let tail = Tail {
            segment: tail,
            sealed,
            held: false,
            unsynced,
            entered_at,
            noted: recovered.control.durable,
            stop: false,
            filled_since: None,
            syncs: 0,
            synced_from: end,
            pace: Pace::AtRest,
        };
        Self {
            dir: dir.to_owned(),
            disk: options.disk,
            salvage_dir: options.salvage_dir,
            size,
            control: Mutex::new(recovered.control),
            copies: Mutex::new(Some(recovered.copies)),
            tail: Mutex::new(tail),
            moved: Condvar::new(),
            reservations: Arc::new(reservations),
            flushes: Flushes::new(end),
            segments: recovered.segments,
            trimming: Mutex::new(()),
            lineage: Mutex::new((recovered.history, recovered.terms)),
            poison: Mutex::new(None),
            provision: Ready::new(ready),
            threads: options.threads,
            sync_mode: options.sync_mode,
        }
    }

    /// Appends one record of the current epoch, DATA or END, and returns where it lies: published,
    /// not yet flushed. `tag` is the caller's own; it comes back in the header.
    ///
    /// It copies, and returns at once, unless no segment is ready (10 s at most) or an epoch
    /// begins: not for a thread that runs tasks.
    ///
    /// # Errors
    /// [`WalError::TooLarge`], [`WalError::ReservedKind`], [`WalError::NoEpoch`];
    /// [`WalError::NoSpace`] or [`WalError::NotReady`] if no segment was ready in time;
    /// [`WalError::Poisoned`] after a failed sync; [`WalError::Closed`]. The record is then not in
    /// the log.
    pub fn append(&self, kind: RecordKind, tag: u16, payload: &[u8]) -> Result<Appended, WalError> {
        let len = self.check(kind, payload.len())?;
        // What needs no place comes before there is one: others wait for less.
        let pcrc = crc32fast::hash(payload);
        let place = self.reserve_place(kind, len)?;
        let (lsn, sync_lsn) = (place.lsn, promise_of(&place));
        let header = RecordHeader { len, lsn, sync_lsn, pcrc, kind, flags: 0, tag };
        put(place.target(), &header, payload);
        place.publish(header.end(), header.fingerprint());
        Ok(Appended { lsn, end: header.end() })
    }

    /// What a caller may append; the other kinds are the log's own.
    pub(crate) fn check(&self, kind: RecordKind, payload_len: usize) -> Result<u32, WalError> {
        if !matches!(kind, RecordKind::Data | RecordKind::End) {
            return Err(WalError::ReservedKind(kind));
        }
        let max = self.size.max_payload().min(u64::from(RECORD_PAYLOAD_MAX));
        match u32::try_from(payload_len) {
            Ok(len) if u64::from(len) <= max => Ok(len),
            _ => Err(WalError::TooLarge { len: payload_len, max }),
        }
    }

    pub(crate) fn reserve_place(&self, kind: RecordKind, len: u32) -> Result<Place<'_>, WalError> {
        let stored = stored_len(len);
        loop {
            match self.reservations.reserve(stored, || self.flushed()) {
                Ok(place) => return Ok(place),
                Err(refused) => self.make_room(refused, stored, Purpose::of(kind))?,
            }
        }
    }

    /// Does, or waits for, what a reservation was refused for.
    #[cold]
    fn make_room(&self, refused: Refused, stored: u64, purpose: Purpose) -> Result<(), WalError> {
        if refused == Refused::Full {
            self.reservations.wait_slot();
        }
        let tail = self.tail();
        self.check_open(&tail)?;
        let Some(segment) = tail.segment.clone() else {
            return Err(WalError::NoEpoch);
        };
        if tail.held {
            drop(self.wait_moved(tail));
        } else if tail.sealed {
            drop(self.rotate(tail, purpose)?);
        } else if self.reservations.is_closed() || self.reservations.left() < stored {
            // Closed by a writer who found it full, and seals it unless this one is faster.
            self.seal(tail, &segment)?;
        }
        Ok(())
    }

    /// Ends a full segment by a SEAL, once everything before it is published.
    fn seal<'a>(
        &'a self,
        tail: MutexGuard<'a, Tail>,
        segment: &Arc<Segment>,
    ) -> Result<(), WalError> {
        self.reservations.close();
        // Not under the tail's lock: those who are to publish may need it, and the syncer does.
        drop(tail);
        self.reservations.wait_quiet();
        let tail = self.tail();
        self.check_open(&tail)?;
        let current = tail.segment.as_ref().is_some_and(|now| now.base() == segment.base());
        let prefix = self.reservations.prefix();
        // Another writer may have been faster, or an epoch have begun.
        let Some(lsn) = self.reservations.next(&prefix) else { return Ok(()) };
        if current && !tail.sealed && !tail.held {
            let payload = prefix.digest.0.to_le_bytes();
            drop(prefix);
            let header = RecordHeader::new(RecordKind::Seal, 0, lsn, self.flushed(), &payload);
            self.put_next(tail, &header, &payload)?;
        }
        Ok(())
    }

    /// Lets writers reserve, if there is nothing against it.
    pub(crate) fn reopen(&self, tail: &Tail) {
        let may = tail.segment.is_some() && !tail.sealed && !tail.held;
        if may && self.check_open(tail).is_ok() {
            self.reservations.open();
        }
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

    /// Makes the segment at `base` the tail, under a header of `epoch`, once it is ready; unless
    /// another writer has moved the tail meanwhile, then it is left as it is.
    pub(crate) fn enter<'a>(
        &'a self,
        mut tail: MutexGuard<'a, Tail>,
        (base, epoch): (Lsn, Epoch),
        purpose: Purpose,
    ) -> Result<MutexGuard<'a, Tail>, WalError> {
        let mut deadline = None;
        let before = tail.segment.as_ref().map(|segment| segment.base());
        let ready = loop {
            tail = self.let_leave(tail)?;
            self.check_open(&tail)?;
            if tail.segment.as_ref().map(|segment| segment.base()) != before {
                return Ok(tail); // Another writer was faster.
            }
            self.provision(&tail, base, purpose)?;
            let ready = tail.may_be_left().then(|| self.provision.take(base, purpose));
            if let Some(ready) = ready.flatten() {
                break ready;
            }
            tail = self.wait_ready(tail, &mut deadline)?;
        };
        let segment = self.in_epoch(ready, epoch)?;
        self.install(&mut tail, segment);
        self.reopen(&tail);
        self.provision.want(&tail);
        Ok(tail)
    }

    /// A ready segment under a header of `epoch`. Without one it stays ready.
    fn in_epoch(&self, ready: Arc<Segment>, epoch: Epoch) -> Result<Arc<Segment>, WalError> {
        if ready.header.epoch == epoch {
            return Ok(ready);
        }
        let header = SegmentHeader {
            epoch,
            nonce: self.disk.nonce(),
            durable: self.flushed(),
            ..ready.header
        };
        let renamed = ready.with_header(header).map(Arc::new);
        renamed.inspect_err(|_| self.provision.give_back(ready.of_no_epoch()))
    }

    /// Everything that knows of the tail's segment has this one from now on.
    fn install(&self, tail: &mut Tail, segment: Arc<Segment>) {
        let base = segment.base();
        tail.entered_at = self.appended();
        tail.segment = Some(Arc::clone(&segment));
        tail.sealed = false;
        if self.threads {
            let now = Instant::now();
            let before = tail.filled_since.replace(now);
            let syncs = std::mem::take(&mut tail.syncs);
            let bytes = self.flushed().max(tail.synced_from).distance_from(tail.synced_from);
            // An epoch skips the rest of a segment, which nobody syncs.
            let skipped = base.distance_from(tail.entered_at.min(base));
            tail.synced_from = self.flushed().advance(skipped);
            tail.pace = before.map_or(Pace::AtRest, |it| Pace::of(now - it, bytes, syncs));
        }
        tail.unsynced.push(Arc::clone(&segment));
        self.reservations.enter(base, SegmentSize::HEADER_LEN, Arc::clone(&segment));
        self.segments.enter(segment);
        if !self.threads {
            self.segments.cool(self.flushed());
        }
    }

    /// Waits a moment for the next segment to be ready, as a thread makes it so. The deadline
    /// begins with the first call.
    pub(crate) fn wait_ready<'a>(
        &'a self,
        tail: MutexGuard<'a, Tail>,
        deadline: &mut Option<Instant>,
    ) -> Result<MutexGuard<'a, Tail>, WalError> {
        let now = Instant::now();
        if now >= *deadline.get_or_insert(now + READY_TIMEOUT) {
            return Err(self.provision.trouble().after(READY_TIMEOUT));
        }
        Ok(self.wait_moved(tail))
    }

    /// Waits until a segment is ready or a boundary is passed; now and then anyway, so that a
    /// caller's deadline is noticed.
    pub(crate) fn wait_moved<'a>(&'a self, tail: MutexGuard<'a, Tail>) -> MutexGuard<'a, Tail> {
        let woken = self.moved.wait_timeout(tail, MOVED_CHECK);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Puts a record at the end, under the lock. Nobody reserves meanwhile.
    pub(crate) fn put_next(
        &self,
        mut tail: MutexGuard<'_, Tail>,
        header: &RecordHeader,
        payload: &[u8],
    ) -> Result<Appended, WalError> {
        self.reservations.close();
        let put = self.put_closed(&tail, header, payload);
        tail.sealed |= put.is_ok() && header.kind == RecordKind::Seal;
        self.reopen(&tail);
        put
    }

    fn put_closed(
        &self,
        tail: &Tail,
        header: &RecordHeader,
        payload: &[u8],
    ) -> Result<Appended, WalError> {
        let mut prefix = self.reservations.prefix();
        let expected = self.reservations.next(&prefix);
        let segment = tail.segment.as_ref().filter(|_| expected == Some(header.lsn));
        let Some(segment) = segment else {
            return Err(WalError::Gap {
                got: header.lsn,
                expected: expected.unwrap_or(prefix.end),
            });
        };
        put(segment, header, payload);
        self.reservations.put(&mut prefix, header.end(), header.fingerprint());
        Ok(Appended { lsn: header.lsn, end: header.end() })
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
        self.flushes.wake_all();
        self.reservations.wake_watchers();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.tail().stop
    }

    pub(crate) fn stop(&self) {
        let mut tail = self.tail();
        tail.stop = true;
        self.reservations.close();
        self.reservations.end();
        drop(tail);
        self.moved.notify_all();
        self.provision.stop();
        self.wake_watchers();
    }
}

/// The promise of a record at `place`.
pub(crate) fn promise_of(place: &Place<'_>) -> Lsn {
    if planted(Bug::PromiseTooHigh) { place.lsn } else { place.promise }
}

/// Stores a record: the payload first, its header last.
fn put(segment: &Segment, header: &RecordHeader, payload: &[u8]) {
    segment.store(header.lsn.advance(RECORD_HEADER_LEN as u64), payload);
    segment.store(header.lsn, &header.encode(segment.seed));
}
