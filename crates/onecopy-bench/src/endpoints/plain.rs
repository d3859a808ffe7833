//! What a program without this library would write: a plain loop over the same system calls, for the workload layer.
//!
//! Sizes are agreed on beforehand, so there is no header, and the buffer of the receiver says how long a message is.

use std::os::fd::AsFd;

use onecopy::{Deadline, Receiver, Result, Sender};
use rustix::io::{read, write};

use super::os;

/// write(2) and read(2) on a descriptor, until the whole message went.
pub(super) struct Stream<F>(pub(super) F);

impl<F: AsFd> Sender for Stream<F> {
    fn send_by(&mut self, message: &[u8], _deadline: Deadline) -> Result<()> {
        let mut sent = 0;
        while sent < message.len() {
            sent += write(&self.0, &message[sent..]).map_err(|errno| os("write", "a plain descriptor", errno))?;
        }
        Ok(())
    }
}

impl<F: AsFd> Receiver for Stream<F> {
    fn recv_into_by(&mut self, buffer: &mut [u8], _deadline: Deadline) -> Result<Option<usize>> {
        let mut received = 0;
        while received < buffer.len() {
            match read(&self.0, &mut buffer[received..]).map_err(|errno| os("read", "a plain descriptor", errno))? {
                0 => return Ok(None),
                count => received += count,
            }
        }
        Ok(Some(received))
    }
}
