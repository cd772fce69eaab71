//! One write of the workload: a pure function of who writes it and the how-manieth it is, so that
//! whoever finds a value can tell whose it is and whether it is whole.

/// Keys of the workload.
const KEYS: f64 = 20_000.0;
/// The shortest value: it holds the connection, the sequence and the length.
const VALUE_LEN_MIN: f64 = 16.0;
/// How many times longer the longest value is: 16 KiB.
const VALUE_LEN_SPAN: f64 = 1024.0;
/// What the workload's keys begin with; others are none of its business.
pub(super) const KEY_PREFIX: &str = "demo:";

/// Which write: the connection that made it, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct WriteId {
    pub(super) connection: u32,
    pub(super) sequence: u64,
}

impl WriteId {
    /// The key it writes: few are hot, many are cold.
    pub(super) fn key(self) -> String {
        let skewed = self.unit(1).powi(3);
        format!("{KEY_PREFIX}{:05}", (KEYS * skewed) as u32)
    }

    /// The value it writes, 16 B to 16 KiB, short ones as frequent as long ones.
    pub(super) fn value(self) -> Vec<u8> {
        let len = (VALUE_LEN_MIN * VALUE_LEN_SPAN.powf(self.unit(2))) as u32;
        let mut value = Vec::with_capacity(len as usize + 8);
        value.extend_from_slice(&self.connection.to_le_bytes());
        value.extend_from_slice(&self.sequence.to_le_bytes());
        value.extend_from_slice(&len.to_le_bytes());
        let mut state = self.seed(3);
        while value.len() < len as usize {
            state = mixed(state);
            value.extend_from_slice(&state.to_le_bytes());
        }
        value.truncate(len as usize);
        value
    }

    /// Which write left this value; `None` if none did, byte for byte.
    pub(super) fn of_value(value: &[u8]) -> Option<Self> {
        let (connection, rest) = value.split_first_chunk()?;
        let (sequence, _) = rest.split_first_chunk()?;
        let write = Self {
            connection: u32::from_le_bytes(*connection),
            sequence: u64::from_le_bytes(*sequence),
        };
        (write.value() == value).then_some(write)
    }

    fn seed(self, purpose: u64) -> u64 {
        mixed(mixed(u64::from(self.connection) << 8 | purpose) ^ self.sequence)
    }

    /// A number from 0 to 1, 1 excluded.
    fn unit(self, purpose: u64) -> f64 {
        (self.seed(purpose) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// SplitMix64.
const fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn writes() -> impl Iterator<Item = WriteId> {
        (0..8)
            .flat_map(|connection| (0..1_000).map(move |sequence| WriteId { connection, sequence }))
    }

    #[test]
    fn a_value_names_its_write_and_a_damaged_one_names_none() {
        for write in writes().step_by(7) {
            let mut value = write.value();
            assert_eq!(WriteId::of_value(&value), Some(write));
            assert!((16..=16 << 10).contains(&value.len()), "{}", value.len());
            let last = value.len() - 1;
            value[last] ^= 1;
            assert_eq!(WriteId::of_value(&value), None);
            assert_eq!(WriteId::of_value(&value[..last]), None);
        }
    }

    #[test]
    fn sizes_span_the_whole_range_and_keys_are_skewed() {
        let lens: Vec<_> = writes().map(|write| write.value().len()).collect();
        assert!(lens.iter().any(|len| *len < 20) && lens.iter().any(|len| *len > 15 << 10));
        let mut counts = HashMap::new();
        for write in writes() {
            *counts.entry(write.key()).or_insert(0) += 1;
        }
        assert!(counts.values().max() > Some(&100), "the hottest key");
        assert!(counts.len() > 2_000, "{} keys", counts.len());
    }
}
