//! What opening a log found and did.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use towline_protocol::lsn::Lsn;

/// Who says how far a log was durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Witness {
    /// Nobody: nothing is known to have been durable.
    #[default]
    Nobody,
    /// The promise of the record that lies here.
    Record(Lsn),
    /// The header of the segment at this base.
    Segment(Lsn),
    /// The control file.
    Control,
    /// Whoever opened the log: [`Options::expect_durable`](crate::Options::expect_durable).
    Caller,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => write!(f, "nobody"),
            Self::Record(at) => write!(f, "the record at {at}"),
            Self::Segment(base) => write!(f, "the header of segment {base}"),
            Self::Control => write!(f, "the control file"),
            Self::Caller => write!(f, "the caller"),
        }
    }
}

/// How far a log was durable, and who says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) durable: Lsn,
    pub(crate) witness: Witness,
}

impl Evidence {
    /// The stronger of two; the one before if they say the same.
    pub(crate) fn or(self, durable: Lsn, witness: Witness) -> Self {
        if durable > self.durable { Self { durable, witness } } else { self }
    }
}

/// What opening found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The end of the newest record; [`Lsn::ZERO`] if there is none.
    pub end: Lsn,
    /// Everything below was known to be durable before.
    pub evidence: Lsn,
    /// Who says so.
    pub witness: Witness,
    /// Where a torn tail was cut off, and what was there.
    pub torn: Option<(Lsn, String)>,
    /// How many bytes were cut off with it, up to the last one that was not zero.
    pub torn_bytes: u64,
    /// Where the torn tail is kept.
    pub bundle: Option<PathBuf>,
    /// Where a cut that had been interrupted, and that was finished now, keeps what it took off.
    pub finished_cut: Option<PathBuf>,
    /// How many segments were removed that a trim had left behind.
    pub finished_trim: u64,
    /// A segment that held nothing and had a damaged header: nobody's loss, it is made anew.
    pub discarded: Option<PathBuf>,
    /// Whether a copy of the control file was missing, damaged or old, and was written again.
    pub control_healed: bool,
    /// Whether the folder lies in memory, where no sync makes anything outlive a power cut.
    pub in_memory: bool,
    /// How many segments the log has.
    pub segments: u64,
    /// Records were read from this position on; what is before was not looked at.
    pub scanned_from: Lsn,
    /// How many bytes of segments were read.
    pub scanned_bytes: u64,
    /// How many bytes were written in their place again, as the page cache may have shown what the
    /// disk did not hold.
    pub rewritten_bytes: u64,
    /// How long it took; not measured for a log without threads.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "opened up to {}; durable before: {}, says {}",
            self.end, self.evidence, self.witness
        )?;
        if let Some((at, what)) = &self.torn {
            write!(f, "; a torn tail of {} bytes was cut off at {at} ({what})", self.torn_bytes)?;
        }
        if let Some(bundle) = &self.bundle {
            write!(f, " and kept in {}", bundle.display())?;
        }
        if let Some(bundle) = &self.finished_cut {
            write!(f, "; a cut was finished, what it took off is in {}", bundle.display())?;
        }
        if let Some(path) = &self.discarded {
            write!(f, "; {} held nothing and is made anew", path.display())?;
        }
        if self.in_memory {
            write!(f, "; the folder lies in memory, a power cut takes all of it")?;
        }
        Ok(())
    }
}
