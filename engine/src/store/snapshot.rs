//! A whole state as a stream.
//!
//! ```text
//!  header   "TOWSNAP1" │ head_len u32 │ head │ checksum u64
//!  chunk    len u32 > 0 │ checksum u64 │ entry …
//!  entry    key_len u16 │ key │ value_len u32 │ value
//!  end      0 u32       │ checksum u64 │ keys u64
//! ```
//!
//! Little endian. Each checksum is seeded by the one before it, so chunks cannot be swapped, left
//! out or taken from another snapshot. Values are as the tree stores them. Keys ascend strictly.

use std::io::{Read, Write};

use towline_protocol::wire::{Reader, WireError, Writer};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::StoreError;
use super::head::Head;
use crate::effects::{KEY_LEN_MAX, PAYLOAD_LEN_MAX};
use crate::value::Value;

const MAGIC: &[u8; 8] = b"TOWSNAP1";
const SEED: u64 = 0x746f_776c_696e_6501;
/// A chunk is closed once it is this long.
const CHUNK_LEN: usize = 256 << 10;
/// No chunk is longer: an open one, and the longest entry on top.
const CHUNK_LEN_MAX: usize = CHUNK_LEN + KEY_LEN_MAX + PAYLOAD_LEN_MAX;
const HEAD_LEN_MAX: usize = 256;

/// A key, and its value as stored.
pub(super) type RawEntry = (Vec<u8>, Vec<u8>);

pub(super) struct SnapshotWriter<'a> {
    out: &'a mut dyn Write,
    chunk: Writer,
    chunk_len: usize,
    seed: u64,
    keys: u64,
}

impl<'a> SnapshotWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write, head: &Head) -> Result<Self, StoreError> {
        let head = head.encode();
        let seed = xxh3_64_with_seed(&head, SEED);
        let mut header = Writer::new();
        header.bytes(MAGIC).u32(head.len() as u32).bytes(&head).u64(seed);
        out.write_all(&header.into_bytes()).map_err(failed_write)?;
        Ok(Self { out, chunk: Writer::new(), chunk_len: 0, seed, keys: 0 })
    }

    pub(super) fn push(&mut self, key: &[u8], stored: &[u8]) -> Result<(), StoreError> {
        self.chunk.u16(key.len() as u16).bytes(key).u32(stored.len() as u32).bytes(stored);
        self.chunk_len += key.len() + stored.len() + 6;
        self.keys += 1;
        if self.chunk_len >= CHUNK_LEN { self.close_chunk() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        if self.chunk_len > 0 {
            self.close_chunk()?;
        }
        let keys = self.keys.to_le_bytes();
        let mut end = Writer::new();
        end.u32(0).u64(xxh3_64_with_seed(&keys, self.seed)).bytes(&keys);
        self.out.write_all(&end.into_bytes()).map_err(failed_write)?;
        self.out.flush().map_err(failed_write)
    }

    fn close_chunk(&mut self) -> Result<(), StoreError> {
        let chunk = std::mem::take(&mut self.chunk).into_bytes();
        self.chunk_len = 0;
        self.seed = xxh3_64_with_seed(&chunk, self.seed);
        let mut header = Writer::new();
        header.u32(chunk.len() as u32).u64(self.seed);
        self.out.write_all(&header.into_bytes()).map_err(failed_write)?;
        self.out.write_all(&chunk).map_err(failed_write)
    }
}

pub(super) struct SnapshotReader<'a> {
    from: &'a mut dyn Read,
    head: Head,
    seed: u64,
    keys: u64,
    chunk: Vec<u8>,
    offset: usize,
    previous: Option<Vec<u8>>,
}

impl<'a> SnapshotReader<'a> {
    pub(super) fn new(from: &'a mut dyn Read) -> Result<Self, StoreError> {
        if read(from, MAGIC.len())? != MAGIC {
            return Err(StoreError::Snapshot("it does not begin like one".to_owned()));
        }
        let head_len = u32::from_le_bytes(read_array(from)?) as usize;
        if head_len > HEAD_LEN_MAX {
            return Err(StoreError::Snapshot(format!("its head claims {head_len} bytes")));
        }
        let head = read(from, head_len)?;
        let seed = u64::from_le_bytes(read_array(from)?);
        check(seed, &head, SEED)?;
        let head = Head::decode(&head).map_err(invalid)?;
        Ok(Self { from, head, seed, keys: 0, chunk: vec![], offset: 0, previous: None })
    }

    pub(super) const fn head(&self) -> Head {
        self.head
    }

    /// The next key with its value as stored; `None` once the end marker was found right.
    pub(super) fn next_entry(&mut self) -> Result<Option<RawEntry>, StoreError> {
        if self.offset == self.chunk.len() && !self.next_chunk()? {
            return Ok(None);
        }
        let (key, stored, len) = read_entry(&self.chunk[self.offset..]).map_err(invalid)?;
        if self.previous.as_ref().is_some_and(|previous| *previous >= key) {
            return Err(StoreError::Snapshot("its keys do not ascend".to_owned()));
        }
        self.offset += len;
        self.keys += 1;
        self.previous = Some(key.clone());
        Ok(Some((key, stored)))
    }

    fn next_chunk(&mut self) -> Result<bool, StoreError> {
        let len = u32::from_le_bytes(read_array(self.from)?) as usize;
        let checksum = u64::from_le_bytes(read_array(self.from)?);
        if len == 0 {
            return self.end(checksum).map(|()| false);
        }
        if len > CHUNK_LEN_MAX {
            return Err(StoreError::Snapshot(format!("a chunk claims {len} bytes")));
        }
        self.chunk = read(self.from, len)?;
        self.offset = 0;
        check(checksum, &self.chunk, self.seed)?;
        self.seed = checksum;
        Ok(true)
    }

    fn end(&mut self, checksum: u64) -> Result<(), StoreError> {
        let keys: [u8; 8] = read_array(self.from)?;
        check(checksum, &keys, self.seed)?;
        let claimed = u64::from_le_bytes(keys);
        if claimed != self.keys || self.head.keys != self.keys {
            let (head, read) = (self.head.keys, self.keys);
            let reason = format!("its head says {head} keys, its end {claimed}, and {read} came");
            return Err(StoreError::Snapshot(reason));
        }
        Ok(())
    }
}

fn read_entry(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>, usize), WireError> {
    let mut reader = Reader::new(bytes);
    let key_len = usize::from(reader.u16("key length")?);
    if key_len > KEY_LEN_MAX {
        return Err(WireError::invalid("key length", format!("{key_len} is over {KEY_LEN_MAX}")));
    }
    let key = reader.bytes("key", key_len)?.to_vec();
    let stored_len = reader.u32("value length")? as usize;
    let stored = reader.bytes("value", stored_len)?.to_vec();
    Value::split(&stored)?;
    Ok((key, stored, 2 + key_len + 4 + stored_len))
}

/// Reads `len` bytes without making room for more than really come.
fn read(from: &mut dyn Read, len: usize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let read = from.take(len as u64).read_to_end(&mut bytes);
    match read.map_err(|error| StoreError::Snapshot(error.to_string()))? {
        read if read == len => Ok(bytes),
        _ => Err(StoreError::Snapshot("it ends early".to_owned())),
    }
}

fn read_array<const N: usize>(from: &mut dyn Read) -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    let read = from.read_exact(&mut bytes);
    read.map_err(|error| StoreError::Snapshot(format!("it ends early: {error}")))?;
    Ok(bytes)
}

fn check(checksum: u64, bytes: &[u8], seed: u64) -> Result<(), StoreError> {
    if xxh3_64_with_seed(bytes, seed) == checksum {
        Ok(())
    } else {
        Err(StoreError::Snapshot("a checksum does not match".to_owned()))
    }
}

fn invalid(error: WireError) -> StoreError {
    StoreError::Snapshot(error.to_string())
}

fn failed_write(error: std::io::Error) -> StoreError {
    StoreError::Snapshot(format!("it cannot be written: {error}"))
}
