//! The byte streams, between real processes.

#[path = "../support/mod.rs"]
mod support;

mod exchange;
mod fifo;
mod frame_fuzz;
mod frames;
mod interrupt;
mod pipe;
mod pipe_messages;
mod pty;
mod tcp;
mod unix;
