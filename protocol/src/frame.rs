//! Frames: what two nodes say to each other.
//!
//! A control stream carries one [`Frame`] after another, each with a four-byte length before it
//! (the transport's business). Every frame belongs to a log and carries its sender's epoch and a
//! number, so that a stale one can be told from a current one. Records travel on streams of their
//! own, as [`Records`] frames whose payload is the log's own bytes.

mod records;

use bytes::Bytes;

pub use records::{
    RECORDS_FRAME_AIM, RECORDS_FRAME_MAX, RECORDS_HEADER_LEN, Records, SegmentIdentity,
};

use crate::epoch::{Epoch, History};
use crate::id::{ClusterId, Incarnation, LogId, NodeId};
use crate::lsn::{Lsn, SegmentSize};
use crate::record::Digest;
use crate::terms::{LEASE_MAX_MS, VoterSets};
use crate::wire::{Reader, WireError, Writer};

/// The wire protocol this version speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// No control frame is longer than this, in bytes. A history of [`History::MAX_LEN`] fits.
pub const CONTROL_FRAME_MAX: usize = 2 << 20;
/// No frame speaks of an epoch with a higher number.
pub const EPOCH_NUMBER_MAX: u64 = 1 << 62;
/// How far above an epoch that a node knows a peer's may be. Every candidacy counts one on, so an
/// honest peer never is; a lie costs every node a write, and it takes 2^30 of them to use up what
/// is below [`EPOCH_NUMBER_MAX`].
pub const EPOCH_STEP_MAX: u64 = 1 << 32;
/// The longest text of a refusal, in bytes.
pub const REASON_LEN_MAX: usize = 1_024;

const _: () = assert!(History::MAX_LEN * 57 + 65_536 < CONTROL_FRAME_MAX);

/// What a node wants of the node it dials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To be its replica.
    Stream,
    /// To ask for positions or to fence: frames of [`Body::Ask`] and [`Body::Fence`] follow.
    Ask,
    /// To fetch the rest of its log, as the candidate that has fenced it in this epoch.
    Fetch(Epoch),
}

/// The first frame of every connection: who dials, what for, and what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The dialer's [`PROTOCOL_VERSION`].
    pub version: u16,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub node: NodeId,
    /// This life of its disk.
    pub incarnation: Incarnation,
    /// How its log is cut into segments.
    pub segment_size: SegmentSize,
    /// What it wants.
    pub purpose: Purpose,
    /// The highest epoch it has promised to obey.
    pub fence: Epoch,
    /// Its epochs.
    pub history: History,
    /// The end of its log, all of it on disk; [`Lsn::ZERO`] if it holds no record.
    pub end: Lsn,
    /// Everything below is committed, as far as it knows.
    pub committed: Lsn,
}

/// Why a connection is of no use. Each names what an operator can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Refusal {
    /// The versions of the protocol differ: upgrade the older node.
    Version = 1,
    /// The peer belongs to another cluster or log: correct its address.
    Cluster = 2,
    /// The logs are cut into segments of different sizes: the folder is of another log.
    SegmentSize = 3,
    /// A replica's own word of a primary on a disk that its log has replaced: stop that primary.
    Incarnation = 4,
    /// The dialer obeys a higher epoch, or fetches in one that is not obeyed here.
    Stale = 5,
    /// The peer lacks what it had acknowledged: its disk lost writes.
    LostAcked = 6,
    /// The peer has committed what this log does not hold: an operator must decide.
    Diverged = 7,
    /// This node can not serve that now; try again.
    Busy = 8,
    /// What the peer has committed was given up by an operator's promotion elsewhere.
    LossAccepted = 9,
}

impl Refusal {
    const ALL: [Self; 9] = [
        Self::Version,
        Self::Cluster,
        Self::SegmentSize,
        Self::Incarnation,
        Self::Stale,
        Self::LostAcked,
        Self::Diverged,
        Self::Busy,
        Self::LossAccepted,
    ];
}

/// The answer to a [`Hello`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Welcome {
    /// The logs match up to the dialer's end: records follow from there. Also the answer to
    /// [`Purpose::Fetch`].
    Stream {
        /// Where the records begin: the dialer's end.
        from: Lsn,
        /// The digest of the answering log up to there.
        digest: Digest,
        /// Where they end, if they end: the answering log's end, for a fetch.
        until: Option<Lsn>,
    },
    /// The dialer's log has a tail the answering log does not: cut it, then dial again.
    Truncate {
        /// The fork.
        to: Lsn,
        /// The digest of the answering log up to there.
        digest: Digest,
    },
    /// The answering log no longer holds what follows on the dialer's: begin with a snapshot.
    Snapshot {
        /// The oldest position the answering log still holds.
        oldest: Lsn,
    },
    /// Ask that node; or any other, if none is named.
    Redirect(Option<NodeId>),
    /// The answer to [`Purpose::Ask`]: go on.
    Ready,
    /// Of no use, and why.
    Refuse(Refusal, String),
}

/// A primary a node has heard of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownPrimary {
    /// The primary or candidate.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// How long ago it was heard, in milliseconds.
    pub age_ms: u64,
    /// Whether the answering node is that primary itself, open, and with its quorum.
    pub leads: bool,
}

/// Where a node stands; the answer to [`Body::Ask`] and part of a FENCED.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Positions {
    /// This life of its disk.
    pub incarnation: Incarnation,
    /// The highest epoch it has promised to obey.
    pub fence: Epoch,
    /// The epoch of its log's last record.
    pub last: Epoch,
    /// The end of its log, all of it on disk.
    pub end: Lsn,
    /// Everything below is committed, as far as it knows.
    pub committed: Lsn,
    /// The voter sets of its log that are in force, as far as it knows.
    pub sets: VoterSets,
    /// Who leads, as far as it knows.
    pub known_primary: Option<KnownPrimary>,
}

/// A replica's acknowledgement. Cumulative: a later one says all that an earlier one said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// This life of the replica's disk.
    pub incarnation: Incarnation,
    /// Everything below has reached it.
    pub received: Lsn,
    /// Everything below is on its disk.
    pub flushed: Lsn,
    /// Everything below is in its engine.
    pub applied: Lsn,
    /// The number of the newest heartbeat it had seen when it sent this.
    pub seen: u64,
}

/// The primary's news, sent when it changes and repeated while it does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Everything below is committed.
    pub committed: Lsn,
    /// The end of the primary's log.
    pub appended: Lsn,
    /// For how long an ack that echoes this promises no FENCED, in milliseconds.
    pub lease_ms: u32,
    /// The epoch's END is committed: nothing is served in it any more, and no promise binds.
    pub ended: bool,
}

/// What a candidate says of itself when it asks to be obeyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fence {
    /// The epoch whose BARRIER introduced the newest voter set the candidate's log holds.
    pub newest: Epoch,
    /// Whether an operator said that the old primary's side is stopped and its writes may be lost.
    pub accepts_loss: bool,
}

/// What a frame says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// The dialer's first words.
    Hello(Box<Hello>),
    /// The answer to them.
    Welcome(Welcome),
    /// Replica to primary.
    Ack(Ack),
    /// Primary to replica.
    Heartbeat(Heartbeat),
    /// Where do you stand?
    Ask,
    /// The answer to [`Body::Ask`].
    Positions(Box<Positions>),
    /// Obey the frame's epoch and no lower one.
    Fence(Fence),
    /// The answer to [`Body::Fence`]: it is obeyed, durably.
    Fenced(Box<Positions>),
    /// The other answer: the receiver obeys the frame's epoch, or may not obey the one asked for.
    FenceRefused {
        /// Whether a primary with its quorum is at work there: no loss may be accepted of it.
        at_work: bool,
    },
    /// From a primary that has handed over: take the next epoch. Its log is whole, down to its END.
    HandOver,
}

/// One frame of a control stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The log it is about.
    pub log: LogId,
    /// The sender's epoch; in [`Body::Fence`] the one to obey.
    pub epoch: Epoch,
    /// The sender's count.
    pub number: u64,
    /// What it says.
    pub body: Body,
}

impl Frame {
    /// The frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u8(self.body.tag()).u128(self.log.0).epoch(self.epoch).u64(self.number);
        match &self.body {
            Body::Hello(hello) => hello.encode(&mut writer),
            Body::Welcome(welcome) => welcome.encode(&mut writer),
            Body::Ack(ack) => {
                writer.u64(ack.incarnation.0).lsn(ack.received).lsn(ack.flushed);
                writer.lsn(ack.applied).u64(ack.seen);
            }
            Body::Heartbeat(news) => {
                writer.lsn(news.committed).lsn(news.appended).u32(news.lease_ms).bool(news.ended);
            }
            Body::Positions(positions) | Body::Fenced(positions) => positions.encode(&mut writer),
            Body::Fence(fence) => {
                writer.epoch(fence.newest).bool(fence.accepts_loss);
            }
            Body::FenceRefused { at_work } => {
                writer.bool(*at_work);
            }
            Body::Ask | Body::HandOver => {}
        }
        writer.into_bytes().into()
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`WireError`] for anything but one whole frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        Self::read(Reader::new(bytes).epochs_up_to(EPOCH_NUMBER_MAX))
    }

    /// Reads a frame of a peer, as a node that obeys `fence`: no epoch in it may be further above
    /// than [`EPOCH_STEP_MAX`].
    ///
    /// # Errors
    /// [`WireError`], also for an epoch that can not be.
    pub fn decode_near(bytes: &[u8], fence: Epoch) -> Result<Self, WireError> {
        let max = fence.number.saturating_add(EPOCH_STEP_MAX).min(EPOCH_NUMBER_MAX);
        Self::read(Reader::new(bytes).epochs_up_to(max))
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, WireError> {
        let tag = reader.u8("frame.kind")?;
        let log = LogId(reader.u128("frame.log")?);
        let epoch = reader.epoch("frame.epoch")?;
        let number = reader.u64("frame.number")?;
        let body = match tag {
            1 => Body::Hello(Box::new(Hello::decode(&mut reader)?)),
            2 => Body::Welcome(Welcome::decode(&mut reader)?),
            3 => Body::Ack(Ack {
                incarnation: Incarnation(reader.u64("ack.incarnation")?),
                received: reader.lsn("ack.received")?,
                flushed: reader.lsn("ack.flushed")?,
                applied: reader.lsn("ack.applied")?,
                seen: reader.u64("ack.seen")?,
            }),
            4 => Body::Heartbeat(Heartbeat {
                committed: reader.lsn("heartbeat.committed")?,
                appended: reader.lsn("heartbeat.appended")?,
                lease_ms: match reader.u32("heartbeat.lease_ms")? {
                    lease_ms if lease_ms <= LEASE_MAX_MS => lease_ms,
                    long => return Err(WireError::invalid("heartbeat.lease_ms", long)),
                },
                ended: reader.bool("heartbeat.ended")?,
            }),
            5 => Body::Ask,
            6 => Body::Positions(Box::new(Positions::decode(&mut reader)?)),
            7 => Body::Fence(Fence {
                newest: reader.epoch("fence.newest")?,
                accepts_loss: reader.bool("fence.accepts_loss")?,
            }),
            8 => Body::Fenced(Box::new(Positions::decode(&mut reader)?)),
            9 => Body::FenceRefused { at_work: reader.bool("fence_refused.at_work")? },
            10 => Body::HandOver,
            other => {
                return Err(WireError::invalid("frame.kind", format!("{other} is unknown")));
            }
        };
        reader.finish()?;
        Ok(Self { log, epoch, number, body })
    }
}

impl Body {
    const fn tag(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Welcome(_) => 2,
            Self::Ack(_) => 3,
            Self::Heartbeat(_) => 4,
            Self::Ask => 5,
            Self::Positions(_) => 6,
            Self::Fence(_) => 7,
            Self::Fenced(_) => 8,
            Self::FenceRefused { .. } => 9,
            Self::HandOver => 10,
        }
    }
}

impl Hello {
    fn encode(&self, writer: &mut Writer) {
        writer.u16(self.version).u128(self.cluster.0).node(self.node).u64(self.incarnation.0);
        writer.u64(self.segment_size.bytes());
        let (purpose, epoch) = match self.purpose {
            Purpose::Stream => (1, Epoch::NONE),
            Purpose::Ask => (2, Epoch::NONE),
            Purpose::Fetch(epoch) => (3, epoch),
        };
        writer.u8(purpose).epoch(epoch).epoch(self.fence).history(&self.history);
        writer.lsn(self.end).lsn(self.committed);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            version: reader.u16("hello.version")?,
            cluster: ClusterId(reader.u128("hello.cluster")?),
            node: reader.node("hello.node")?,
            incarnation: Incarnation(reader.u64("hello.incarnation")?),
            segment_size: SegmentSize::new(reader.u64("hello.segment_size")?)
                .ok_or_else(|| WireError::invalid("hello.segment_size", "no segment size"))?,
            purpose: match (reader.u8("hello.purpose")?, reader.epoch("hello.purpose")?) {
                (1, Epoch::NONE) => Purpose::Stream,
                (2, Epoch::NONE) => Purpose::Ask,
                (3, epoch) => Purpose::Fetch(epoch),
                (other, epoch) => {
                    let reason = format!("{other} in epoch {epoch} is unknown");
                    return Err(WireError::invalid("hello.purpose", reason));
                }
            },
            fence: reader.epoch("hello.fence")?,
            history: reader.history("hello.history")?,
            end: reader.lsn("hello.end")?,
            committed: reader.lsn("hello.committed")?,
        })
    }
}

impl Welcome {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Stream { from, digest, until } => {
                writer.u8(1).lsn(*from).u64(digest.0);
                writer.bool(until.is_some()).lsn(until.unwrap_or_default());
            }
            Self::Truncate { to, digest } => {
                writer.u8(2).lsn(*to).u64(digest.0);
            }
            Self::Redirect(None) => {
                writer.u8(3);
            }
            Self::Redirect(Some(node)) => {
                writer.u8(4).node(*node);
            }
            Self::Ready => {
                writer.u8(5);
            }
            Self::Refuse(refusal, reason) => {
                writer.u8(6).u8(*refusal as u8).text(reason, REASON_LEN_MAX);
            }
            Self::Snapshot { oldest } => {
                writer.u8(7).lsn(*oldest);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match reader.u8("welcome.kind")? {
            1 => {
                let from = reader.lsn("welcome.from")?;
                let digest = Digest(reader.u64("welcome.digest")?);
                let until = match (reader.bool("welcome.until")?, reader.lsn("welcome.until")?) {
                    (true, until) => Some(until),
                    (false, Lsn::ZERO) => None,
                    (false, until) => {
                        let reason = format!("there is none, and yet it is {until}");
                        return Err(WireError::invalid("welcome.until", reason));
                    }
                };
                Self::Stream { from, digest, until }
            }
            2 => Self::Truncate {
                to: reader.lsn("welcome.to")?,
                digest: Digest(reader.u64("welcome.digest")?),
            },
            3 => Self::Redirect(None),
            4 => Self::Redirect(Some(reader.node("welcome.primary")?)),
            5 => Self::Ready,
            6 => {
                let code = reader.u8("welcome.refusal")?;
                let refusal = Refusal::ALL.into_iter().find(|refusal| *refusal as u8 == code);
                let refusal = refusal
                    .ok_or_else(|| WireError::invalid("welcome.refusal", format!("{code}")))?;
                Self::Refuse(refusal, reader.text("welcome.reason", REASON_LEN_MAX)?)
            }
            7 => Self::Snapshot { oldest: reader.lsn("welcome.oldest")? },
            other => {
                return Err(WireError::invalid("welcome.kind", format!("{other} is unknown")));
            }
        })
    }
}

impl Positions {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.incarnation.0).epoch(self.fence).epoch(self.last).lsn(self.end);
        writer.lsn(self.committed);
        self.sets.encode(writer);
        writer.bool(self.known_primary.is_some());
        if let Some(known_primary) = self.known_primary {
            writer
                .node(known_primary.node)
                .epoch(known_primary.epoch)
                .u64(known_primary.age_ms)
                .bool(known_primary.leads);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            incarnation: Incarnation(reader.u64("positions.incarnation")?),
            fence: reader.epoch("positions.fence")?,
            last: reader.epoch("positions.last")?,
            end: reader.lsn("positions.end")?,
            committed: reader.lsn("positions.committed")?,
            sets: VoterSets::decode(reader)?,
            known_primary: match reader.bool("positions.known_primary")? {
                false => None,
                true => Some(KnownPrimary {
                    node: reader.node("known_primary.node")?,
                    epoch: reader.epoch("known_primary.epoch")?,
                    age_ms: reader.u64("known_primary.age_ms")?,
                    leads: reader.bool("known_primary.leads")?,
                }),
            },
        })
    }
}

#[cfg(test)]
mod tests;
