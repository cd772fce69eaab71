//! Which segments an open log has: the newest mapped, the others opened when they are read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use towline_protocol::id::LogId;
use towline_protocol::lsn::{Lsn, SegmentSize};

use crate::disk::Disk;
use crate::error::WalError;
use crate::segment::{Segment, file_name};

/// So many of the newest segments stay mapped; readers of older ones use pread.
pub(crate) const MAPPED_SEGMENTS: usize = 3;
/// So many older segments stay open, and in memory if they were; what is let go of, the page cache
/// lets go of, too. So a log's length costs neither file descriptors nor memory, and a fast one
/// does not push out what others read.
pub(crate) const COLD_SEGMENTS: usize = 16;

#[derive(Debug)]
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    log: LogId,
    size: SegmentSize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// The base of the oldest segment that is kept.
    oldest: Lsn,
    /// Those that are open, and when they were last asked for.
    held: BTreeMap<Lsn, (Arc<Segment>, u64)>,
    turn: u64,
}

impl Segments {
    pub(crate) fn new(
        disk: &Arc<dyn Disk>,
        dir: &std::path::Path,
        (log, size): (LogId, SegmentSize),
        oldest: Lsn,
        opened: Vec<Arc<Segment>>,
    ) -> Self {
        let held = opened.into_iter().map(|segment| (segment.base(), (segment, 0))).collect();
        let open = Mutex::new(Open { oldest, held, turn: 0 });
        Self { disk: Arc::clone(disk), dir: dir.to_owned(), log, size, open }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the log has the segment at `base`, with records in it.
    pub(crate) fn has(&self, base: Lsn) -> bool {
        self.open().has(base)
    }

    /// The segment at `base`; `None` if the log has none there.
    ///
    /// # Errors
    /// [`WalError`] if its file can not be opened or is not that segment's.
    pub(crate) fn get(&self, base: Lsn) -> Result<Option<Arc<Segment>>, WalError> {
        {
            let mut open = self.open();
            if !open.has(base) {
                return Ok(None);
            }
            open.turn += 1;
            let turn = open.turn;
            if let Some((segment, used)) = open.held.get_mut(&base) {
                *used = turn;
                return Ok(Some(Arc::clone(segment)));
            }
        }
        // Without the lock, which every rotation of the log takes.
        let segment = Arc::new(self.open_cold(base)?);
        let mut open = self.open();
        let turn = open.turn;
        open.held.entry(base).or_insert_with(|| (Arc::clone(&segment), turn));
        let let_go = open.let_go_of_cold();
        drop(open);
        let_go.iter().for_each(|segment| segment.forget_cached());
        Ok(Some(segment))
    }

    fn open_cold(&self, base: Lsn) -> Result<Segment, WalError> {
        let path = self.dir.join(file_name(base));
        let segment = match Segment::open(&self.disk, &path, false) {
            Err(WalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(WalError::MissingSegment { dir: self.dir.clone(), base });
            }
            opened => opened?,
        };
        segment.header.check_place(&path, self.log, self.size)?;
        Ok(segment)
    }

    /// Adds the newest segment.
    pub(crate) fn enter(&self, segment: Arc<Segment>) {
        let mut open = self.open();
        let turn = open.turn;
        open.held.insert(segment.base(), (segment, turn));
    }

    /// Lets go of the mappings of segments that are old by now. To unmap one takes as long as
    /// thousands of records.
    pub(crate) fn cool(&self, flushed: Lsn) {
        let old: Vec<_> = {
            let open = self.open();
            let old = open.held.values().rev().skip(MAPPED_SEGMENTS).map(|(segment, _)| segment);
            let is_done = |it: &Segment| it.header.size.next_base(it.base()) <= flushed;
            old.filter(|it| it.is_mapped() && is_done(it)).map(Arc::clone).collect()
        };
        for old in old.into_iter().rev() {
            // One that can not be opened again stays mapped, and is tried at the next turn.
            let Ok(cold) = old.cold() else { continue };
            let mut open = self.open();
            let turn = open.turn;
            // It may have been trimmed or replaced meanwhile.
            if let Some(held) = open.held.get_mut(&cold.base()).filter(|it| it.0.is_mapped()) {
                *held = (Arc::new(cold), turn);
            }
            let let_go = open.let_go_of_cold();
            // The mapping and the page cache go without the lock.
            drop(open);
            drop(old);
            let_go.iter().for_each(|segment| segment.forget_cached());
        }
    }

    /// Closes a segment whose file was replaced; it is opened again when it is read.
    pub(crate) fn forget(&self, base: Lsn) {
        self.open().held.remove(&base);
    }

    /// Forgets what is below `oldest`.
    pub(crate) fn trim(&self, oldest: Lsn) {
        let mut open = self.open();
        open.oldest = oldest;
        open.held = open.held.split_off(&oldest);
    }
}

impl Open {
    fn newest(&self) -> Option<Lsn> {
        self.held.last_key_value().map(|(&base, _)| base)
    }

    fn has(&self, base: Lsn) -> bool {
        self.oldest <= base && self.newest().is_some_and(|newest| base <= newest)
    }

    /// Takes out those that were not asked for in the longest time.
    fn let_go_of_cold(&mut self) -> Vec<Arc<Segment>> {
        let newest = self.newest();
        let is_cold = |segment: &Segment| !segment.is_mapped() && Some(segment.base()) != newest;
        let mut let_go = Vec::new();
        while self.held.values().filter(|(segment, _)| is_cold(segment)).count() > COLD_SEGMENTS {
            let cold = self.held.values().filter(|(segment, _)| is_cold(segment));
            let coldest = cold.min_by_key(|(_, used)| used).map(|(it, _)| it.base());
            let removed = coldest.and_then(|base| self.held.remove(&base));
            let_go.extend(removed.map(|(segment, _)| segment));
        }
        let_go
    }
}
