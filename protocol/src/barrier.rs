//! The payload of a BARRIER: the record that opens an epoch.

use crate::epoch::{Epoch, EpochStart};
use crate::lsn::Lsn;
use crate::record::Digest;
use crate::terms::Terms;
use crate::wire::{Reader, WireError, Writer};

/// Opens an epoch, and says what the epoch builds on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Barrier {
    /// The epoch that begins.
    pub epoch: Epoch,
    /// The epoch before it.
    pub previous: Epoch,
    /// The exact end of that epoch.
    pub previous_end: Lsn,
    /// The digest of the log up to there.
    pub digest: Digest,
    /// What holds from here on.
    pub terms: Terms,
    /// Whether an operator accepted that writes acknowledged elsewhere may be lost.
    pub accepted_loss: bool,
}

impl Barrier {
    const VERSION: u8 = 1;

    /// The history's entry of this epoch, whose BARRIER lies at `first`.
    #[must_use]
    pub const fn start(&self, first: Lsn) -> EpochStart {
        EpochStart {
            epoch: self.epoch,
            first,
            previous: self.previous,
            previous_end: self.previous_end,
            digest: self.digest,
            accepted_loss: self.accepted_loss,
        }
    }

    /// The record's payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(Self::VERSION).epoch(self.epoch).epoch(self.previous).lsn(self.previous_end);
        writer.u64(self.digest.0);
        self.terms.encode(&mut writer);
        writer.bool(self.accepted_loss);
        writer.into_bytes()
    }

    /// Reads a record's payload.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let version = reader.u8("barrier.version")?;
        if version != Self::VERSION {
            return Err(WireError::invalid("barrier.version", format!("{version} is unknown")));
        }
        let barrier = Self {
            epoch: reader.epoch("barrier.epoch")?,
            previous: reader.epoch("barrier.previous")?,
            previous_end: reader.lsn("barrier.previous_end")?,
            digest: Digest(reader.u64("barrier.digest")?),
            terms: Terms::decode(&mut reader)?,
            accepted_loss: reader.bool("barrier.accepted_loss")?,
        };
        reader.finish()?;
        Ok(barrier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, NodeId};
    use crate::voters::{Voter, Voters};

    #[test]
    fn a_barrier_reads_back_and_a_short_one_is_refused() {
        let node: NodeId = "a".parse().unwrap();
        let voters = Voters::new(
            vec![Voter { node, incarnation: Incarnation(8), zone: String::new() }],
            None,
        )
        .unwrap();
        let barrier = Barrier {
            epoch: Epoch { number: 2, incarnation: Incarnation(8) },
            previous: Epoch { number: 1, incarnation: Incarnation(7) },
            previous_end: Lsn::new(5_000),
            digest: Digest(99),
            terms: Terms { lease_ms: 300, ..Terms::founding(voters) },
            accepted_loss: false,
        };
        let payload = barrier.encode();
        let start = barrier.start(Lsn::new(69_632));
        assert_eq!((start.epoch, start.first.get()), (barrier.epoch, 69_632));
        assert_eq!((start.previous, start.previous_end), (barrier.previous, barrier.previous_end));
        assert_eq!((start.digest, start.accepted_loss), (barrier.digest, false));
        assert_eq!(Barrier::decode(&payload), Ok(barrier));
        for len in 0..payload.len() {
            assert!(Barrier::decode(&payload[..len]).is_err());
        }
        let longer = [&payload[..], &[0]].concat();
        assert_eq!(Barrier::decode(&longer), Err(WireError::Trailing(1)));
        let mut newer = payload;
        newer[0] += 1;
        let told = Barrier::decode(&newer).unwrap_err().to_string();
        assert_eq!(told, "barrier.version: 2 is unknown");
    }
}
