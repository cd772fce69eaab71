//! What a run explores: the nodes and voter sets, the bounds, and which rule is broken, if any.

/// Nodes as bits of a mask: node `n` is bit `1 << n`.
pub type Nodes = u8;

/// A voter set: who votes, and how many of them commit.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    /// Its members. A disk that was replaced is another node here: another incarnation.
    pub members: Nodes,
    /// How many must hold a record before it is committed.
    pub w: u32,
    /// The member of the set before this one whose disk is lost, if that is why it exists.
    pub replaces: Nodes,
}

impl Set {
    /// A set that replaces nobody.
    #[must_use]
    pub const fn new(members: Nodes, w: u32) -> Self {
        Self { members, w, replaces: 0 }
    }

    /// N.
    #[must_use]
    pub const fn n(self) -> u32 {
        self.members.count_ones()
    }

    /// R = N − W + 1: so many share a member with every W.
    #[must_use]
    pub const fn r(self) -> u32 {
        self.n() - self.w + 1
    }

    /// How many of `nodes` are its members.
    #[must_use]
    pub const fn count(self, nodes: Nodes) -> u32 {
        (self.members & nodes).count_ones()
    }
}

/// How a read makes sure that it is current.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reads {
    /// There are none.
    None,
    /// By a round: W voters echo a frame sent after the evaluation.
    Round,
    /// By a lease: W voters promise to delay FENCED.
    Lease,
}

/// The world a run explores to its end.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What it is called.
    pub name: &'static str,
    /// How many nodes there are, spares included.
    pub nodes: u8,
    /// The voter sets in the order in which they replace each other.
    pub sets: Vec<Set>,
    /// The highest epoch; the first one is open when the run starts.
    pub epochs: u8,
    /// How many writes clients send.
    pub writes: u8,
    /// How many crashes there are.
    pub crashes: u8,
    /// What clients read, if they do.
    pub reads: Reads,
    /// The rule that is broken.
    pub broken: Option<Broken>,
}

impl Setting {
    /// Three voters, two of which commit: what everything else varies.
    #[must_use]
    pub fn three(name: &'static str) -> Self {
        Self {
            name,
            nodes: 3,
            sets: vec![Set::new(0b111, 2)],
            epochs: 3,
            writes: 1,
            crashes: 1,
            reads: Reads::None,
            broken: None,
        }
    }

    /// Whether this rule is broken.
    #[must_use]
    pub fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }
}

/// A rule left out or done wrongly. Each must be refuted by the property it protects; what no
/// mutation can refute is not checked at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// A fence is kept in memory only: a crash takes it back to the log's last epoch.
    FenceForgotten,
    /// A candidate takes the next number without its incarnation: two may take the same.
    EpochShared,
    /// A node that said FENCED goes on receiving and acknowledging in its session.
    AckAfterFenced,
    /// A replica acknowledges what it received, flushed or not.
    AckBeforeFlush,
    /// The longest log is adopted whatever its last epoch.
    AdoptByLength,
    /// A candidate is content with one voter fewer than R.
    FenceOneLess,
    /// Records of older epochs commit by counting, before the epoch's BARRIER (Raft §5.4.2).
    BarrierNotRequired,
    /// A replica acknowledges all it has before it is cut to its primary's history.
    AckBeforeCut,
    /// A replica is cut to the last whole epoch in common, not to the last entry.
    CutToEpoch,
    /// A replica is not cut: positions alone say where its stream goes on.
    MatchByPosition,
    /// A restarted primary goes on in its old epoch.
    EpochKept,
    /// A read is answered as soon as it is evaluated.
    ReadWithoutRound,
    /// Echoes of frames that were sent before the evaluation count.
    RoundTooEarly,
    /// A read does not wait until what it saw is committed.
    ReadUncommitted,
    /// A lease is counted from the receipt of the promise, so that it may outlive it.
    LeaseFromReceipt,
    /// A voter says FENCED in spite of its promise.
    PromiseIgnored,
    /// A candidate obeys itself in spite of its own promise.
    OwnPromiseIgnored,
    /// A crash makes a voter forget its promise.
    PromiseForgotten,
    /// A BARRIER that changes voters is committed by the newest set alone.
    NewSetCommits,
    /// A BARRIER that changes voters is committed by the oldest set alone.
    OldSetCommits,
    /// Records behind the BARRIER go on being committed by the oldest set.
    OldSetGoesOn,
    /// A candidate fences only the oldest set in force.
    OldSetFenced,
    /// A candidate fences only the newest set it knows itself, whatever others hold.
    OwnSetFenced,
    /// A set is dropped from the BARRIER before the newer one is known to be committed.
    SetDropped,
    /// A wiped disk goes on voting under its old name.
    WipedVotes,
    /// With W = N, those who know that a disk was replaced still obey and follow it.
    ReplacedServed,
}
