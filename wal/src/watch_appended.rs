//! Watching the log grow, at no cost to those who append while nobody waits.

use std::sync::{Arc, Weak};

use tokio::sync::watch;
use towline_protocol::lsn::Lsn;

use crate::reserve::Reservations;
use crate::segment::Segment;

/// [`Log::appended`](crate::Log::appended) as it grows.
#[derive(Clone, Debug)]
pub struct AppendedWatch {
    reservations: Weak<Reservations<Arc<Segment>>>,
    /// Changes when whoever waits is to look.
    told: watch::Receiver<Lsn>,
    seen: Lsn,
}

/// The log that was watched is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the log is closed, and nothing more comes: open it again to go on watching")]
pub struct WatchEnded;

impl AppendedWatch {
    pub(crate) fn new(reservations: &Arc<Reservations<Arc<Segment>>>) -> Self {
        let seen = reservations.prefix().end;
        Self { reservations: Arc::downgrade(reservations), told: reservations.subscribe(), seen }
    }

    /// Everything below is in the log; what is so now is seen.
    pub fn borrow_and_update(&mut self) -> Lsn {
        self.told.borrow_and_update();
        if let Some(reservations) = self.reservations.upgrade() {
            self.seen = reservations.prefix().end;
        }
        self.seen
    }

    /// Waits until there is more than was seen, or the log is closed or poisoned. Can be dropped
    /// at any time.
    ///
    /// # Errors
    /// [`WatchEnded`] once the log is gone.
    pub async fn changed(&mut self) -> Result<(), WatchEnded> {
        // In this order: whatever is appended from here on is told, or is there already.
        let already_told = self.told.has_changed().map_err(|_| WatchEnded)?;
        let end = self.reservations.upgrade().ok_or(WatchEnded)?.want_growth();
        if end > self.seen || already_told {
            self.seen = end;
            self.told.borrow_and_update();
            return Ok(());
        }
        self.told.changed().await.map_err(|_| WatchEnded)?;
        self.borrow_and_update();
        Ok(())
    }
}
