//! Shared memory and cross-memory attach, between real processes.

#[path = "../support/mod.rs"]
mod support;
