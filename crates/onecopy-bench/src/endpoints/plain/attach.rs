//! process_vm_readv(2) and process_vm_writev(2), with two counters in shared memory to say whose turn it is.
//!
//! The plain push writes straight into the buffer of its receiver's caller, which a program may do that knows its peer.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use onecopy::{Deadline, Receiver, Result, Sender};

use super::mapping::{HEAD_BYTES, Head, Mapping};
use super::os;
use crate::options::Wait;

/// Where two sides agree. The words for the address and its owner are Relaxed: the counters order them.
pub(crate) struct Board {
    mapping: Mapping,
    wait: Wait,
    /// How many messages went by.
    done: u64,
}

impl Board {
    pub(crate) fn map(fd: impl AsFd, wait: Wait) -> Result<Self> {
        Ok(Self { mapping: Mapping::map(fd, HEAD_BYTES)?, wait, done: 0 })
    }

    fn head(&self) -> &Head {
        self.mapping.head()
    }

    /// Says where the bytes lie, in this process.
    fn offer(&self, address: *const u8) {
        self.head().owner.store(std::process::id(), Ordering::Relaxed);
        self.head().address.store(address.expose_provenance() as u64, Ordering::Relaxed);
    }

    /// The process that made the offer, and the part of it from `done` on.
    fn offered(&self, done: usize, len: usize) -> (Pid, RemoteIoVec) {
        let pid = Pid::from_raw(self.head().owner.load(Ordering::Relaxed).cast_signed());
        let base = self.head().address.load(Ordering::Relaxed) as usize + done;
        (pid, RemoteIoVec { base, len: len - done })
    }
}

/// Offers its message and waits until it was read.
pub(crate) struct PullSender(pub(crate) Board);

impl Sender for PullSender {
    fn send_by(&mut self, message: &[u8], _deadline: Deadline) -> Result<()> {
        let Self(board) = self;
        board.offer(message.as_ptr());
        board.done += 1;
        board.head().put.raise(board.done);
        board.head().taken.wait_past(board.done - 1, board.wait);
        Ok(())
    }
}

/// Reads what is offered.
pub(crate) struct PullReceiver(pub(crate) Board);

impl Receiver for PullReceiver {
    fn recv_into_by(&mut self, buffer: &mut [u8], _deadline: Deadline) -> Result<Option<usize>> {
        let Self(board) = self;
        board.head().put.wait_past(board.done, board.wait);
        let mut read = 0;
        while read < buffer.len() {
            let (pid, remote) = board.offered(read, buffer.len());
            read += process_vm_readv(pid, &mut [IoSliceMut::new(&mut buffer[read..])], &[remote])
                .map_err(|errno| os("process_vm_readv", "a plain process", errno))?;
        }
        board.done += 1;
        board.head().taken.raise(board.done);
        Ok(Some(read))
    }
}

/// Waits for a place and writes there.
pub(crate) struct PushSender(pub(crate) Board);

impl Sender for PushSender {
    fn send_by(&mut self, message: &[u8], _deadline: Deadline) -> Result<()> {
        let Self(board) = self;
        board.head().taken.wait_past(board.done, board.wait);
        let mut written = 0;
        while written < message.len() {
            let (pid, remote) = board.offered(written, message.len());
            written += process_vm_writev(pid, &[IoSlice::new(&message[written..])], &[remote])
                .map_err(|errno| os("process_vm_writev", "a plain process", errno))?;
        }
        board.done += 1;
        board.head().put.raise(board.done);
        Ok(())
    }
}

/// Offers its caller's buffer and waits until it was written.
pub(crate) struct PushReceiver(pub(crate) Board);

impl Receiver for PushReceiver {
    fn recv_into_by(&mut self, buffer: &mut [u8], _deadline: Deadline) -> Result<Option<usize>> {
        let Self(board) = self;
        board.offer(buffer.as_mut_ptr());
        board.head().taken.raise(board.done + 1);
        board.head().put.wait_past(board.done, board.wait);
        board.done += 1;
        Ok(Some(buffer.len()))
    }
}
