//! What a program without this library would write: a plain loop over the same system calls, for the workload layer.
//!
//! Sizes are agreed on beforehand, so the buffer of the receiver says how long a message is. All descriptors block.

mod attach;
mod counter;
mod mapping;
mod posix_queue;
mod ring;
mod sysv_queue;

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;

use onecopy::{Deadline, Receiver, Result, Sender};
use rustix::io::{readv, writev};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, recvmsg, send};

pub(super) use attach::{Board, PullReceiver, PullSender, PushReceiver, PushSender};
pub(super) use mapping::Mapping;
pub(super) use posix_queue::PosixQueue;
pub(super) use ring::{RING_MAPPING_BYTES, Ring};
pub(super) use sysv_queue::SysvQueue;

use super::os;

/// The length that a plain stream puts before each message: as many bytes as the header of a frame has.
type Prefix = [u8; 8];

/// writev(2) and readv(2) on a descriptor, until the whole message went: its length, then its bytes. A byte stream has no
/// boundaries, so without the prefix this would be another job; a plain program knows the length beforehand and reads both at
/// once, straight into its buffer.
pub(super) struct Stream<F>(pub(super) F);

impl<F: AsFd> Sender for Stream<F> {
    fn send_by(&mut self, message: &[u8], _deadline: Deadline) -> Result<()> {
        let prefix: Prefix = (message.len() as u64).to_le_bytes();
        let mut slices = [IoSlice::new(&prefix), IoSlice::new(message)];
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let sent = writev(&self.0, rest).map_err(|errno| os("writev", "a plain stream", errno))?;
            IoSlice::advance_slices(&mut rest, sent);
        }
        Ok(())
    }
}

impl<F: AsFd> Receiver for Stream<F> {
    fn recv_into_by(&mut self, buffer: &mut [u8], _deadline: Deadline) -> Result<Option<usize>> {
        let len = buffer.len();
        let mut prefix: Prefix = [0; 8];
        let mut slices = [IoSliceMut::new(&mut prefix), IoSliceMut::new(buffer)];
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match readv(&self.0, rest).map_err(|errno| os("readv", "a plain stream", errno))? {
                0 => return Ok(None),
                received => IoSliceMut::advance_slices(&mut rest, received),
            }
        }
        if prefix != (len as u64).to_le_bytes() {
            let detail = format!("a message of another length than {len} bytes: {prefix:02x?}");
            return Err(onecopy::Error::Corrupt { object: "a plain stream".into(), detail });
        }
        Ok(Some(len))
    }
}

/// send(2) and recvmsg(2) on a socket that keeps boundaries: recv(2) would not say that a message was cut.
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
        let mut control = RecvAncillaryBuffer::new(&mut []);
        let received = recvmsg(&self.0, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::empty())
            .map_err(|errno| os("recvmsg", "a plain socket", errno))?;
        if received.flags.contains(ReturnFlags::TRUNC) {
            let detail = format!("a message of more than {} bytes", buffer.len());
            return Err(onecopy::Error::Corrupt { object: "a plain socket".into(), detail });
        }
        Ok(Some(received.bytes))
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
