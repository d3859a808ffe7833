//! What a program without this library would write: a plain loop over the same system calls, for the workload layer.
//!
//! Sizes are agreed on beforehand, so there is no header, and the buffer of the receiver says how long a message is. All
//! descriptors block.

mod attach;
mod counter;
mod mapping;
mod posix_queue;
mod ring;
mod sysv_queue;

use std::os::fd::AsFd;

use onecopy::{Deadline, Receiver, Result, Sender};
use rustix::io::{read, write};
use rustix::net::{RecvFlags, SendFlags, recv, send};

pub(super) use attach::{Board, PullReceiver, PullSender, PushReceiver, PushSender};
pub(super) use mapping::Mapping;
pub(super) use posix_queue::PosixQueue;
pub(super) use ring::{RING_MAPPING_BYTES, Ring};
pub(super) use sysv_queue::SysvQueue;

use super::os;

/// write(2) and read(2) on a descriptor, until the whole message went.
pub(super) struct Stream<F>(pub(super) F);

impl<F: AsFd> Sender for Stream<F> {
    fn send_by(&mut self, message: &[u8], _deadline: Deadline) -> Result<()> {
        let mut sent = 0;
        while sent < message.len() {
            sent += write(&self.0, &message[sent..]).map_err(|errno| os("write", "a plain stream", errno))?;
        }
        Ok(())
    }
}

impl<F: AsFd> Receiver for Stream<F> {
    fn recv_into_by(&mut self, buffer: &mut [u8], _deadline: Deadline) -> Result<Option<usize>> {
        let mut received = 0;
        while received < buffer.len() {
            match read(&self.0, &mut buffer[received..]).map_err(|errno| os("read", "a plain stream", errno))? {
                0 => return Ok(None),
                count => received += count,
            }
        }
        Ok(Some(received))
    }
}

/// send(2) and recv(2) on a socket that keeps boundaries.
pub(super) struct Datagrams<F>(pub(super) F);

impl<F: AsFd> Sender for Datagrams<F> {
    fn send_by(&mut self, message: &[u8], _deadline: Deadline) -> Result<()> {
        send(&self.0, message, SendFlags::NOSIGNAL).map(drop).map_err(|errno| os("send", "a plain socket", errno))
    }
}

impl<F: AsFd> Receiver for Datagrams<F> {
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        if deadline != Deadline::Never {
            wait_readable(&self.0, deadline)?;
        }
        let received = recv(&self.0, &mut *buffer, RecvFlags::empty());
        received.map(|(_, len)| Some(len)).map_err(|errno| os("recv", "a plain socket", errno))
    }
}

/// Only the receivers of what can be lost wait with a deadline.
fn wait_readable(fd: impl AsFd, deadline: Deadline) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let left = deadline.remaining().unwrap_or_default();
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
        Ok(0) => Err(onecopy::Error::TimedOut { operation: "receive", object: "a plain socket".into() }),
        Ok(_) => Ok(()),
        Err(errno) => Err(os("poll", "a plain socket", errno)),
    }
}
