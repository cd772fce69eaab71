//! The provisioner: keeps the next segments ready, so that no writer ever allocates, zeroes or
//! syncs one, and the last of them for what a full disk must not hold up.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use towline_protocol::epoch::Epoch;
use towline_protocol::lsn::Lsn;
use towline_protocol::record::RecordKind;

use crate::error::WalError;
use crate::header::SegmentHeader;
use crate::log::{Log, Tail};
use crate::segment::Segment;

/// So many segments are kept ready.
pub(crate) const READY_SEGMENTS: usize = 2;
/// So many of them are left alone by ordinary records.
const RESERVED_SEGMENTS: usize = 1;
/// The pause after a failure to prepare a segment, before the next try.
const RETRY: Duration = Duration::from_millis(200);

/// What a ready segment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Records that can wait until there is room.
    Ordinary,
    /// Those by which a full disk is led out of its trouble: they may take the last one.
    Vital,
}

impl Purpose {
    pub(crate) const fn of(kind: RecordKind) -> Self {
        match kind {
            RecordKind::Barrier | RecordKind::Grant | RecordKind::End => Self::Vital,
            RecordKind::Data | RecordKind::Seal | RecordKind::Abort => Self::Ordinary,
        }
    }
}

/// The ready segments, and whether more are wanted.
#[derive(Debug)]
pub(crate) struct Ready {
    state: Mutex<State>,
    wanted: Condvar,
}

#[derive(Debug)]
struct State {
    /// Those behind the tail, in their order and without a gap.
    ready: VecDeque<Arc<Segment>>,
    /// The epoch of the log, if the last of them was made for another.
    epoch: Option<Epoch>,
    /// Whether the tail's segment may not be left yet.
    unnoted: bool,
    /// Whether a stream has come to rest.
    resting: bool,
    trouble: Trouble,
    stop: bool,
}

/// Why no segment is ready.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// It is still being made.
    Slow,
    /// There is no room for it.
    Full(String),
    Failed(String),
}

impl Trouble {
    /// What a writer is told who has waited for so long.
    pub(crate) fn after(self, waited: Duration) -> WalError {
        let why = match self {
            Self::Full(what) => return WalError::NoSpace(what),
            Self::Slow => "the disk is still writing the next one".to_owned(),
            Self::Failed(why) => why,
        };
        WalError::NotReady { waited, why }
    }
}

impl Ready {
    pub(crate) fn new(ready: VecDeque<Arc<Segment>>) -> Self {
        let state = State {
            ready,
            epoch: None,
            unnoted: false,
            resting: false,
            trouble: Trouble::Slow,
            stop: false,
        };
        Self { state: Mutex::new(state), wanted: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the segment at `base`, if that is ready and may be taken.
    pub(crate) fn take(&self, base: Lsn, purpose: Purpose) -> Option<Arc<Segment>> {
        let mut state = self.state();
        if state.has(base, purpose) { state.ready.pop_front() } else { None }
    }

    /// Puts back the one that was taken last: without it nothing could follow on the tail.
    pub(crate) fn give_back(&self, taken: Segment) {
        self.state().ready.push_front(Arc::new(taken));
    }

    /// Whether the segment at `base` is ready and may be taken.
    pub(crate) fn has(&self, base: Lsn, purpose: Purpose) -> bool {
        self.state().has(base, purpose)
    }

    /// Why none is ready.
    pub(crate) fn trouble(&self) -> Trouble {
        self.state().trouble.clone()
    }

    /// Wakes the provisioner for what the tail lacks behind it. If the last ready one was made for
    /// another epoch, it gets a new header: a writer who takes it need not write and sync that.
    pub(crate) fn want(&self, tail: &Tail) {
        let Some(segment) = &tail.segment else { return };
        let epoch = segment.header.epoch;
        let mut state = self.state();
        let is_stale = state.ready.back().is_some_and(|last| last.header.epoch != epoch);
        state.epoch = is_stale.then_some(epoch);
        state.unnoted = !tail.may_be_left();
        drop(state);
        self.wanted.notify_all();
    }

    /// Wakes the provisioner: what was made for a stream is written a little at a time.
    pub(crate) fn come_to_rest(&self) {
        self.state().resting = true;
        self.wanted.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.state().stop = true;
        self.wanted.notify_all();
    }

    fn all(&self) -> Vec<Arc<Segment>> {
        self.state().ready.iter().map(Arc::clone).collect()
    }

    fn take_resting(&self) -> bool {
        std::mem::take(&mut self.state().resting)
    }

    /// Waits until something is wanted; `false` once stopped.
    fn wait_until_wanted(&self) -> bool {
        let mut state = self.state();
        let nothing = |it: &State| {
            let is_short = it.ready.len() < READY_SEGMENTS;
            !(is_short || it.epoch.is_some() || it.unnoted || it.resting || it.stop)
        };
        while nothing(&state) {
            state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.stop
    }

    fn is_short(&self) -> bool {
        self.state().ready.len() < READY_SEGMENTS
    }

    /// Takes out the last one, if it was made for another epoch.
    fn take_stale(&self) -> Option<(Arc<Segment>, Epoch)> {
        let mut state = self.state();
        let epoch = state.epoch.take()?;
        state.ready.back().filter(|last| last.header.epoch != epoch)?;
        state.ready.pop_back().map(|stale| (stale, epoch))
    }

    /// The base of the last one.
    fn last(&self) -> Option<Lsn> {
        self.state().ready.back().map(|last| last.base())
    }

    /// Adds one behind the last, or notes why there is none.
    pub(crate) fn put(&self, prepared: Result<Segment, WalError>) {
        let mut state = self.state();
        match prepared {
            Ok(segment) => {
                state.ready.push_back(Arc::new(segment));
                state.trouble = Trouble::Slow;
            }
            Err(error) => {
                state.trouble = match error {
                    WalError::NoSpace(what) => Trouble::Full(what),
                    other => Trouble::Failed(other.to_string()),
                };
                if !state.stop {
                    drop(self.wanted.wait_timeout(state, RETRY));
                }
            }
        }
    }
}

impl State {
    fn has(&self, base: Lsn, purpose: Purpose) -> bool {
        let left = match purpose {
            Purpose::Ordinary => RESERVED_SEGMENTS,
            Purpose::Vital => 0,
        };
        self.ready.len() > left && self.ready.front().is_some_and(|ready| ready.base() == base)
    }
}

/// The provisioner's thread.
pub(crate) fn run(log: &Log) {
    // An epoch that begins at once waits for this; it is tried again below.
    let _ = log.note_left();
    // Whoever opened the log did not wait for it.
    log.written_next().iter().for_each(|segment| segment.make_resident());
    log.provision.want(&log.tail());
    while log.provision.wait_until_wanted() {
        if log.provision.take_resting() {
            log.read_back();
        }
        log.segments.cool(log.flushed());
        // What is flushed is noted first, as an epoch may wait for that; what is not will be by the
        // time a segment is ready.
        let is_flushed = log.flushed() >= log.tail().entered_at;
        let noted = if is_flushed { log.note_left() } else { Ok(()) };
        let prepared = log.prepare_wanted();
        let noted = noted.and_then(|()| log.note_left());
        if let Some(prepared) = prepared {
            log.provision.put(prepared);
        }
        if let Err(error) = noted {
            if log.poisoned().is_some() {
                return;
            }
            log.provision.put(Err(error));
        }
        // Under the writers' lock, so that none of them misses it between looking and waiting. An
        // epoch may have begun while one was prepared.
        let tail = log.tail();
        log.provision.want(&tail);
        log.moved.notify_all();
    }
}

impl Log {
    /// The tail's segment and those that are ready.
    fn written_next(&self) -> Vec<Arc<Segment>> {
        let mut segments: Vec<_> = self.tail().segment.iter().cloned().collect();
        segments.extend(self.provision.all());
        segments
    }

    /// Makes one segment ready, if one is missing or the last one is of another epoch.
    fn prepare_wanted(&self) -> Option<Result<Segment, WalError>> {
        if let Some((stale, epoch)) = self.provision.take_stale() {
            return Some(stale.with_header(SegmentHeader {
                epoch,
                nonce: self.disk.nonce(),
                durable: self.flushed(),
                ..stale.header
            }));
        }
        self.provision.is_short().then(|| {
            let (header, pace) = {
                let tail = self.tail();
                (self.next_header(&tail), tail.pace)
            };
            Segment::prepare(&self.disk, &self.dir, header, pace)
        })
    }

    /// Notes that everything before the tail's segment is durable, once it is: that may then be
    /// left for the next one.
    fn note_left(&self) -> Result<(), WalError> {
        let entered_at = {
            let tail = self.tail();
            if tail.may_be_left() {
                return Ok(());
            }
            tail.entered_at
        };
        self.wait_flushed(entered_at)?;
        let flushed = self.flushed();
        self.note_durable(flushed)?;
        let mut tail = self.tail();
        tail.noted = tail.noted.max(flushed);
        self.moved.notify_all();
        Ok(())
    }

    /// Without a thread that does it: sees to it that the tail's segment may be left.
    pub(crate) fn let_leave<'a>(
        &'a self,
        tail: MutexGuard<'a, Tail>,
    ) -> Result<MutexGuard<'a, Tail>, WalError> {
        if self.threads || tail.may_be_left() {
            return Ok(tail);
        }
        drop(tail);
        self.note_left()?;
        Ok(self.tail())
    }

    /// After a stream: what is still to be written lies in memory page by page from now on. One
    /// segment at a time, as others may wait for the next to be ready.
    fn read_back(&self) {
        let from = self.reservations.reserved();
        let mut together = self.written_next();
        together.retain(|it| {
            it.lies_together() && it.header.size.next_base(it.base()) > from.max(it.base())
        });
        let Some(segment) = together.first() else { return };
        if let Err(error) = segment.read_back(from.max(segment.base())) {
            // What is stored there next may have no memory behind it.
            self.poison(&error);
            self.wake_watchers();
        } else if together.len() > 1 {
            self.provision.come_to_rest();
        }
    }

    /// Without a thread that does it: makes as many segments ready as there should be, before the
    /// one at `base` is taken.
    pub(crate) fn provision(
        &self,
        tail: &Tail,
        base: Lsn,
        purpose: Purpose,
    ) -> Result<(), WalError> {
        let missing = READY_SEGMENTS.saturating_sub(self.provision.state().ready.len());
        for _ in 0..if self.threads { 0 } else { missing } {
            let header = self.next_header(tail);
            match Segment::prepare(&self.disk, &self.dir, header, tail.pace) {
                Err(WalError::NoSpace(_)) if self.provision.has(base, purpose) => break,
                prepared => self.provision.put(Ok(prepared?)),
            }
        }
        Ok(())
    }

    /// The header of the segment behind the tail and those that are ready.
    fn next_header(&self, tail: &Tail) -> SegmentHeader {
        let control = self.control();
        let (base, epoch) = match &tail.segment {
            Some(segment) => (self.size.next_base(segment.base()), segment.header.epoch),
            None => (self.size.base_of(self.appended()), self.last_epoch()),
        };
        let base = self.provision.last().map_or(base, |last| self.size.next_base(last));
        SegmentHeader {
            log: control.log,
            base,
            epoch,
            size: self.size,
            nonce: self.disk.nonce(),
            durable: self.flushed(),
        }
    }
}
