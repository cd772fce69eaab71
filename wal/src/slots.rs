//! Slots: named readers for whom the log is kept, up to a bound.
//!
//! A slot's position is written to the control file when it enters another segment, as only whole
//! segments are kept or not, and with every other change of that file. After a crash a slot may
//! stand up to a segment before where it was, never behind it.

use std::sync::PoisonError;

use towline_protocol::lsn::Lsn;
use towline_protocol::wire::{Reader, WireError, Writer};

use crate::error::WalError;
use crate::log::Log;
use crate::planted::{Bug, planted};

/// A log has no more slots than these.
pub const SLOTS_MAX: usize = 64;
/// No slot takes more in the control file, in bytes: its name and that one's length, its position,
/// its bound, and whether it lags.
pub(crate) const SLOT_LEN_MAX: usize = SLOT_NAME_LEN_MAX + 2 + 8 + 8 + 1;
/// The longest name of a slot, in bytes.
pub const SLOT_NAME_LEN_MAX: usize = 64;

/// A named reader for whom the log is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Its name; no other slot of the log has it.
    pub name: String,
    /// Everything from here on is kept.
    pub position: Lsn,
    /// The most bytes that are kept for it, counted as they are stored; without a bound if `None`.
    pub keep_bytes_max: Option<u64>,
    /// Whether it fell behind its bound, and what it needs was trimmed. It holds nothing then.
    pub lagged: bool,
}

impl Slot {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.text(&self.name, SLOT_NAME_LEN_MAX).lsn(self.position).bool(self.lagged);
        writer.u64(self.keep_bytes_max.unwrap_or(u64::MAX));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let name = reader.text("slot.name", SLOT_NAME_LEN_MAX)?;
        let position = reader.lsn("slot.position")?;
        let lagged = reader.bool("slot.lagged")?;
        let keep_bytes_max = Some(reader.u64("slot.keep_bytes_max")?).filter(|&it| it != u64::MAX);
        Ok(Self { name, position, keep_bytes_max, lagged })
    }

    /// Whether the log is kept for it: it does not lag and is inside its bound.
    pub(crate) fn holds(&self, log: &Log, flushed: Lsn) -> bool {
        let kept = || log.stored_bytes_between(self.position, flushed);
        !self.lagged && self.keep_bytes_max.is_none_or(|most| kept() <= most)
    }
}

impl Log {
    /// The slots of the log.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).slots.clone()
    }

    /// Makes a slot at `position`, for which up to `keep_bytes_max` stored bytes are kept from
    /// there on. Durable on return.
    ///
    /// # Errors
    /// [`WalError::Slot`] if the name is taken or no name, or there are [`SLOTS_MAX`] slots;
    /// [`WalError::Lagged`] if the position is trimmed; [`WalError::NoBoundary`] if it is not yet
    /// in the log.
    pub fn create_slot(
        &self,
        name: &str,
        position: Lsn,
        keep_bytes_max: Option<u64>,
    ) -> Result<(), WalError> {
        let _held = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |what: String| Err(WalError::Slot { name: name.to_owned(), what });
        if name.is_empty() || name.len() > SLOT_NAME_LEN_MAX {
            return refused(format!("a name has 1 to {SLOT_NAME_LEN_MAX} bytes"));
        }
        let slots = self.slots();
        if slots.iter().any(|slot| slot.name == name) {
            return refused("there is one of that name; drop it first".to_owned());
        }
        if slots.len() >= SLOTS_MAX {
            return refused(format!("there are {SLOTS_MAX}; drop one that nobody reads by"));
        }
        let oldest = self.oldest().end;
        if position < oldest {
            return Err(WalError::Lagged { at: position, oldest });
        }
        if position > self.appended() {
            return Err(WalError::NoBoundary(position));
        }
        let slot = Slot { name: name.to_owned(), position, keep_bytes_max, lagged: false };
        self.update_control(|control| control.slots.push(slot))
    }

    /// Moves a slot on to `position`: what is before is no longer kept for it. One that is there
    /// already, or further on, stays.
    ///
    /// # Errors
    /// [`WalError::Slot`] if there is none of that name, [`WalError::Lagged`] if what it needs was
    /// trimmed, [`WalError::NoBoundary`] if the log does not reach that far.
    pub fn advance_slot(&self, name: &str, position: Lsn) -> Result<(), WalError> {
        if position > self.appended() {
            return Err(WalError::NoBoundary(position));
        }
        {
            let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest = control.oldest.end;
            let slot = control.slots.iter_mut().find(|slot| slot.name == name);
            let slot = slot.ok_or_else(|| no_slot(name))?;
            if slot.lagged {
                return Err(WalError::Lagged { at: slot.position, oldest });
            }
            let before = slot.position;
            slot.position = before.max(position);
            let is_inside = self.size.base_of(before) == self.size.base_of(slot.position);
            if is_inside || planted(Bug::SlotNotWritten) {
                return Ok(());
            }
        }
        self.update_control(|_| {})
    }

    /// Drops a slot: nothing is kept for it any longer. Durable on return.
    ///
    /// # Errors
    /// [`WalError::Slot`] if there is none of that name.
    pub fn drop_slot(&self, name: &str) -> Result<(), WalError> {
        if !self.slots().iter().any(|slot| slot.name == name) {
            return Err(no_slot(name));
        }
        if planted(Bug::SlotDropNotWritten) {
            let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
            control.slots.retain(|slot| slot.name != name);
            return Ok(());
        }
        self.update_control(|control| control.slots.retain(|slot| slot.name != name))
    }
}

fn no_slot(name: &str) -> WalError {
    let what = "there is none of that name; create it first".to_owned();
    WalError::Slot { name: name.to_owned(), what }
}
