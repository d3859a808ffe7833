//! The byte streams, between real processes.

#[path = "../support/mod.rs"]
mod support;

mod exchange;
mod pipe;
mod unix;
