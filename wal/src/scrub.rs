//! Scrubbing: reading what is long on the disk again, to find what rotted while there is a peer
//! that has it whole.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use towline_protocol::lsn::{Lsn, SegmentSize};

use crate::check::{Known, SegmentCheck};
use crate::disk::Access;
use crate::error::{AtPath, WalError};
use crate::log::Log;
use crate::segment::{file_name, read_header};
use crate::wal::Wal;

/// How much is read at a time, in bytes: after each the pace is kept and the log may be closed.
const BLOCK_LEN: usize = 256 << 10;
/// The longest sleep at a time.
const NAP: Duration = Duration::from_millis(50);

/// Checks every complete segment of an open log, the oldest first: one at each step. It reads the
/// files, not mappings, holds one segment in memory, and leaves out what is not flushed yet.
#[derive(Debug)]
pub struct Scrub {
    log: Arc<Log>,
    next: Lsn,
    throttle: Option<Throttle>,
}

#[derive(Debug)]
struct Throttle {
    bytes_per_second: NonZeroU64,
    began: Instant,
    read: u64,
}

impl Throttle {
    /// How long to wait until the pace allows more.
    fn due_in(&self) -> Duration {
        let earned = self.read as f64 / self.bytes_per_second.get() as f64;
        Duration::from_secs_f64(earned).saturating_sub(self.began.elapsed())
    }
}

impl Wal {
    /// A scrub of the log as it is now, that reads no more than `bytes_per_second`, or as fast as
    /// it can if `None`.
    #[must_use]
    pub fn scrub(&self, bytes_per_second: Option<NonZeroU64>) -> Scrub {
        let throttle = bytes_per_second.map(|bytes_per_second| Throttle {
            bytes_per_second,
            began: Instant::now(),
            read: 0,
        });
        Scrub { log: self.log(), next: self.oldest().base, throttle }
    }
}

impl Iterator for Scrub {
    type Item = Result<SegmentCheck, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let base = self.next.max(self.log.oldest().base);
        let end = self.log.complete_end(base)?;
        if end > self.log.flushed() {
            return None;
        }
        self.next = self.log.size.next_base(base);
        let checked = self.check(base);
        // It may have been trimmed at this moment.
        if self.log.oldest().base > base {
            return self.next();
        }
        Some(checked)
    }
}

impl Scrub {
    fn check(&mut self, base: Lsn) -> Result<SegmentCheck, WalError> {
        let log = Arc::clone(&self.log);
        let end = log.size.next_base(base);
        let path = log.dir.join(file_name(base));
        let unreadable = |what: String| SegmentCheck::unreadable(base, end, path.clone(), what);
        let file = match log.disk.open(&path, Access::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(unreadable("it is missing".to_owned()));
            }
            opened => opened.at("opening", &path)?,
        };
        file.forget_cached();
        let placed = read_header(&*file, &path).and_then(|header| {
            header.check_place(&path, log.control().log, log.size).map(|()| header)
        });
        let header = match placed {
            Ok(header) => header,
            Err(WalError::Corrupt { what, .. } | WalError::Foreign { what, .. }) => {
                return Ok(unreadable(what));
            }
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; usize::try_from(log.size.bytes()).unwrap_or(usize::MAX)];
        for (at, block) in bytes.chunks_mut(BLOCK_LEN).enumerate() {
            match file.read_exact_at(block, (at * BLOCK_LEN) as u64) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                read => read.at("reading", &path)?,
            }
            self.keep_pace(block.len() as u64)?;
        }
        Ok(SegmentCheck::of(&header, path, &bytes, log.known_of(base)?))
    }

    fn keep_pace(&mut self, read: u64) -> Result<(), WalError> {
        if self.log.tail().stop {
            return Err(WalError::Closed);
        }
        let Some(throttle) = &mut self.throttle else { return Ok(()) };
        throttle.read += read;
        loop {
            let due = throttle.due_in();
            if due.is_zero() {
                return Ok(());
            }
            std::thread::sleep(due.min(NAP));
            if self.log.tail().stop {
                return Err(WalError::Closed);
            }
        }
    }
}

impl Log {
    /// Where the records of a segment end that takes no more; `None` for the newest one.
    pub(crate) fn complete_end(&self, base: Lsn) -> Option<Lsn> {
        let newest = self.tail().segment.as_ref().map(|segment| segment.base())?;
        let next = self.size.next_base(base);
        let ended = self.ended_early(base).map_or(next, |(end, _)| end);
        (base < newest).then_some(ended)
    }

    /// Where an epoch that began behind a segment ended it, and the digest up to there.
    fn ended_early(&self, base: Lsn) -> Option<(Lsn, towline_protocol::record::Digest)> {
        let next = SegmentSize::first_record(self.size.next_base(base));
        let history = self.history();
        let start = history.starts().iter().find(|start| start.first == next)?;
        (start.previous_end > base).then_some((start.previous_end, start.digest))
    }

    /// What is known of a complete segment from others.
    ///
    /// # Errors
    /// What keeps the segment before it from being read.
    pub(crate) fn known_of(&self, base: Lsn) -> Result<Known, WalError> {
        let before = match self.before_base(base) {
            // A damaged SEAL before it is that segment's damage.
            Err(error) if error.is_damage() => None,
            before => Some(before?.1),
        };
        Ok(Known { before, end: self.ended_early(base) })
    }
}
