//! The control file: what is true of one disk only, in two checksummed copies.
//!
//! A change counts once both copies are durable. They are written one after the other, each to a
//! new file that is synced and renamed over the old one, so that at every moment one of the two is
//! whole; opening takes the higher and rewrites the other.

use std::fs;
use std::path::{Path, PathBuf};

use towline_protocol::epoch::{Epoch, History};
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::{Lsn, SegmentSize};
use towline_protocol::voters::Voters;
use towline_protocol::wire::{Reader, WireError, Writer};

use crate::crash;
use crate::disk::{Disk, FileDisk};
use crate::error::{AtPath, WalError};

const MAGIC: &[u8; 8] = b"TOWLCTL\n";
const VERSION: u16 = 1;
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
            sequence: 0,
        }
    }

    /// Makes this disk another one to the cluster: what it promised before is void, and it counts
    /// again once it is granted.
    pub fn renew(&mut self) {
        self.incarnation = Incarnation(crate::provision::nonce());
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
        if version != VERSION {
            return Err(WireError::invalid("version", version));
        }
        let sequence = reader.u64("sequence")?;
        let control = Self {
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
            sequence,
        };
        reader.finish()?;
        Ok(control)
    }
}

fn copy_path(dir: &Path, copy: u8) -> PathBuf {
    dir.join(format!("control.{copy}"))
}

/// Founds a log: writes its control file into an empty or absent folder.
///
/// # Errors
/// [`WalError::NotEmpty`], or what the operating system says.
pub fn found(dir: &Path, founding: &Founding) -> Result<(), WalError> {
    fs::create_dir_all(dir).at("creating", dir)?;
    if fs::read_dir(dir).at("reading", dir)?.next().is_some() {
        return Err(WalError::NotEmpty(dir.to_owned()));
    }
    write(&FileDisk, dir, &mut Control::founded(founding))
}

/// Writes both copies, one after the other. Durable on return.
pub(crate) fn write(disk: &dyn Disk, dir: &Path, control: &mut Control) -> Result<(), WalError> {
    control.sequence += 1;
    let bytes = control.encode();
    for copy in [0, 1] {
        write_copy(disk, dir, copy, &bytes)?;
    }
    Ok(())
}

fn write_copy(disk: &dyn Disk, dir: &Path, copy: u8, bytes: &[u8]) -> Result<(), WalError> {
    let path = copy_path(dir, copy);
    let fresh = path.with_extension(format!("{copy}.new"));
    crash::point()?;
    disk.write(&fresh, bytes).at("writing", &fresh)?;
    crash::point()?;
    disk.rename(&fresh, &path).at("renaming over", &path)?;
    disk.sync_dir(dir).at("syncing", dir)
}

/// Reads the newest whole copy. Takes no lock and changes nothing.
///
/// # Errors
/// [`WalError::NotFounded`] if there is none, [`WalError::Control`] if none is whole.
pub fn read_control(dir: &Path) -> Result<Control, WalError> {
    read(dir).map(|(control, _)| control)
}

/// Reads the newest whole copy, and says whether the other one must be rewritten.
pub(crate) fn read(dir: &Path) -> Result<(Control, bool), WalError> {
    let mut whole: Vec<Control> = Vec::new();
    let mut damage = Vec::new();
    for copy in [0, 1] {
        let path = copy_path(dir, copy);
        match read_copy(&path) {
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
        None if is_empty(dir)? => Err(WalError::NotFounded(dir.to_owned())),
        None => Err(WalError::Control { dir: dir.to_owned(), what: damage.join("; ") }),
    }
}

fn read_copy(path: &Path) -> Result<Option<Result<Control, WireError>>, WalError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > LEN_MAX => {
            let error = WireError::invalid("length", format!("{} bytes", metadata.len()));
            return Ok(Some(Err(error)));
        }
        _ => {}
    }
    Ok(Some(Control::decode(&fs::read(path).at("reading", path)?)))
}

fn is_empty(dir: &Path) -> Result<bool, WalError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).at("reading", dir),
    }
}
