//! The atomics of the words that two sides share: those of the standard library, or of a model that tries every order in which
//! threads can run and every value that a load can see. `just loom` runs the models.

#[cfg(loom)]
mod model;

#[cfg(loom)]
pub(crate) use model::{AtomicU32, AtomicU64, Ordering, fence, sleep_on, spin_loop, wake_all};
#[cfg(not(loom))]
pub(crate) use std::hint::spin_loop;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
