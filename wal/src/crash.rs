//! Places where a test may let the process "crash": from there on nothing more is done.

use crate::error::WalError;

#[cfg(test)]
thread_local! {
    static LEFT: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

/// Lets this thread pass `points` more places; the next one is a crash.
#[cfg(test)]
pub(crate) fn after(points: usize) {
    LEFT.set(points);
}

/// A place between two calls that change the folder.
#[cfg(test)]
pub(crate) fn point() -> Result<(), WalError> {
    let left = LEFT.get();
    LEFT.set(left.saturating_sub(1));
    if left == 0 { Err(WalError::Closed) } else { Ok(()) }
}

/// A place between two calls that change the folder.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
pub(crate) const fn point() -> Result<(), WalError> {
    Ok(())
}
