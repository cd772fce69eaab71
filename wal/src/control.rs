//! The control file: what is true of one disk only, in two checksummed copies.
//!
//! A change counts once both copies are durable. They are written one after the other, each to a
//! new file that is synced and renamed over the old one, so that at every moment one of the two is
//! whole; opening takes the higher and rewrites the other.

use std::path::{Path, PathBuf};

use towline_protocol::epoch::{Epoch, History};
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::terms::Terms;
use towline_protocol::voters::{Voter, Voters};
use towline_protocol::wire::{Reader, WireError, Writer};

use crate::crash;
use crate::disk::{Disk, FileDisk};
use crate::error::{AtPath, WalError};
use crate::planted::{Bug, planted};
use crate::slots::{SLOTS_MAX, Slot};
use crate::trim::Oldest;

const MAGIC: &[u8; 8] = b"TOWLCTL\n";
const VERSION: u16 = 2;
/// The first version: a log that was never trimmed and has no slots.
const VERSION_WITHOUT_SLOTS: u16 = 1;
/// No control file is longer, in bytes: the longest history fits.
const LEN_MAX: u64 = 2 << 20;
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
    sequence: u64,
}

impl Control {
    fn founded(founding: &Founding) -> Self {
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

    fn encode(&self) -> Vec<u8> {
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
        let mut bytes = writer.into_bytes();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
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

fn copy_path(dir: &Path, copy: u8) -> PathBuf {
    dir.join(format!("control.{copy}"))
}

fn fresh_path(dir: &Path, copy: u8) -> PathBuf {
    dir.join(format!("control.{copy}.new"))
}

/// Founds a log: writes its control file into an empty or absent folder.
///
/// # Errors
/// [`WalError::NotEmpty`], or what the operating system says.
pub fn found(dir: &Path, founding: &Founding) -> Result<(), WalError> {
    found_on(&FileDisk, dir, founding)
}

/// Founds a log, as [`found`] does, on another disk.
///
/// # Errors
/// As [`found`].
pub fn found_on(disk: &dyn Disk, dir: &Path, founding: &Founding) -> Result<(), WalError> {
    if !is_empty(disk, dir)? {
        return Err(WalError::NotEmpty(dir.to_owned()));
    }
    create_dirs(disk, dir)?;
    write(disk, dir, &mut Control::founded(founding))
}

/// Makes a folder and those above it that are missing, all durable on return: a log is not safer
/// than the name of its folder.
fn create_dirs(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    let is_missing = |dir: &&Path| {
        disk.list(dir).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
    disk.create_dir_all(dir).at("creating", dir)?;
    for made in missing.into_iter().rev() {
        let parent = folder_of(made);
        disk.sync_dir(parent).at("syncing", parent)?;
    }
    Ok(())
}

/// The folder a path lies in; that of a bare name is the current one.
pub(crate) fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Writes both copies, one after the other. Durable on return.
pub(crate) fn write(disk: &dyn Disk, dir: &Path, control: &mut Control) -> Result<(), WalError> {
    control.sequence += 1;
    let bytes = control.encode();
    for copy in if planted(Bug::OneControlCopy) { 0..1 } else { 0..2 } {
        write_copy(disk, dir, copy, &bytes)?;
    }
    Ok(())
}

fn write_copy(disk: &dyn Disk, dir: &Path, copy: u8, bytes: &[u8]) -> Result<(), WalError> {
    let path = copy_path(dir, copy);
    let fresh = fresh_path(dir, copy);
    crash::point()?;
    disk.write(&fresh, bytes).at("writing", &fresh)?;
    crash::point()?;
    disk.rename(&fresh, &path).at("renaming over", &path)?;
    if planted(Bug::ControlNameNotSynced) {
        return Ok(());
    }
    disk.sync_dir(dir).at("syncing", dir)
}

/// Reads the newest whole copy. Takes no lock and changes nothing.
///
/// # Errors
/// [`WalError::NotFounded`] if there is none, [`WalError::Control`] if none is whole.
pub fn read_control(dir: &Path) -> Result<Control, WalError> {
    read_control_on(&FileDisk, dir)
}

/// Reads the newest whole copy, as [`read_control`] does, from another disk.
///
/// # Errors
/// As [`read_control`].
pub fn read_control_on(disk: &dyn Disk, dir: &Path) -> Result<Control, WalError> {
    read(disk, dir).map(|(control, _)| control)
}

/// Reads the newest whole copy, and says whether the other one must be rewritten.
pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<(Control, bool), WalError> {
    let mut whole: Vec<Control> = Vec::new();
    let mut damage = Vec::new();
    for copy in [0, 1] {
        let path = copy_path(dir, copy);
        match read_copy(disk, &path) {
            Ok(Some(Ok(control))) => whole.push(control),
            Ok(Some(Err(error))) => {
                if let WireError::Invalid { field: "version", reason } = &error {
                    let version = reason.parse().unwrap_or(u16::MAX);
                    return Err(WalError::NewerVersion { path, version, known: VERSION });
                }
                damage.push(format!("{}: {error}", path.display()));
            }
            Ok(None) => damage.push(format!("{} is missing", path.display())),
            Err(error) => return Err(error),
        }
    }
    let agree = whole.len() == 2 && whole[0] == whole[1];
    match whole.into_iter().max_by_key(|control| control.sequence) {
        Some(control) => Ok((control, !agree)),
        None if is_empty(disk, dir)? => Err(WalError::NotFounded(dir.to_owned())),
        None => Err(WalError::Control { dir: dir.to_owned(), what: damage.join("; ") }),
    }
}

fn read_copy(disk: &dyn Disk, path: &Path) -> Result<Option<Result<Control, WireError>>, WalError> {
    let bytes = match disk.read(path, LEN_MAX + 1) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.at("reading", path)?,
    };
    if bytes.len() as u64 > LEN_MAX {
        let error = WireError::invalid("length", format!("over {LEN_MAX} bytes"));
        return Ok(Some(Err(error)));
    }
    Ok(Some(Control::decode(&bytes)))
}

/// Whether a folder holds nothing; a founding that failed half-way leaves nothing that counts.
fn is_empty(disk: &dyn Disk, dir: &Path) -> Result<bool, WalError> {
    let unfinished = [0, 1].map(|copy| fresh_path(dir, copy));
    match disk.list(dir) {
        Ok(entries) => Ok(entries.iter().all(|path| unfinished.contains(path))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).at("reading", dir),
    }
}
