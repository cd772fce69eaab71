//! A toy cluster around the real [`towline_protocol::machine::Machine`]: a toy disk, network,
//! driver and operator, all driven by one seeded source of randomness and one virtual clock.

pub(crate) mod act;
pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod disk;
pub(crate) mod fault;
pub(crate) mod net;
pub(crate) mod node;
pub(crate) mod rng;
pub(crate) mod session;
pub(crate) mod world;

/// A bug built into the toy on purpose, to prove that the checks can fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plant {
    /// A node says that records are flushed when they are only appended.
    AckBeforeFlush,
    /// A fence is reported as durable without having been written.
    FenceNotWritten,
    /// A voter goes on taking and acknowledging records of the epoch it no longer obeys.
    AckAfterFence,
    /// A client is answered when the primary's own disk has the write.
    ReplyOnOwnFlush,
    /// A read is answered without its round.
    ReadWithoutRound,
    /// A cut takes one record more than the fork says.
    CutTooDeep,
    /// A cut is reported and not made.
    CutNotMade,
    /// The longest log is reported as fetched, and was not.
    FetchNotMade,
    /// A read is evaluated against what was committed a while ago.
    StaleRead,
}
