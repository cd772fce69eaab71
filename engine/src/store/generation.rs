//! One LSM tree with its own sequence counter. A restore replaces it by the next one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lsm_tree::{AbstractTree, AnyTree, Cache, Config, Guard, SeqNo, SequenceNumberCounter};

use super::head::Head;
use super::snapshot::RawEntry;
use super::{StoreError, StoreOptions};
use crate::effects::Decoded;
use crate::value::Value;

/// User keys lie behind this byte; `!` sorts before it, so the head is a tree's first entry.
const USER: u8 = b'k';
const HEAD_KEY: &[u8] = b"!head";

pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) tree: AnyTree,
    seqno: SequenceNumberCounter,
    path: PathBuf,
}

impl Generation {
    /// Opens the tree in `path`, or makes an empty one there.
    pub(super) fn open(
        number: u64,
        path: PathBuf,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let seqno = SequenceNumberCounter::new(1);
        let config = Config::new(&path, seqno.clone(), SequenceNumberCounter::new(1))
            .use_cache(Arc::new(Cache::with_capacity_bytes(options.cache_bytes)));
        // The tree asserts where a damaged folder deserves an error.
        let tree = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| StoreError::Damaged {
                path: path.clone(),
                reason: "the tree cannot be opened".to_owned(),
            })?
            .map_err(StoreError::tree(&path))?;
        seqno.fetch_max(tree.get_highest_seqno().map_or(1, |highest| highest + 1));
        Ok(Self { number, tree, seqno, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The sequence number that sees everything written so far. Only for a writer between records.
    pub(super) fn newest(&self) -> SeqNo {
        self.seqno.get()
    }

    /// Writes one record under one sequence number, and the head with it. Returns the sequence
    /// number that sees it, and the size of the memtable.
    pub(super) fn write(&self, effects: &Decoded<'_>, head: &Head) -> (SeqNo, u64) {
        let seqno = self.seqno.next();
        for effect in effects.effects() {
            let key = user_key(effect.key);
            match effect.put {
                Some((value, expires_at_ms)) => {
                    let stored = Value::encode(value, expires_at_ms);
                    self.tree.insert(key, stored, seqno);
                }
                None => {
                    self.tree.remove(key, seqno);
                }
            }
        }
        let (_, memtable_bytes) = self.tree.insert(HEAD_KEY, head.encode(), seqno);
        (seqno + 1, memtable_bytes)
    }

    pub(super) fn get(&self, key: &[u8], at: SeqNo) -> Result<Option<Value>, StoreError> {
        let stored = self.tree.get(user_key(key), at).map_err(StoreError::tree(&self.path))?;
        stored.map(|stored| self.decode(&stored)).transpose()
    }

    pub(super) fn head(&self, at: SeqNo) -> Result<Option<Head>, StoreError> {
        let stored = self.tree.get(HEAD_KEY, at).map_err(StoreError::tree(&self.path))?;
        let head = stored.map(|stored| Head::decode(&stored)).transpose();
        head.map_err(|error| self.damaged(error))
    }

    /// All user keys and values as of `at`, in key order, values as stored. What it sees does not
    /// change however long it takes.
    pub(super) fn entries(&self, at: SeqNo) -> Entries {
        Entries { inner: self.tree.prefix([USER], at, None), path: self.path.clone() }
    }

    /// Fills an empty tree, head first, then user entries in key order. On disk on return.
    pub(super) fn fill(
        &self,
        head: &Head,
        mut next: impl FnMut() -> Result<Option<RawEntry>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut ingestion = self.tree.ingestion().map_err(StoreError::tree(&self.path))?;
        ingestion.write(HEAD_KEY, head.encode()).map_err(StoreError::tree(&self.path))?;
        while let Some((key, stored)) = next()? {
            ingestion.write(user_key(&key), stored).map_err(StoreError::tree(&self.path))?;
        }
        ingestion.finish().map_err(StoreError::tree(&self.path))
    }

    fn decode(&self, stored: &[u8]) -> Result<Value, StoreError> {
        Value::decode(stored).map_err(|error| self.damaged(error))
    }

    fn damaged(&self, reason: impl ToString) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), reason: reason.to_string() }
    }
}

fn user_key(key: &[u8]) -> Vec<u8> {
    let mut prefixed = Vec::with_capacity(1 + key.len());
    prefixed.push(USER);
    prefixed.extend_from_slice(key);
    prefixed
}

/// User entries in key order.
pub(super) struct Entries {
    inner: Box<dyn DoubleEndedIterator<Item = lsm_tree::IterGuardImpl> + Send + 'static>,
    path: PathBuf,
}

impl Iterator for Entries {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.inner.next()?.into_inner().map_err(StoreError::tree(&self.path));
        Some(entry.map(|(key, stored)| {
            (Bytes::copy_from_slice(&key[1..]), Bytes::copy_from_slice(&stored))
        }))
    }
}
