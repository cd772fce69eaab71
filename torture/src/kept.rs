//! What of a log must be kept, known from outside: where it may begin, and the slot that holds it.
//!
//! As the rest of the oracle this names nothing of the log, and knows of one slot:
//!
//! - a trim removes whole segments, none that holds what is behind its bound or the slot's
//!   position, and one that was told to be done is not undone;
//! - the slot is there once that was told, until it is dropped, and never stands before what was
//!   told to be durable, nor behind what was asked;
//! - where the slot stands, the log still is.

/// The length of a segment, in bytes.
const SEGMENT_LEN: u64 = 64 << 10;

/// A slot as it was read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) position: u64,
    pub(crate) lagged: bool,
}

/// What is known of a log's beginning and of its slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Kept {
    /// Where the log began after the last trim that was told to be done.
    trimmed: u64,
    /// Where one that may have been done leaves the beginning.
    may_trim: u64,
    /// Where the slot stands at least and at most; `None` if there can be none.
    slot: Option<(u64, u64)>,
    /// Whether the slot was told to be durable.
    is_sure: bool,
}

/// The beginning of the segment that a position lies in.
pub(crate) const fn base_of(position: u64) -> u64 {
    position - position % SEGMENT_LEN
}

impl Kept {
    /// Where the log begins, as far as anybody was told.
    pub(crate) const fn base(&self) -> u64 {
        self.trimmed
    }

    /// Whether there is a slot, as far as anybody was told.
    pub(crate) fn has_slot(&self) -> bool {
        self.slot.is_some()
    }

    /// A trim of all that is below a position begins. Returns where the log must begin after it.
    pub(crate) fn trim_begins(&mut self, to: u64) -> u64 {
        let slot = self.slot.map_or(to, |(_, most)| most);
        self.may_trim = self.trimmed.max(base_of(to.min(slot)));
        self.may_trim
    }

    /// The trim was told to be done.
    pub(crate) fn trim_is_done(&mut self) {
        self.trimmed = self.may_trim;
    }

    /// A slot is about to be made.
    pub(crate) fn slot_asked(&mut self, position: u64) {
        self.slot = Some((position, position));
    }

    /// It was told to be made.
    pub(crate) fn slot_is_durable(&mut self) {
        self.is_sure = self.slot.is_some();
    }

    /// The slot is about to move on.
    pub(crate) fn slot_moves(&mut self, position: u64) {
        if let Some((_, most)) = &mut self.slot {
            *most = position.max(*most);
        }
    }

    /// It was told to have moved on from `before`: durably if that was in another segment.
    pub(crate) fn slot_has_moved(&mut self, before: u64) {
        if let Some((least, most)) = &mut self.slot {
            if base_of(before) != base_of(*most) {
                *least = *most;
            }
        }
    }

    /// Where the slot stands while nobody dies.
    pub(crate) fn slot_position(&self) -> u64 {
        self.slot.map_or(0, |(_, most)| most)
    }

    /// The slot is about to be dropped.
    pub(crate) fn drop_asked(&mut self) {
        self.is_sure = false;
    }

    /// It was told to be dropped.
    pub(crate) fn is_dropped(&mut self) {
        (self.slot, self.is_sure) = (None, false);
    }

    /// The log may be cut to `end`: the slot does not stay behind it.
    pub(crate) fn cut_begins(&mut self, end: u64) {
        self.slot = self.slot.map(|(least, most)| (least.min(end), most));
    }

    /// It was.
    pub(crate) fn cut_is_done(&mut self, end: u64) {
        self.slot = self.slot.map(|(least, most)| (least.min(end), most.min(end)));
    }

    /// The same knowledge for a moment between `before` and now.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let slot = match (before.slot, self.slot) {
            (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
            (one, other) => one.or(other),
        };
        let is_sure = before.is_sure && self.is_sure;
        Self { trimmed: before.trimmed, may_trim: self.may_trim, slot, is_sure }
    }

    /// Judges where a log begins and its slot stands that ends at `end`.
    pub(crate) fn judge(&self, base: u64, slot: Option<Slot>, end: u64) -> Result<(), String> {
        let (trimmed, may) = (self.trimmed, self.may_trim);
        if base != trimmed && base != may {
            return Err(format!("it begins at {base}, not at {trimmed} or {may}"));
        }
        let Some(slot) = slot else {
            return if self.is_sure { Err("its slot is gone".to_owned()) } else { Ok(()) };
        };
        let Some((least, most)) = self.slot else {
            return Err(format!("it has a slot at {}, and none was made", slot.position));
        };
        if slot.lagged || slot.position < base {
            return Err(format!("its slot at {} lags: it begins at {base}", slot.position));
        }
        // A torn tail may have been cut off under it.
        if !(least.min(end)..=most).contains(&slot.position) {
            return Err(format!("its slot is at {}, not in {least}..={most}", slot.position));
        }
        Ok(())
    }

    /// What was found is what there is.
    pub(crate) fn settle(&mut self, base: u64, slot: Option<Slot>) {
        (self.trimmed, self.may_trim) = (base, base);
        self.slot = slot.map(|slot| (slot.position, slot.position));
        self.is_sure = self.slot.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(position: u64) -> Option<Slot> {
        Some(Slot { position, lagged: false })
    }

    #[test]
    fn a_trim_stops_at_its_bound_and_at_the_slot_and_stays_done() {
        let mut kept = Kept::default();
        assert_eq!(kept.trim_begins(3 * SEGMENT_LEN + 7), 3 * SEGMENT_LEN);
        kept.slot_asked(SEGMENT_LEN + 5);
        kept.slot_is_durable();
        assert_eq!(kept.trim_begins(3 * SEGMENT_LEN + 7), SEGMENT_LEN);
        let end = 4 * SEGMENT_LEN;
        for base in [0, SEGMENT_LEN] {
            assert_eq!(kept.judge(base, at(SEGMENT_LEN + 5), end), Ok(()));
        }
        assert!(kept.judge(2 * SEGMENT_LEN, at(SEGMENT_LEN + 5), end).is_err());
        kept.trim_is_done();
        assert!(kept.judge(0, at(SEGMENT_LEN + 5), end).is_err());
    }

    #[test]
    fn a_slot_that_was_told_of_is_there_and_never_goes_back() {
        let mut kept = Kept::default();
        assert!(kept.judge(0, at(9), 90).is_err());
        kept.slot_asked(9);
        assert_eq!((kept.judge(0, None, 90), kept.judge(0, at(9), 90)), (Ok(()), Ok(())));
        kept.slot_is_durable();
        assert!(kept.judge(0, None, 90).is_err());
        let (before, end) = (kept.slot_position(), 2 * SEGMENT_LEN);
        kept.slot_moves(SEGMENT_LEN + 1);
        assert!(kept.judge(0, at(9), end).is_ok() && kept.judge(0, at(8), end).is_err());
        kept.slot_has_moved(before);
        assert!(kept.judge(0, at(9), end).is_err());
        assert_eq!(kept.judge(0, at(20), 20), Ok(()), "the log is shorter than that");
        kept.drop_asked();
        assert!(kept.judge(0, None, end).is_ok());
        kept.is_dropped();
        assert!(kept.judge(0, at(SEGMENT_LEN + 1), end).is_err());
    }

    #[test]
    fn a_slot_lags_only_if_it_is_told_and_never_before_the_beginning() {
        let mut kept = Kept::default();
        kept.slot_asked(SEGMENT_LEN);
        kept.slot_is_durable();
        let lagging = Some(Slot { position: SEGMENT_LEN, lagged: true });
        assert!(kept.judge(0, lagging, 2 * SEGMENT_LEN).unwrap_err().contains("lags"));
        kept.settle(2 * SEGMENT_LEN, at(SEGMENT_LEN));
        let judged = kept.judge(2 * SEGMENT_LEN, at(SEGMENT_LEN), 3 * SEGMENT_LEN);
        assert!(judged.unwrap_err().contains("lags"));
    }

    #[test]
    fn between_two_moments_both_are_right() {
        let before = Kept::default();
        let mut after = before;
        after.slot_asked(5);
        after.slot_is_durable();
        let during = after.since(&before);
        assert_eq!((during.judge(0, None, 9), during.judge(0, at(5), 9)), (Ok(()), Ok(())));
        let mut dropped = after;
        dropped.drop_asked();
        dropped.is_dropped();
        let during = dropped.since(&after);
        assert_eq!((during.judge(0, None, 9), during.judge(0, at(5), 9)), (Ok(()), Ok(())));
    }
}
