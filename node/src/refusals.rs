//! Why a peer is turned away: what it may be, and how often each was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use towline_protocol::epoch::Epoch;
use towline_protocol::frame::Refusal;
use towline_protocol::id::{Incarnation, LogId, NodeId};
use towline_protocol::lsn::Lsn;
use towline_protocol::wire::WireError;
use towline_receiver::ReceiveError;
use towline_shipper::ShipError;
use towline_transport::{Closed, FrameError};
use towline_wal::WalError;

use crate::error::CallError;

/// What a peer did to be turned away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RefusalKind {
    /// It sent what is no frame, or no record.
    Malformed,
    /// It sent, or announced, more than a frame may hold.
    Oversized,
    /// It spoke of an epoch so high that no honest node can have reached it.
    Impossible,
    /// It is, or speaks of, another cluster, log, node or life of a disk.
    Foreign,
    /// It sent a frame that has no place there: of the wrong kind, or not the next one.
    OutOfPlace,
    /// It came too late: its epoch is over, here or by what it said itself.
    Late,
    /// Its log and this one contradict each other.
    Contradiction,
    /// It said nothing for too long.
    Silent,
    /// It holds too many connections.
    Crowding,
}

impl RefusalKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::Oversized,
        Self::Impossible,
        Self::Foreign,
        Self::OutOfPlace,
        Self::Late,
        Self::Contradiction,
        Self::Silent,
        Self::Crowding,
    ];

    /// The kind as one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Oversized => "oversized",
            Self::Impossible => "impossible",
            Self::Foreign => "foreign",
            Self::OutOfPlace => "out_of_place",
            Self::Late => "late",
            Self::Contradiction => "contradiction",
            Self::Silent => "silent",
            Self::Crowding => "crowding",
        }
    }

    /// The kind of a refusal that the rules pronounce; `None` if the peer did nothing wrong.
    const fn of(refusal: Refusal) -> Option<Self> {
        match refusal {
            Refusal::Version | Refusal::Cluster | Refusal::SegmentSize | Refusal::Incarnation => {
                Some(Self::Foreign)
            }
            Refusal::Stale => Some(Self::Late),
            Refusal::LostAcked | Refusal::Diverged | Refusal::LossAccepted => {
                Some(Self::Contradiction)
            }
            Refusal::Busy => None,
        }
    }
}

// Each kind has its place in the counts.
const _: () = assert!(RefusalKind::Crowding as usize + 1 == RefusalKind::ALL.len());

/// How often each kind happened since the node was started.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; RefusalKind::ALL.len()]);

impl Refusals {
    pub(crate) fn count(&self, kind: RefusalKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> BTreeMap<RefusalKind, u64> {
        let count = |kind: RefusalKind| (kind, self.0[kind as usize].load(Ordering::Relaxed));
        RefusalKind::ALL.into_iter().map(count).collect()
    }
}

/// Why a conversation with a peer ended: by what the peer did, by what this node could not do, or
/// because the connection broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error(transparent)]
    Stream(#[from] FrameError),
    #[error("a malformed frame: {0}")]
    Malformed(#[from] WireError),
    #[error("the connection is gone: {0}")]
    Closed(Closed),
    #[error("it closed the stream")]
    Hangup,
    #[error("it did not say anything in time")]
    Silent,
    #[error("it holds {0} connections already")]
    Crowding(usize),
    #[error("it sent a frame that has no place here, where {0} belongs")]
    OutOfPlace(&'static str),
    #[error("it says it is {0}, its certificate says otherwise")]
    NotItself(NodeId),
    #[error("a frame of log {0}, which is not this one")]
    OtherLog(LogId),
    #[error("its fence is of epoch {0}, its incarnation is {1}")]
    NotItsEpoch(Epoch, Incarnation),
    #[error("the fence of {0} is answered no more: a higher one came, or it took too long")]
    Overtaken(Epoch),
    #[error(transparent)]
    Ship(#[from] ShipError),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("it names a position that no record of this log ends at: {0}")]
    NoBoundary(Lsn),
    #[error(
        "it holds its log from {0} on, and this one ends before: only a snapshot would help, and \
        there are none yet. It was further behind than the `keep_bytes_max` of the others"
    )]
    Trimmed(Lsn),
    #[error("the logs hold other records below {0}")]
    OtherRecords(Lsn),
    /// By the peer: that is for it to count.
    #[error("{1} ({0:?})")]
    Refused(Refusal, String),
    /// By the rules here.
    #[error("{1} ({0:?})")]
    TurnedAway(Refusal, String),
    #[error("{0}")]
    Own(String),
}

impl From<Closed> for PeerError {
    fn from(closed: Closed) -> Self {
        Self::Closed(closed)
    }
}

impl From<tokio::task::JoinError> for PeerError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Own(error.to_string())
    }
}

impl From<WalError> for PeerError {
    fn from(error: WalError) -> Self {
        match error {
            WalError::NoBoundary(at) => Self::NoBoundary(at),
            error => Self::Own(error.to_string()),
        }
    }
}

impl From<CallError> for PeerError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Answer { source, .. } => source,
            error => Self::Own(error.to_string()),
        }
    }
}

impl PeerError {
    /// What the peer is refused for; `None` if it did nothing wrong.
    pub(crate) const fn kind(&self) -> Option<RefusalKind> {
        use RefusalKind as Kind;
        Some(match self {
            Self::Stream(error) => return of_stream(error),
            Self::Malformed(error) => of_wire(error),
            Self::Silent => Kind::Silent,
            Self::Crowding(_) => Kind::Crowding,
            Self::OutOfPlace(_) => Kind::OutOfPlace,
            Self::NotItself(_) | Self::OtherLog(_) | Self::NotItsEpoch(..) => Kind::Foreign,
            Self::Ship(error) => match error {
                ShipError::Stream { source, .. } => return of_stream(source),
                ShipError::Malformed { source, .. } => of_wire(source),
                ShipError::OutOfPlace(_) => Kind::OutOfPlace,
                ShipError::OtherLog(..) => Kind::Foreign,
                ShipError::Refused(..) => Kind::Late,
                // It named the position itself.
                ShipError::Log { source: WalError::NoBoundary(_), .. } => Kind::Contradiction,
                ShipError::Log { .. } | ShipError::Over(_) => return None,
            },
            Self::Receive(error) => match error {
                ReceiveError::Log { source, .. } => return of_log(source),
                ReceiveError::Stream { source, .. } => return of_stream(source),
                ReceiveError::Malformed { source, .. } => of_wire(source),
                ReceiveError::OutOfPlace(_) => Kind::OutOfPlace,
                ReceiveError::OtherLog(..) => Kind::Foreign,
                ReceiveError::Refused(..) => Kind::Late,
                ReceiveError::Closed(_) => return None,
            },
            Self::NoBoundary(_) | Self::OtherRecords(_) => Kind::Contradiction,
            Self::TurnedAway(refusal, _) => return Kind::of(*refusal),
            Self::Refused(..)
            | Self::Closed(_)
            | Self::Hangup
            | Self::Trimmed(_)
            | Self::Overtaken(_)
            | Self::Own(_) => return None,
        })
    }
}

const fn of_wire(error: &WireError) -> RefusalKind {
    match error {
        WireError::Epoch { .. } => RefusalKind::Impossible,
        _ => RefusalKind::Malformed,
    }
}

const fn of_stream(error: &FrameError) -> Option<RefusalKind> {
    match error {
        FrameError::TooLarge { .. } => Some(RefusalKind::Oversized),
        FrameError::Truncated { .. } => Some(RefusalKind::Malformed),
        FrameError::Reset(_) | FrameError::Ended | FrameError::Closed(_) => None,
    }
}

/// What the log says of records it was given; `None` if it is the log's own trouble.
const fn of_log(error: &WalError) -> Option<RefusalKind> {
    match error {
        WalError::Record { .. } => Some(RefusalKind::Malformed),
        WalError::TooLarge { .. } => Some(RefusalKind::Oversized),
        // Records that are here already, or that leave some out.
        WalError::Gap { .. } => Some(RefusalKind::OutOfPlace),
        WalError::Fork { .. } | WalError::NoBoundary(_) | WalError::History(_) => {
            Some(RefusalKind::Contradiction)
        }
        _ => None,
    }
}
