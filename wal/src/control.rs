//! What the control file says: what is true of one disk only. How it is kept on the disk is in
//! [`copies`](crate::copies).

use towline_protocol::epoch::{Epoch, History};
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};
use towline_protocol::wire::{Reader, WireError, Writer};

use crate::scan::is_blank;
use crate::slots::{SLOTS_MAX, Slot};
use crate::trim::Oldest;

const MAGIC: &[u8; 8] = b"TOWLCTL\n";
/// The version that is written.
pub(crate) const VERSION: u16 = 3;
/// The first version: a log that was never trimmed and has no slots.
const VERSION_WITHOUT_SLOTS: u16 = 1;
/// The newest version that has no room behind what it says.
const VERSION_WITHOUT_ROOM: u16 = 2;
/// The longest name of a cluster, in bytes.
pub const CLUSTER_NAME_LEN_MAX: usize = 128;

/// The role as state on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// This node tries to lead when it starts.
    Primary,
    /// This node follows whoever leads.
    Replica,
}

/// What a log is founded with, once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founding {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// The log.
    pub log: LogId,
    /// This node.
    pub node: NodeId,
    /// This life of its disk.
    pub incarnation: Incarnation,
    /// How the log is cut into segments.
    pub segment_size: SegmentSize,
    /// The role to begin with.
    pub role: Role,
    /// The voters to begin with.
    pub voters: Voters,
}

impl Founding {
    /// A log that no other node holds: one voter, segments of the default size.
    #[must_use]
    pub fn alone(log: LogId, node: NodeId) -> Self {
        let incarnation = Incarnation(1);
        let voter = Voter { node, incarnation, zone: String::new() };
        Self {
            cluster: ClusterId(log.0),
            cluster_name: node.to_string(),
            log,
            node,
            incarnation,
            segment_size: SegmentSize::DEFAULT,
            role: Role::Primary,
            voters: Voters::new(vec![voter], None).expect("one voter is a set of voters"),
        }
    }
}

/// A cut that is under way: it is done again on opening until it is finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CutMark {
    /// The new end of the log.
    pub to: Lsn,
    /// The nonce of the fresh file that will hold what is kept of the cut segment.
    pub nonce: u64,
}

/// What the control file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// The log.
    pub log: LogId,
    /// This node.
    pub node: NodeId,
    /// This life of its disk.
    pub incarnation: Incarnation,
    /// How the log is cut into segments.
    pub segment_size: SegmentSize,
    /// The voters the log was founded with.
    pub founding_voters: Voters,
    /// The role.
    pub role: Role,
    /// The highest epoch this node has promised to obey. Never falls.
    pub fence: Epoch,
    /// The epochs of the log. An entry may be ahead of the log by a BARRIER that a crash lost;
    /// opening drops it.
    pub history: History,
    /// Everything below is known to be on disk. Lowered only by a cut.
    pub durable: Lsn,
    /// Everything below is known to be committed.
    pub committed: Lsn,
    /// A cut that is not finished.
    pub cut: Option<CutMark>,
    /// Where the log begins: what is before was trimmed.
    pub oldest: Oldest,
    /// The named readers the log is kept for.
    pub(crate) slots: Vec<Slot>,
    /// The terms of the newest BARRIER that was trimmed.
    pub(crate) trimmed_terms: Option<Terms>,
    /// Counts the writes of this file.
    pub(crate) sequence: u64,
}

impl Control {
    pub(crate) fn founded(founding: &Founding) -> Self {
        Self {
            cluster: founding.cluster,
            cluster_name: founding.cluster_name.clone(),
            log: founding.log,
            node: founding.node,
            incarnation: founding.incarnation,
            segment_size: founding.segment_size,
            founding_voters: founding.voters.clone(),
            role: founding.role,
            fence: Epoch::NONE,
            history: History::default(),
            durable: Lsn::ZERO,
            committed: Lsn::ZERO,
            cut: None,
            oldest: Oldest::default(),
            slots: Vec::new(),
            trimmed_terms: None,
            sequence: 0,
        }
    }

    /// The named readers the log is kept for.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// No slot stands behind the end of the log.
    pub(crate) fn clamp_slots(&mut self, end: Lsn) {
        for slot in &mut self.slots {
            slot.position = slot.position.min(end);
        }
    }

    /// What a copy holds before its room and its checksum.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(MAGIC).u16(VERSION).u64(self.sequence).u128(self.cluster.0);
        writer.text(&self.cluster_name, CLUSTER_NAME_LEN_MAX).u128(self.log.0).node(self.node);
        writer.u64(self.incarnation.0).u64(self.segment_size.bytes());
        self.founding_voters.encode(&mut writer);
        writer.bool(self.role == Role::Primary).epoch(self.fence).history(&self.history);
        writer.lsn(self.durable).lsn(self.committed).bool(self.cut.is_some());
        if let Some(cut) = self.cut {
            writer.lsn(cut.to).u64(cut.nonce);
        }
        self.oldest.encode(&mut writer);
        writer.bool(self.trimmed_terms.is_some());
        if let Some(terms) = &self.trimmed_terms {
            terms.encode(&mut writer);
        }
        writer.u16(self.slots.len().try_into().expect("the number of slots is bounded"));
        for slot in &self.slots {
            slot.encode(&mut writer);
        }
        writer.into_bytes()
    }

    /// Reads a whole copy; its checksum is at its end.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (body, crc) =
            bytes.split_last_chunk::<4>().ok_or(WireError::Short { field: "control" })?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(WireError::invalid("crc", "the checksum does not match"));
        }
        let mut reader = Reader::new(body);
        if reader.bytes("magic", 8)? != MAGIC {
            return Err(WireError::invalid("magic", "this is no control file"));
        }
        let version = reader.u16("version")?;
        if !(VERSION_WITHOUT_SLOTS..=VERSION).contains(&version) {
            return Err(WireError::invalid("version", version));
        }
        let sequence = reader.u64("sequence")?;
        let mut control = Self {
            cluster: ClusterId(reader.u128("cluster")?),
            cluster_name: reader.text("cluster_name", CLUSTER_NAME_LEN_MAX)?,
            log: LogId(reader.u128("log")?),
            node: reader.node("node")?,
            incarnation: Incarnation(reader.u64("incarnation")?),
            segment_size: SegmentSize::new(reader.u64("segment_size")?)
                .ok_or_else(|| WireError::invalid("segment_size", "no segment size"))?,
            founding_voters: Voters::decode(&mut reader)?,
            role: if reader.bool("role")? { Role::Primary } else { Role::Replica },
            fence: reader.epoch("fence")?,
            history: reader.history("history")?,
            durable: reader.lsn("durable")?,
            committed: reader.lsn("committed")?,
            cut: match reader.bool("cut")? {
                false => None,
                true => Some(CutMark { to: reader.lsn("cut")?, nonce: reader.u64("cut")? }),
            },
            oldest: Oldest::default(),
            slots: Vec::new(),
            trimmed_terms: None,
            sequence,
        };
        if version > VERSION_WITHOUT_SLOTS {
            control.decode_kept(&mut reader)?;
        }
        if version > VERSION_WITHOUT_ROOM && !is_blank(reader.rest()) {
            return Err(WireError::invalid("room", "it is not blank"));
        }
        reader.finish()?;
        Ok(control)
    }

    /// What of the log is kept, and for whom.
    fn decode_kept(&mut self, reader: &mut Reader<'_>) -> Result<(), WireError> {
        self.oldest = Oldest::decode(reader)?;
        if reader.bool("trimmed_terms")? {
            self.trimmed_terms = Some(Terms::decode(reader)?);
        }
        let slots = usize::from(reader.u16("slots")?);
        if slots > SLOTS_MAX {
            return Err(WireError::invalid("slots", format!("{slots} are over {SLOTS_MAX}")));
        }
        for _ in 0..slots {
            self.slots.push(Slot::decode(reader)?);
        }
        Ok(())
    }
}
