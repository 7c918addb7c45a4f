//! What threads meet on: atomics, locks and condition variables. All code of this crate that two
//! threads may be in at one time takes them from here.
//!
//! They are std's. With `cfg(sansq_loom)`, which no build sets but the tests of interleavings
//! (`.ci/run interleavings`), they are [loom]'s, which runs a test once for each order in which the
//! threads may get at them, and with each value that the memory orderings let a load see.
//!
//! [loom]: https://docs.rs/loom

#[cfg(not(all(test, sansq_loom)))]
pub(crate) use core::sync::atomic;
#[cfg(not(all(test, sansq_loom)))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

#[cfg(all(test, sansq_loom))]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
