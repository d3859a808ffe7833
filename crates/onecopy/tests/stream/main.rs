//! The byte streams, between real processes.

#[path = "../support/mod.rs"]
mod support;

mod exchange;
mod fifo;
mod interrupt;
mod pipe;
mod pty;
mod tcp;
mod unix;
