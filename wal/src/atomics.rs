//! The standard library's atomics and locks, or those of the model checker that runs every order
//! of their steps.

#[cfg(towline_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(towline_loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(towline_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(towline_loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

/// A cell that whoever looks into it vouches for.
#[cfg(towline_loom)]
#[derive(Debug)]
pub(crate) struct Cell<T>(loom::cell::UnsafeCell<T>);

/// A cell that whoever looks into it vouches for.
#[cfg(not(towline_loom))]
#[derive(Debug)]
pub(crate) struct Cell<T>(std::cell::UnsafeCell<T>);

impl<T> Cell<T> {
    #[cfg(towline_loom)]
    pub(crate) fn new(value: T) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    #[cfg(not(towline_loom))]
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Looks at the value. The model checker notices if somebody changes it meanwhile.
    #[cfg(towline_loom)]
    pub(crate) fn get(&self) -> *const T {
        self.0.with(|value| value)
    }

    /// Where the value is.
    #[cfg(not(towline_loom))]
    pub(crate) const fn get(&self) -> *const T {
        self.0.get()
    }

    /// Where the value is, to change it. The model checker notices if somebody looks meanwhile.
    #[cfg(towline_loom)]
    pub(crate) fn get_mut(&self) -> *mut T {
        self.0.with_mut(|value| value)
    }

    /// Where the value is, to change it.
    #[cfg(not(towline_loom))]
    pub(crate) const fn get_mut(&self) -> *mut T {
        self.0.get()
    }
}
