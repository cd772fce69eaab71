//! What readers see: one tree as of one record.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use lsm_tree::SeqNo;
use towline_protocol::lsn::Lsn;

use super::generation::{Entries, Generation};
use super::head::Head;
use super::{StoreError, lock};
use crate::value::Value;

/// A head, and the sequence number that sees exactly the state it describes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    pub(super) at: SeqNo,
    pub(super) head: Head,
}

pub(super) struct State {
    /// Held shared for the length of a read: see [`State::watermark`].
    generation: RwLock<Arc<Generation>>,
    published: Mutex<Published>,
}

impl State {
    pub(super) fn new(generation: Generation, head: Head) -> Self {
        let published = Published { at: generation.newest(), head };
        Self { generation: RwLock::new(Arc::new(generation)), published: Mutex::new(published) }
    }

    pub(super) fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.generation.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn published(&self) -> Published {
        *lock(&self.published)
    }

    pub(super) fn publish(&self, published: Published) {
        *lock(&self.published) = published;
    }

    pub(super) fn view(&self) -> View<'_> {
        let generation = self.generation.read().unwrap_or_else(PoisonError::into_inner);
        let published = self.published();
        View { generation, published }
    }

    /// Puts another tree in place of this one, once no read is under way.
    pub(super) fn replace(&self, generation: Generation, head: Head) -> Arc<Generation> {
        let mut current = self.generation.write().unwrap_or_else(PoisonError::into_inner);
        self.publish(Published { at: generation.newest(), head });
        std::mem::replace(&mut current, Arc::new(generation))
    }

    /// A sequence number below which no read looks from now on: what is only visible below it may
    /// go. Waits for the reads under way, because each of them may have taken an older one.
    pub(super) fn watermark(&self) -> (Arc<Generation>, SeqNo) {
        let generation = self.generation.write().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&generation), self.published().at)
    }
}

/// The whole state as of one record. Short-lived: while one is held, the background work waits,
/// and the thread that holds it must not ask the store for anything else.
pub struct View<'a> {
    generation: RwLockReadGuard<'a, Arc<Generation>>,
    published: Published,
}

impl View<'_> {
    /// The end of the newest record in this state.
    #[must_use]
    pub fn applied(&self) -> Lsn {
        self.published.head.applied
    }

    /// How many keys there are, expired ones that were not deleted yet included.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.published.head.keys
    }

    /// The highest effect time of any record in this state, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn effect_time_ms(&self) -> u64 {
        self.published.head.effect_time_ms
    }

    /// What `key` holds, expired or not.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails or is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        self.generation.get(key, self.published.at)
    }

    pub(super) fn entries(&self) -> Entries {
        self.generation.entries(self.published.at)
    }

    pub(super) fn head(&self) -> Head {
        self.published.head
    }
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("published", &self.published).finish_non_exhaustive()
    }
}
