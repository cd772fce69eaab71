//! Reading and writing little-endian fields: the one codec under frames, barriers and control
//! files. A reader never allocates more than the bytes it was given could fill.

use crate::epoch::{Epoch, EpochStart, History};
use crate::id::{Incarnation, NodeId};
use crate::lsn::Lsn;
use crate::record::Digest;

/// Bytes that do not hold what they should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They end before the field does.
    #[error("cut short: {field} is missing")]
    Short {
        /// The field that was being read.
        field: &'static str,
    },
    /// They go on behind the last field.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// An epoch's number is further on than any honest peer could be: taken for true, it would
    /// leave no higher number to the next primary.
    #[error("{field}: epoch number {number} is over the bound of {max}")]
    Epoch {
        /// The field.
        field: &'static str,
        /// The number.
        number: u64,
        /// The highest that is taken.
        max: u64,
    },
    /// A field's value makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl WireError {
    /// A field whose value makes no sense.
    pub fn invalid(field: &'static str, reason: impl ToString) -> Self {
        Self::Invalid { field, reason: reason.to_string() }
    }
}

/// Reads fields off the front of a slice.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    epoch_max: u64,
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, epoch_max: u64::MAX }
    }

    /// Takes no epoch whose number is over `max`.
    #[must_use]
    pub const fn epochs_up_to(self, max: u64) -> Self {
        Self { epoch_max: max, ..self }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn bytes(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], WireError> {
        if len > self.rest.len() {
            return Err(WireError::Short { field });
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    /// Everything that is left.
    pub const fn rest(&mut self) -> &'a [u8] {
        let (rest, nothing) = self.rest.split_at(self.rest.len());
        self.rest = nothing;
        rest
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Short { field })?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(self.array::<1>(field)?[0])
    }

    /// A `bool`, stored as 0 or 1.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn bool(&mut self, field: &'static str) -> Result<bool, WireError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::invalid(field, format!("{other} is neither 0 nor 1"))),
        }
    }

    /// Two bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u128(&mut self, field: &'static str) -> Result<u128, WireError> {
        Ok(u128::from_le_bytes(self.array(field)?))
    }

    /// A position.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn lsn(&mut self, field: &'static str) -> Result<Lsn, WireError> {
        Ok(Lsn::new(self.u64(field)?))
    }

    /// An epoch.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn epoch(&mut self, field: &'static str) -> Result<Epoch, WireError> {
        let number = self.u64(field)?;
        if number > self.epoch_max {
            return Err(WireError::Epoch { field, number, max: self.epoch_max });
        }
        Ok(Epoch { number, incarnation: Incarnation(self.u64(field)?) })
    }

    /// A node's name.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn node(&mut self, field: &'static str) -> Result<NodeId, WireError> {
        NodeId::from_bytes(self.array(field)?).map_err(|error| WireError::invalid(field, error))
    }

    /// Text with a two-byte length, of at most `max` bytes.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn text(&mut self, field: &'static str, max: usize) -> Result<String, WireError> {
        let len = usize::from(self.u16(field)?);
        if len > max {
            return Err(WireError::invalid(field, format!("{len} bytes are over {max}")));
        }
        let text = std::str::from_utf8(self.bytes(field, len)?);
        text.map(str::to_owned).map_err(|error| WireError::invalid(field, error))
    }

    /// An epoch history.
    ///
    /// # Errors
    /// [`WireError`], also if its entries do not follow on each other.
    pub fn history(&mut self, field: &'static str) -> Result<History, WireError> {
        let len = self.u32(field)?;
        let mut history = History::default();
        for _ in 0..len {
            let start = EpochStart {
                epoch: self.epoch(field)?,
                first: self.lsn(field)?,
                previous: self.epoch(field)?,
                previous_end: self.lsn(field)?,
                digest: Digest(self.u64(field)?),
                accepted_loss: self.bool(field)?,
            };
            history.push(start).map_err(|error| WireError::invalid(field, error))?;
        }
        Ok(history)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`WireError::Trailing`] if bytes are left.
    pub const fn finish(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(WireError::Trailing(left)),
        }
    }
}

/// What a writer has room for from its first field on, in bytes: most frames fit.
const FIRST_LEN: usize = 256;

/// Appends fields to a buffer; the mirror of [`Reader`].
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(FIRST_LEN) }
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// A `bool` as 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Sixteen bytes.
    pub fn u128(&mut self, value: u128) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A position.
    pub fn lsn(&mut self, value: Lsn) -> &mut Self {
        self.u64(value.get())
    }

    /// An epoch.
    pub fn epoch(&mut self, value: Epoch) -> &mut Self {
        self.u64(value.number).u64(value.incarnation.0)
    }

    /// A node's name.
    pub fn node(&mut self, value: NodeId) -> &mut Self {
        self.bytes(&value.to_bytes())
    }

    /// Text with a two-byte length, cut at `max` bytes.
    pub fn text(&mut self, value: &str, max: usize) -> &mut Self {
        let mut len = value.len().min(max).min(usize::from(u16::MAX));
        while !value.is_char_boundary(len) {
            len -= 1;
        }
        self.u16(len as u16).bytes(&value.as_bytes()[..len])
    }

    /// An epoch history.
    pub fn history(&mut self, value: &History) -> &mut Self {
        self.u32(value.starts().len() as u32);
        for start in value.starts() {
            self.epoch(start.epoch).lsn(start.first).epoch(start.previous);
            self.lsn(start.previous_end).u64(start.digest.0).bool(start.accepted_loss);
        }
        self
    }
}
