//! Waiting at the end of the log, for a task and for a thread.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::cursor::{Cursor, Level, Record};
use crate::error::WalError;

impl Cursor {
    /// Waits until there is something behind the position, up to the watermark of its level. Can
    /// be dropped at any time.
    ///
    /// # Errors
    /// [`WalError::Closed`] once the log is closed and everything up to its watermark was handed
    /// out, and [`WalError::Poisoned`] after a failed sync: nothing more will come.
    pub async fn wait(&mut self) -> Result<(), WalError> {
        match self.level() {
            Level::Flushed => {
                let mut watched = self.log().watch_flushed();
                while *watched.borrow_and_update() <= self.position() {
                    self.log().check_open(&self.log().tail())?;
                    watched.changed().await.map_err(|_| WalError::Closed)?;
                }
            }
            Level::Appended => {
                let mut watched = self.log().watch_appended();
                while watched.borrow_and_update() <= self.position() {
                    self.log().check_open(&self.log().tail())?;
                    watched.changed().await.map_err(|_| WalError::Closed)?;
                }
            }
        }
        Ok(())
    }

    /// The next record, verified; waits for it as [`Cursor::wait`] does.
    ///
    /// # Errors
    /// As [`Cursor::wait`] and [`Cursor::next_record`].
    pub async fn record(&mut self) -> Result<Record, WalError> {
        loop {
            if let Some(record) = self.next_record()? {
                return Ok(record);
            }
            self.wait().await?;
        }
    }

    /// As [`Cursor::wait`], blocking the thread. Not for a thread that runs tasks.
    ///
    /// # Errors
    /// As [`Cursor::wait`].
    pub fn blocking_wait(&mut self) -> Result<(), WalError> {
        block_on(self.wait())
    }

    /// As [`Cursor::record`], blocking the thread. Not for a thread that runs tasks.
    ///
    /// # Errors
    /// As [`Cursor::record`].
    pub fn blocking_record(&mut self) -> Result<Record, WalError> {
        block_on(self.record())
    }
}

/// Wakes a thread that is parked.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static WAKER: Waker = Waker::from(Arc::new(Parked(std::thread::current())));
}

/// Gives the waker that unparks this thread.
pub(crate) fn thread_waker<R>(with: impl FnOnce(&Waker) -> R) -> R {
    WAKER.with(with)
}

/// Runs a future to its end on this thread. The log's futures need no runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    thread_waker(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    })
}
