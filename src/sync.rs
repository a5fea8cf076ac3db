//! Locks whose holder may have panicked, and the types that loom checks.
//!
//! `tests/loom.rs` compiles `fanout/latch.rs` and `fanout/pull/signals.rs` beside a module of the same name and contents
//! made of loom's types. So these two files take every type that threads share from here.
//!
//! A panic while a lock is held is a bug and is reported where it happens; it must not stop every other thread that
//! needs the lock, so these functions take a poisoned lock as it is.

use std::sync::PoisonError;
#[cfg(feature = "server")]
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(feature = "server")]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Locks a mutex.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for reading.
#[cfg(feature = "server")]
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing.
#[cfg(feature = "server")]
pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
