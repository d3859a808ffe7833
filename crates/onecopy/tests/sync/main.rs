//! Locks and what wakes, between real processes.

#[path = "../support/mod.rs"]
mod support;

mod death;
mod eventfd;
mod file_lock;
mod named_semaphore;
