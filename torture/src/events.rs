//! What a process tells of the log it writes, line by line, so that whoever survives it knows what
//! the log must hold.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::os::fd::AsFd;

use crate::oracle::{Oracle, Written};

/// One thing that was done, or is about to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Founded,
    Appended(Written),
    /// Everything appended so far is durable.
    Durable,
    FenceAsked(u64),
    Fenced,
    /// A cut behind so many records is about to be done.
    Cutting(usize),
    Cut,
    /// A trim of what lies below a position is about to be done.
    TrimAsked(u64),
    Trimmed,
    /// A slot is about to be made at a position.
    SlotAsked(u64),
    SlotMade,
    /// The slot is about to be moved on to a position, and was, from another.
    SlotMoves(u64),
    SlotMoved(u64),
    DropAsked,
    Dropped,
    /// A byte of the segment at a base is about to rot, at an offset, and to be repaired.
    Mending(u64, u64),
    Mended,
    /// The log refused, and the process ends.
    Refused(String),
}

impl Event {
    fn line(&self) -> String {
        match self {
            Self::Founded => "founded".to_owned(),
            Self::Appended(Written { kind, tag, payload, lsn, end, epoch, .. }) => {
                let epoch = epoch.unwrap_or_default();
                let mut line = format!("appended {kind} {tag} {lsn} {end} {epoch} ");
                for byte in &**payload {
                    let _ = write!(line, "{byte:02x}");
                }
                line
            }
            Self::Durable => "durable".to_owned(),
            Self::FenceAsked(fence) => format!("fence-asked {fence}"),
            Self::Fenced => "fenced".to_owned(),
            Self::Cutting(kept) => format!("cutting {kept}"),
            Self::Cut => "cut".to_owned(),
            Self::TrimAsked(to) => format!("trim-asked {to}"),
            Self::Trimmed => "trimmed".to_owned(),
            Self::SlotAsked(position) => format!("slot-asked {position}"),
            Self::SlotMade => "slot-made".to_owned(),
            Self::SlotMoves(position) => format!("slot-moves {position}"),
            Self::SlotMoved(before) => format!("slot-moved {before}"),
            Self::DropAsked => "drop-asked".to_owned(),
            Self::Dropped => "dropped".to_owned(),
            Self::Mending(base, offset) => format!("mending {base} {offset}"),
            Self::Mended => "mended".to_owned(),
            Self::Refused(error) => format!("refused {}", error.replace('\n', " ")),
        }
    }

    /// Reads a line; `None` for one that the death of its writer has torn.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "founded" => Self::Founded,
            "appended" => Self::Appended(parse_written(rest)?),
            "durable" => Self::Durable,
            "fence-asked" => Self::FenceAsked(rest.parse().ok()?),
            "fenced" => Self::Fenced,
            "cutting" => Self::Cutting(rest.parse().ok()?),
            "cut" => Self::Cut,
            "trim-asked" => Self::TrimAsked(rest.parse().ok()?),
            "trimmed" => Self::Trimmed,
            "slot-asked" => Self::SlotAsked(rest.parse().ok()?),
            "slot-made" => Self::SlotMade,
            "slot-moves" => Self::SlotMoves(rest.parse().ok()?),
            "slot-moved" => Self::SlotMoved(rest.parse().ok()?),
            "drop-asked" => Self::DropAsked,
            "dropped" => Self::Dropped,
            "mending" => {
                let (base, offset) = rest.split_once(' ')?;
                Self::Mending(base.parse().ok()?, offset.parse().ok()?)
            }
            "mended" => Self::Mended,
            "refused" => Self::Refused(rest.to_owned()),
            _ => return None,
        })
    }
}

fn parse_written(text: &str) -> Option<Written> {
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, tag, lsn, end, epoch, hex] = words.as_slice() else { return None };
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let payload: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    let epoch = Some(epoch.parse().ok()?).filter(|epoch| *epoch > 0);
    Some(Written {
        kind: kind.parse().ok()?,
        tag: tag.parse().ok()?,
        payload: payload?.into(),
        lsn: lsn.parse().ok()?,
        end: end.parse().ok()?,
        promise: 0,
        epoch,
    })
}

impl Oracle {
    /// Hears of one event.
    pub(crate) fn hear(&mut self, event: &Event) {
        match event {
            Event::Founded | Event::Refused(_) | Event::Mending(..) | Event::Mended => {}
            Event::Appended(written) => self.appended(written.clone()),
            Event::Durable => self.all_durable(),
            Event::FenceAsked(fence) => self.fence_asked(*fence),
            Event::Fenced => self.fence_is_durable(),
            Event::Cutting(kept) => self.cut_begins(*kept),
            Event::Cut => self.cut_is_done(),
            Event::TrimAsked(to) => drop(self.kept.trim_begins(*to)),
            Event::Trimmed => self.kept.trim_is_done(),
            Event::SlotAsked(position) => self.kept.slot_asked(*position),
            Event::SlotMade => self.kept.slot_is_durable(),
            Event::SlotMoves(position) => self.kept.slot_moves(*position),
            Event::SlotMoved(before) => self.kept.slot_has_moved(*before),
            Event::DropAsked => self.kept.drop_asked(),
            Event::Dropped => self.kept.is_dropped(),
        }
    }
}

/// The process's standard output, each line in one `writev`: a fault that is put into `write` or
/// `pwrite64` hits the log and not what is told of it.
pub(crate) struct Reporter(File);

impl Reporter {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self(File::from(std::io::stdout().as_fd().try_clone_to_owned()?)))
    }

    /// Tells one event. If nobody listens any more there is nothing left to do.
    pub(crate) fn tell(&self, event: &Event) {
        self.tell_line(&event.line());
    }

    /// Tells one line, in one call if it is short.
    pub(crate) fn tell_line(&self, line: &str) {
        let mut rest = line.len() + 1;
        while rest > 0 {
            let (text, end) = (&line.as_bytes()[(line.len() + 1 - rest).min(line.len())..], b"\n");
            match (&self.0).write_vectored(&[IoSlice::new(text), IoSlice::new(end)]) {
                Ok(written) if written > 0 => rest -= written,
                _ => std::process::exit(4),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_reads_back_and_a_torn_line_is_none() {
        let written = Written {
            kind: 2,
            tag: 513,
            payload: vec![0, 255, 16].into(),
            lsn: 4_096,
            end: 4_144,
            promise: 0,
            epoch: Some(3),
        };
        let events = [
            Event::Founded,
            Event::Appended(written.clone()),
            Event::Appended(Written { epoch: None, ..written }),
            Event::Durable,
            Event::FenceAsked(7),
            Event::Fenced,
            Event::Cutting(5),
            Event::Cut,
            Event::TrimAsked(65_536),
            Event::Trimmed,
            Event::SlotAsked(4_096),
            Event::SlotMade,
            Event::SlotMoves(4_144),
            Event::SlotMoved(4_096),
            Event::DropAsked,
            Event::Dropped,
            Event::Mending(65_536, 4_133),
            Event::Mended,
            Event::Refused("it is full".to_owned()),
        ];
        for event in events {
            assert_eq!(Event::parse(&event.line()), Some(event));
        }
        assert_eq!(Event::parse("appended 1 2 30"), None);
        assert_eq!(Event::parse("appended 1 2 30 40 0 0"), None);
    }
}
