//! The two copies of the control file.
//!
//! A change counts once both copies are durable. Each is written where it lies and synced, one
//! after the other, so that a change needs no room on the disk; a copy that is torn is told by its
//! checksum, and the other one is whole. What keeps that so, crash by crash, is argued in
//! `docs/design/wal-format.md`.

use std::path::{Path, PathBuf};

use towline_protocol::epoch::History;
use towline_protocol::wire::WireError;

use crate::control::{Control, Founding, VERSION};
use crate::disk::{Access, Disk, FileDisk};
use crate::error::{AtPath, WalError};
use crate::planted::{Bug, planted};
use crate::slots::{SLOT_LEN_MAX, SLOTS_MAX};

/// A new copy has at least this length, in bytes; what it does not need is room to grow.
const LEN_MIN: u64 = 4096;
/// No copy is longer, in bytes: the longest history fits.
const LEN_MAX: u64 = 2 << 20;
/// So long is what a copy holds beside its history and its slots, in bytes, at most.
const TERMS_LEN_MAX: u64 = 128 << 10;
/// The length of a checksum.
const CRC_LEN: u64 = 4;
/// A reader without the lock may meet both copies half written, each at its turn: it tries again.
const READ_TRIES: usize = 8;

const _: () = assert!(
    (History::MAX_LEN * 57 + SLOTS_MAX * SLOT_LEN_MAX) as u64 + TERMS_LEN_MAX + CRC_LEN < LEN_MAX,
    "whatever a control file says fits into a copy"
);

/// The copies as the one who holds the folder's lock writes them. Of those that are there, one at
/// most may be torn on the disk, or be there in the page cache only; it is written first, so that
/// the other stays whole until it is.
#[derive(Debug)]
pub(crate) struct Copies {
    dir: PathBuf,
    /// The highest sequence number that was ever tried.
    sequence: u64,
    copies: [Copy; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Copy {
    /// The length of its file; `None` if there is none.
    len: Option<u64>,
    /// Whether it holds the newest state, on the disk.
    is_newest: bool,
}

impl Copies {
    fn none(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), sequence: 0, copies: [Copy::default(); 2] }
    }

    /// Reads the copies, and makes what is whole of them durable: after a failed sync the page
    /// cache may show what the disk does not hold. Also says whether they differ.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> Result<(Self, Control, bool), WalError> {
        let Newest { control, differ, bytes } = read_newest(disk, dir)?;
        let mut copies = Self::none(dir);
        copies.sequence = control.sequence;
        for (copy, bytes) in bytes.into_iter().enumerate() {
            let path = copy_path(dir, copy);
            let Some(bytes) = bytes else { continue };
            copies.copies[copy].len = Some(bytes.len() as u64).filter(|&len| len <= LEN_MAX);
            if let Ok(whole) = decode(&bytes) {
                // The same bytes: it is as whole as before at every moment.
                if !planted(Bug::ControlNotMadeDurable) {
                    overwrite(disk, &path, &bytes)?;
                }
                copies.copies[copy].is_newest = whole == control;
            }
        }
        Ok((copies, control, differ))
    }

    /// Writes both copies, one after the other. Durable on return. If it fails, what is on the
    /// disk is the state before or this one.
    pub(crate) fn write(&mut self, disk: &dyn Disk, control: &mut Control) -> Result<(), WalError> {
        self.sequence += 1;
        control.sequence = self.sequence;
        let said = control.encode();
        let first = usize::from(self.copies[0].is_newest && !self.copies[1].is_newest);
        let order = [first, 1 - first];
        for copy in if planted(Bug::OneControlCopy) { &order[..1] } else { &order[..] } {
            self.write_copy(disk, *copy, &said)?;
        }
        Ok(())
    }

    fn write_copy(&mut self, disk: &dyn Disk, copy: usize, said: &[u8]) -> Result<(), WalError> {
        let path = copy_path(&self.dir, copy);
        self.copies[copy].is_newest = false;
        let needed = said.len() as u64 + CRC_LEN;
        assert!(needed <= LEN_MAX, "history, slots and terms are bounded");
        let wanted = (2 * needed).next_power_of_two().clamp(LEN_MIN, LEN_MAX);
        let fits = self.copies[copy].len.filter(|&len| needed <= len);
        // Made longer before it has to be, so that a full disk finds room for what comes.
        let made = match fits {
            Some(len) if wanted <= len => None,
            _ => match self.make(disk, copy, &padded(said, wanted)) {
                Err(WalError::NoSpace(_)) if fits.is_some() => None,
                made => made.map(|()| Some(wanted))?,
            },
        };
        if let (None, Some(len)) = (made, fits) {
            overwrite(disk, &path, &padded(said, len))?;
        }
        self.copies[copy] = Copy { len: made.or(fits), is_newest: true };
        Ok(())
    }

    /// Makes a copy's file anew.
    fn make(&mut self, disk: &dyn Disk, copy: usize, bytes: &[u8]) -> Result<(), WalError> {
        let (path, fresh) = (copy_path(&self.dir, copy), fresh_path(&self.dir, copy));
        disk.write(&fresh, bytes).at("writing", &fresh)?;
        disk.rename(&fresh, &path).at("renaming over", &path)?;
        self.copies[copy].len = Some(bytes.len() as u64);
        if planted(Bug::ControlNameNotSynced) {
            return Ok(());
        }
        disk.sync_dir(&self.dir).at("syncing", &self.dir)
    }
}

/// What a copy says, room up to `len`, and the checksum of all of it.
fn padded(said: &[u8], len: u64) -> Vec<u8> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(said);
    bytes.resize(len - CRC_LEN as usize, 0);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Writes a file anew where it lies. Durable on return.
fn overwrite(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), WalError> {
    let file = disk.open(path, Access::ReadWrite).at("opening", path)?;
    file.write_at(bytes, 0).at("writing", path)?;
    if planted(Bug::ControlNotSynced) {
        return Ok(());
    }
    file.sync().at("syncing", path)
}

fn copy_path(dir: &Path, copy: usize) -> PathBuf {
    dir.join(format!("control.{copy}"))
}

fn fresh_path(dir: &Path, copy: usize) -> PathBuf {
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
    Copies::none(dir).write(disk, &mut Control::founded(founding))
}

/// Makes a folder and those above it that are missing, all durable on return: a log is not safer
/// than the name of its folder.
fn create_dirs(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    let mut missing = Vec::new();
    for above in dir.ancestors() {
        match disk.list(above) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing.push(above),
            found => {
                found.at("reading", above)?;
                break;
            }
        }
    }
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

/// Writes both copies of a closed log's control file, with the folder's lock held. Durable on
/// return.
pub(crate) fn write(disk: &dyn Disk, dir: &Path, control: &mut Control) -> Result<(), WalError> {
    Copies::open(disk, dir)?.0.write(disk, control)
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
    read_newest(disk, dir).map(|newest| (newest.control, newest.differ))
}

/// The newest whole copy, and what both files hold.
struct Newest {
    control: Control,
    /// Whether the copies differ.
    differ: bool,
    bytes: [Option<Vec<u8>>; 2],
}

fn read_newest(disk: &dyn Disk, dir: &Path) -> Result<Newest, WalError> {
    let mut tries = 1..=READ_TRIES;
    loop {
        let last_try = tries.next().is_none_or(|number| number == READ_TRIES);
        match read_once(disk, dir) {
            Err(WalError::Control { .. }) if !last_try => {}
            read => return read,
        }
    }
}

fn read_once(disk: &dyn Disk, dir: &Path) -> Result<Newest, WalError> {
    let mut whole: Vec<Control> = Vec::new();
    let mut damage = Vec::new();
    let mut bytes = [None, None];
    for (copy, bytes) in bytes.iter_mut().enumerate() {
        let path = copy_path(dir, copy);
        *bytes = read_bytes(disk, &path)?;
        match bytes.as_deref().map(decode) {
            Some(Ok(control)) => whole.push(control),
            Some(Err(error)) => {
                if let WireError::Invalid { field: "version", reason } = &error {
                    let version = reason.parse().unwrap_or(u16::MAX);
                    return Err(WalError::NewerVersion { path, version, known: VERSION });
                }
                damage.push(format!("{}: {error}", path.display()));
            }
            None => damage.push(format!("{} is missing", path.display())),
        }
    }
    let agree = whole.len() == 2 && whole[0] == whole[1];
    match whole.into_iter().max_by_key(|control| control.sequence) {
        Some(control) => Ok(Newest { control, differ: !agree, bytes }),
        None if is_empty(disk, dir)? => Err(WalError::NotFounded(dir.to_owned())),
        None => Err(WalError::Control { dir: dir.to_owned(), what: damage.join("; ") }),
    }
}

fn decode(bytes: &[u8]) -> Result<Control, WireError> {
    if bytes.len() as u64 > LEN_MAX {
        return Err(WireError::invalid("length", format!("over {LEN_MAX} bytes")));
    }
    Control::decode(bytes)
}

fn read_bytes(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, WalError> {
    match disk.read(path, LEN_MAX + 1) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.at("reading", path).map(Some),
    }
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
