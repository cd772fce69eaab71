//! Every flipped bit and every truncation of a log, and sectors that went wrong by the million:
//! whatever is read is right, and damage below a promise is refused.

mod damage;
mod judge;
mod specimen;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use towline_wal::WalError;
use towline_wal::simulated::SimDisk;

use crate::log::{dir, open, read_back, verify};
use crate::random::mix;
use crate::tally::{Tally, on_every_core};
use judge::{Known, Met, Outcome, Pair};
use specimen::{Content, Specimen, is_segment};

/// How much is tried.
#[derive(Clone, Copy)]
pub(crate) enum Extent {
    Full,
    Short,
    /// As little as shows a bug in what is checked.
    Glance,
}

impl Extent {
    /// One bit, one length, and one bit of a control file in so many; and so many random damages.
    const fn steps(self) -> (usize, usize, usize, u64) {
        match self {
            Self::Full => (1, 1, 1, 1_000_000),
            Self::Short => (9, 13, 5, 70_000),
            Self::Glance => (61, 331, 61, 2_500),
        }
    }
}

/// After one refusal to open in so many it is checked that nothing was changed.
const UNCHANGED: u64 = 16;

/// One damage.
#[derive(Clone, Copy, Debug)]
enum Case {
    /// A bit of the segment.
    Bit(u64),
    /// The segment is only so long.
    Length(u64),
    /// A bit of one copy of the control file.
    Control(u64, u64),
    /// Several sectors of a larger log.
    Random(u64),
}

impl Case {
    fn name(self) -> String {
        match self {
            Self::Bit(bit) => format!("bit:{bit}"),
            Self::Length(length) => format!("length:{length}"),
            Self::Control(copy, bit) => format!("control.{copy}:{bit}"),
            Self::Random(seed) => format!("random:{seed}"),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let (kind, number) = name.split_once(':')?;
        let number = number.parse().ok()?;
        Some(match kind {
            "bit" => Self::Bit(number),
            "length" => Self::Length(number),
            "control.0" => Self::Control(0, number),
            "control.1" => Self::Control(1, number),
            "random" => Self::Random(number),
            _ => return None,
        })
    }
}

/// The two logs that are damaged.
struct Subjects {
    small: Specimen,
    large: Specimen,
}

impl Subjects {
    fn new() -> Result<Self, String> {
        let failed = |error: WalError| format!("no log to damage: {error}");
        Ok(Self {
            small: Specimen::small().map_err(failed)?,
            large: Specimen::large().map_err(failed)?,
        })
    }

    fn check(&self, case: Case) -> Result<Met, String> {
        match case {
            Case::Bit(bit) => {
                let (path, content) = self.small.segment();
                judged(&self.small, &[(path, flipped(&content, bit))], bit)
            }
            Case::Length(length) => {
                let (path, content) = self.small.segment();
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let left = content[..length.min(content.len())].to_vec();
                judged(&self.small, &[(path, Arc::new(left))], length as u64)
            }
            Case::Control(copy, bit) => {
                let path = dir().join(format!("control.{copy}"));
                let content = flipped(&self.small.files[&path], bit);
                // The other copy is whole.
                match judged(&self.small, &[(path, content)], 0)? {
                    Met::Harmless => Ok(Met::Harmless),
                    met => Err(format!("one copy of two is damaged, and the log is {met:?}")),
                }
            }
            Case::Random(seed) => judged(&self.large, &damage::damaged(&self.large, seed), seed),
        }
    }
}

impl Specimen {
    /// The one segment.
    fn segment(&self) -> (PathBuf, Content) {
        let segment = self.files.iter().find(|(path, _)| is_segment(path));
        let (path, content) = segment.expect("a log has a segment");
        (path.clone(), Arc::clone(content))
    }
}

fn flipped(content: &Content, bit: u64) -> Content {
    let mut content = content.to_vec();
    let byte = usize::try_from(bit / 8).unwrap_or(usize::MAX);
    if let Some(byte) = content.get_mut(byte) {
        *byte ^= 1 << (bit % 8);
    }
    Arc::new(content)
}

/// Opens and reads a log of which some files are damaged, and judges it.
fn judged(specimen: &Specimen, damaged: &[(PathBuf, Content)], lot: u64) -> Result<Met, String> {
    let now = |path: &PathBuf| {
        let damaged = damaged.iter().find(|(other, _)| other == path);
        Arc::clone(damaged.map_or(&specimen.files[path], |(_, content)| content))
    };
    let files: Vec<_> = specimen.files.keys().map(|path| (path.clone(), now(path))).collect();
    let disk = SimDisk::holding(1, files.iter().cloned()).map_err(|error| error.to_string())?;
    let verified = verify(&disk).map_or_else(Outcome::Refused, Outcome::Read);
    let opened = open(&disk);
    let is_opened = opened.is_ok();
    let outcome = match opened.and_then(|wal| read_back(&wal)) {
        Ok(found) => Outcome::Read(found),
        Err(error) => Outcome::Refused(error.to_string()),
    };
    let segments = files.iter().filter(|(path, _)| is_segment(path));
    let mut base = 0;
    let pairs: Vec<_> = segments
        .map(|(path, damaged)| {
            let whole = &specimen.files[path];
            let pair = Pair { base, whole, damaged };
            base += whole.len() as u64;
            pair
        })
        .collect();
    let known = Known { records: &specimen.records, noted: specimen.noted };
    known.judge(&pairs, &verified).map_err(|error| format!("reading without opening: {error}"))?;
    let met = known.judge(&pairs, &outcome)?;
    if !is_opened && mix(lot) % UNCHANGED == 0 {
        check_unchanged(&disk, &files)?;
    }
    Ok(met)
}

fn check_unchanged(disk: &SimDisk, files: &[(PathBuf, Content)]) -> Result<(), String> {
    let now = disk.files();
    let is_there = |(path, content): &(PathBuf, Content)| {
        now.iter().any(|(other, now)| other == path && now == &**content)
    };
    match files.iter().find(|file| is_segment(&file.0) && !is_there(file)) {
        Some((path, _)) => Err(format!("it was refused, and {} was changed", path.display())),
        None => Ok(()),
    }
}

/// Tries all damages, or some of each kind; `random` of the random ones.
pub(crate) fn run(extent: Extent, random: Option<u64>, tally: &Tally) {
    let mut subjects = None;
    tally.run(
        || "specimen".to_owned(),
        || {
            subjects = Some(Subjects::new()?);
            Ok(())
        },
    );
    let Some(subjects) = subjects else { return };
    let (_, segment) = subjects.small.segment();
    let (every_bit, every_length, every_control, at_random) = extent.steps();
    let bits = (0..segment.len() as u64 * 8).step_by(every_bit);
    let lengths = (0..segment.len() as u64).step_by(every_length);
    let control = subjects.small.files[&dir().join("control.0")].len() as u64 * 8;
    let copies = (0..2).flat_map(|copy| {
        (0..control).step_by(every_control).map(move |bit| Case::Control(copy, bit))
    });
    let random = random.unwrap_or(at_random);
    let kinds: [(&str, Vec<Case>); 4] = [
        ("flipped bits", bits.map(Case::Bit).collect()),
        ("lengths", lengths.map(Case::Length).collect()),
        ("flipped bits of a control file", copies.collect()),
        ("random damages", (0..random).map(Case::Random).collect()),
    ];
    for (name, cases) in kinds {
        run_all(name, &cases, &subjects, tally);
    }
}

fn run_all(name: &str, cases: &[Case], subjects: &Subjects, tally: &Tally) {
    let next = AtomicU64::new(0);
    let met = [const { AtomicU64::new(0) }; 3];
    on_every_core(|| {
        while let Ok(at) = usize::try_from(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(case) = cases.get(at).filter(|_| !tally.is_over()) else { return };
            tally.run(
                || case.name(),
                || {
                    let how = subjects.check(*case)?;
                    met[how as usize].fetch_add(1, Ordering::Relaxed);
                    Ok(())
                },
            );
        }
    });
    let [harmless, torn, refused] = met.map(AtomicU64::into_inner);
    println!("bit-flips: {name}: {harmless} harmless, {torn} torn tails, {refused} refused");
}

/// Tries one damage again, as a failure names it.
pub(crate) fn run_one(name: &str, tally: &Tally) -> Result<(), String> {
    let case = Case::parse(name).ok_or_else(|| format!("{name} is no case"))?;
    let subjects = Subjects::new()?;
    tally.run(|| name.to_owned(), || subjects.check(case).map(drop));
    Ok(())
}
