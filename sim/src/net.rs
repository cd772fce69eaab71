//! The network: connections whose two lanes are each in order, and single frames that may be lost,
//! late, or there twice.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::rng::Rng;

pub(crate) type LinkId = u64;

/// What travels on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    /// A frame of the control stream.
    Control(Bytes),
    /// A frame of the stream of records.
    Records(Bytes),
}

impl Packet {
    const fn lane(&self) -> usize {
        match self {
            Self::Control(_) => 0,
            Self::Records(_) => 1,
        }
    }
}

#[derive(Debug)]
struct Link {
    ends: [usize; 2],
    /// When the newest packet arrives, by the end that sends it and by lane.
    last_ms: [[u64; 2]; 2],
}

#[derive(Debug)]
pub(crate) struct Net {
    links: BTreeMap<LinkId, Link>,
    /// The ends of those that are closed: what had arrived by then is read all the same.
    closed: BTreeMap<LinkId, [usize; 2]>,
    next: LinkId,
    /// `cut[a][b]`: nothing gets from a to b while this is above zero. Faults overlap.
    cut: Vec<Vec<u32>>,
    /// How many of a hundred single frames are lost and how many come twice; the longest delay.
    pub(crate) loss: u64,
    pub(crate) twice: u64,
    pub(crate) delay_ms: u64,
}

impl Net {
    pub(crate) fn new(nodes: usize, rng: &mut Rng) -> Self {
        Self {
            links: BTreeMap::new(),
            closed: BTreeMap::new(),
            next: 0,
            cut: vec![vec![0; nodes]; nodes],
            loss: rng.below(30),
            twice: rng.below(20),
            delay_ms: rng.range(1, 20),
        }
    }

    pub(crate) fn open(&mut self, dialer: usize, peer: usize) -> LinkId {
        self.next += 1;
        self.links.insert(self.next, Link { ends: [dialer, peer], last_ms: [[0; 2]; 2] });
        self.next
    }

    pub(crate) fn close(&mut self, link: LinkId) {
        if let Some(Link { ends, .. }) = self.links.remove(&link) {
            self.closed.insert(link, ends);
        }
    }

    /// Breaks one connection, if there is any.
    pub(crate) fn break_one(&mut self, nth: u64) {
        let at = nth.checked_rem(self.links.len() as u64).unwrap_or(0) as usize;
        if let Some(link) = self.links.keys().nth(at).copied() {
            self.close(link);
        }
    }

    pub(crate) fn break_all(&mut self) {
        self.links.clear();
    }

    pub(crate) fn is_open(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// The node at the other end, also of a connection that is closed.
    pub(crate) fn peer(&self, link: LinkId, node: usize) -> Option<usize> {
        let ends = self.links.get(&link).map(|link| link.ends);
        let [dialer, peer] = ends.or_else(|| self.closed.get(&link).copied())?;
        Some(if node == dialer { peer } else { dialer })
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut[from][to] += 1;
    }

    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        self.cut[from][to] = self.cut[from][to].saturating_sub(1);
    }

    /// From here on the network is a good one.
    pub(crate) fn heal(&mut self) {
        self.cut.iter_mut().flatten().for_each(|cut| *cut = 0);
        (self.loss, self.twice) = (0, 0);
    }

    /// When a packet sent now arrives. A connection over a cut is broken, sooner or later: here at
    /// once for what is sent, and for the other end when it notices the silence.
    pub(crate) fn send(
        &mut self,
        link: LinkId,
        from: usize,
        packet: &Packet,
        now_ms: u64,
        rng: &mut Rng,
    ) -> Option<u64> {
        let delay_ms = rng.range(0, self.delay_ms);
        let Link { ends, last_ms } = self.links.get_mut(&link)?;
        let side = usize::from(ends[0] != from);
        if self.cut[from][ends[1 - side]] > 0 {
            self.close(link);
            return None;
        }
        let last_ms = &mut last_ms[side][packet.lane()];
        *last_ms = (*last_ms).max(now_ms + delay_ms);
        Some(*last_ms)
    }

    /// In how many ms a single frame arrives: never, once, or twice.
    pub(crate) fn send_single(&self, from: usize, to: usize, rng: &mut Rng) -> [Option<u64>; 2] {
        let lost = rng.chance(self.loss) || self.cut[from][to] > 0;
        let late_ms = if rng.chance(5) { 10 * self.delay_ms } else { self.delay_ms };
        let first_ms = rng.range(0, late_ms);
        let again = rng.chance(self.twice).then(|| rng.range(0, 4 * self.delay_ms));
        if lost { [None, None] } else { [Some(first_ms), again] }
    }
}
