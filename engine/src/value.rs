//! What a key holds.

use bytes::Bytes;
use towline_protocol::wire::{Reader, WireError, Writer};

const PLAIN: u8 = 0;
const EXPIRING: u8 = 1;

/// A value with the time at which it stops to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The bytes a client stored.
    pub bytes: Bytes,
    /// When the value expires, in milliseconds since the Unix epoch; `None` for never.
    pub expires_at_ms: Option<u64>,
}

impl Value {
    /// Whether the value no longer exists for a client at `now_ms`.
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// The value as the tree stores it: a tag, the expiry if the tag says so, the bytes.
    pub(crate) fn encode(bytes: &[u8], expires_at_ms: Option<u64>) -> Vec<u8> {
        let mut out = Vec::with_capacity(9 + bytes.len());
        match expires_at_ms {
            None => out.push(PLAIN),
            Some(at_ms) => {
                out.push(EXPIRING);
                out.extend_from_slice(&at_ms.to_le_bytes());
            }
        }
        out.extend_from_slice(bytes);
        out
    }

    /// The value in `stored`.
    pub(crate) fn decode(stored: &[u8]) -> Result<Self, WireError> {
        let (offset, expires_at_ms) = Self::split(stored)?;
        Ok(Self { bytes: Bytes::copy_from_slice(&stored[offset..]), expires_at_ms })
    }

    /// Where the bytes begin in `stored`, and the expiry.
    pub(crate) fn split(stored: &[u8]) -> Result<(usize, Option<u64>), WireError> {
        let mut reader = Reader::new(stored);
        match reader.u8("value tag")? {
            PLAIN => Ok((1, None)),
            EXPIRING => Ok((9, Some(reader.u64("expiry")?))),
            unknown => Err(WireError::invalid("value tag", format!("{unknown} is unknown"))),
        }
    }
}

/// Adds a value to a buffer the way effects carry it: expiry flag, expiry, length, bytes.
pub(crate) fn write_value(writer: &mut Writer, value: &Value) {
    if let Some(at_ms) = value.expires_at_ms {
        writer.u64(at_ms);
    }
    let len = u32::try_from(value.bytes.len()).expect("values are shorter than a record");
    writer.u32(len).bytes(&value.bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_value_reads_back() {
        for expires_at_ms in [None, Some(0), Some(u64::MAX)] {
            let value = Value { bytes: Bytes::from_static(b"towed"), expires_at_ms };
            let stored = Value::encode(&value.bytes, expires_at_ms);
            assert_eq!(Value::decode(&stored), Ok(value));
        }
    }

    #[test]
    fn damaged_stored_values_are_errors() {
        for stored in [&[][..], &[2, 3], &[EXPIRING, 1, 2]] {
            assert!(Value::decode(stored).is_err());
        }
    }

    #[test]
    fn a_value_expires_at_its_time_and_not_before() {
        let value = Value { bytes: Bytes::new(), expires_at_ms: Some(10) };
        assert!(!value.is_expired(9));
        assert!(value.is_expired(10));
    }
}
