//! A socket: send and receive with deadlines, without touching O_NONBLOCK, and never a SIGPIPE.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, RecvMsg, SendAncillaryBuffer, SendFlags, Shutdown, recv, recvmsg, send, sendmsg,
    sendto,
};

use crate::io::wait::retry;
use crate::sys::at_fork::{self, Kept};
use crate::sys::recvmsg::Received;
use crate::{Deadline, Error, Result, sys, tally};

/// How many connections may wait to be accepted; the kernel lowers it to `/proc/sys/net/core/somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

#[derive(Debug)]
pub(crate) struct Socket {
    // Before the descriptor, which it names.
    kept: Option<Kept>,
    fd: OwnedFd,
    object: String,
}

impl Socket {
    pub(crate) fn new(fd: OwnedFd, object: impl Into<String>) -> Self {
        Self { kept: None, fd, object: object.into() }
    }

    /// Takes over a listening socket and makes it non-blocking, as [`Socket::accept_by`] needs: another process or thread
    /// may take the connection that poll(2) reported, and accept(2) knows no MSG_DONTWAIT.
    pub(crate) fn listener(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
        let object = object.into();
        set_nonblocking(&fd, true, &object)?;
        Ok(Self { kept: None, fd, object })
    }

    pub(crate) fn object(&self) -> &str {
        &self.object
    }

    /// Names it otherwise in errors.
    pub(crate) fn set_object(&mut self, object: String) {
        self.object = object;
    }

    /// Has children made by fork give their copies up: the other side sees a hang-up when this process lets it go.
    pub(crate) fn keep_from_children(&mut self) {
        self.kept = Some(at_fork::keep(self.fd.as_fd()));
    }

    /// Another descriptor of the same socket.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|error| Error::os("fcntl(F_DUPFD_CLOEXEC)", &self.object, error))?;
        Ok(Self { kept: None, fd, object: self.object.clone() })
    }

    /// Ends the direction towards the other side.
    pub(crate) fn shutdown_write(&self) -> Result<()> {
        rustix::net::shutdown(&self.fd, Shutdown::Write).map_err(|errno| self.error("shutdown", errno))
    }

    /// Reads from a stream; 0 is the end of file.
    pub(crate) fn read_stream_by(&self, buffers: &mut [IoSliceMut<'_>], deadline: Deadline) -> Result<usize> {
        let [buffer] = buffers else {
            let mut control = RecvAncillaryBuffer::new(&mut []);
            return Ok(self.recv_by(buffers, &mut control, RecvFlags::empty(), deadline)?.bytes);
        };
        self.recv_one_by(buffer, deadline)
    }

    /// Writes to a stream what there is room for.
    pub(crate) fn write_stream_by(&self, buffers: &[IoSlice<'_>], deadline: Deadline) -> Result<usize> {
        let [buffer] = buffers else {
            return self.send_by(buffers, &mut SendAncillaryBuffer::new(&mut []), deadline);
        };
        self.send_one_by(buffer, deadline)
    }

    /// The kernel delivers what a socket has taken, also after a close.
    pub(crate) fn finish_stream_by(&self, _deadline: Deadline) -> Result<()> {
        Ok(())
    }

    /// sendmsg(2), waiting for room until `deadline`.
    pub(crate) fn send_by(
        &self,
        buffers: &[IoSlice<'_>],
        control: &mut SendAncillaryBuffer<'_, '_, '_>,
        deadline: Deadline,
    ) -> Result<usize> {
        let flags = send_flags(deadline);
        retry(self.as_fd(), PollFlags::OUT, deadline, ("send", "sendmsg", &self.object), || {
            sendmsg(&self.fd, buffers, control, flags)
        })
        .inspect(|bytes| tally::count_kernel(*bytes))
    }

    /// send(2): one message, or what a stream has room for; the kernel does less for it than for sendmsg(2).
    pub(crate) fn send_one_by(&self, message: &[u8], deadline: Deadline) -> Result<usize> {
        let flags = send_flags(deadline);
        retry(self.as_fd(), PollFlags::OUT, deadline, ("send", "send", &self.object), || send(&self.fd, message, flags))
            .inspect(|bytes| tally::count_kernel(*bytes))
    }

    /// recv(2): one message into a buffer that is long enough for any, or what a stream has; the kernel does less for it than
    /// for recvmsg(2).
    pub(crate) fn recv_one_by(&self, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
        let flags = recv_flags(deadline);
        retry(self.as_fd(), PollFlags::IN, deadline, ("receive", "recv", &self.object), || {
            recv(&self.fd, &mut *buffer, flags).map(|(stored, _)| stored)
        })
        .inspect(|bytes| tally::count_kernel(*bytes))
    }

    /// sendto(2): one message to `to`, whose address for errors is `object`.
    ///
    /// Only for sockets whose room does not depend on the receiver: poll(2) knows nothing of `to`.
    pub(crate) fn send_to_by(
        &self,
        message: &[u8],
        to: &impl SocketAddrArg,
        object: &str,
        deadline: Deadline,
    ) -> Result<usize> {
        let flags = send_flags(deadline);
        retry(self.as_fd(), PollFlags::OUT, deadline, ("send", "sendto", object), || {
            sendto(&self.fd, message, flags, to)
        })
        .inspect(|bytes| tally::count_kernel(*bytes))
    }

    /// recvmsg(2), waiting for data until `deadline`.
    pub(crate) fn recv_by(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &mut RecvAncillaryBuffer<'_>,
        flags: RecvFlags,
        deadline: Deadline,
    ) -> Result<RecvMsg> {
        let flags = flags | recv_flags(deadline) | RecvFlags::CMSG_CLOEXEC;
        retry(self.as_fd(), PollFlags::IN, deadline, ("receive", "recvmsg", &self.object), || {
            recvmsg(&self.fd, buffers, control, flags)
        })
        .inspect(|received| tally::count_kernel(received.bytes))
    }

    /// recvmsg(2) on a UNIX socket, waiting for data until `deadline`: with credentials and descriptors, as far as `control`
    /// has room for them. Returns how many bytes were stored, or, with MSG_TRUNC among `flags`, how many there were.
    pub(crate) fn recv_control_by(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &mut [u64],
        with_name: bool,
        flags: i32,
        received: &mut Received,
        deadline: Deadline,
    ) -> Result<usize> {
        let flags = flags | recv_flags(deadline).bits().cast_signed();
        retry(self.as_fd(), PollFlags::IN, deadline, ("receive", "recvmsg", &self.object), || {
            sys::recvmsg::recvmsg(self.as_fd(), buffers, control, with_name, flags, received)
        })
        // With MSG_TRUNC more bytes may be told than were stored.
        .inspect(|bytes| tally::count_kernel((*bytes).min(buffers.iter().map(|buffer| buffer.len()).sum())))
    }

    /// accept(2), waiting for a connection until `deadline`.
    pub(crate) fn accept_by(&self, deadline: Deadline) -> Result<OwnedFd> {
        crate::io::wait::wait_for(self.as_fd(), PollFlags::IN, deadline, "accept", &self.object)?;
        retry(self.as_fd(), PollFlags::IN, deadline, ("accept", "accept4", &self.object), || {
            match rustix::net::accept_with(&self.fd, rustix::net::SocketFlags::CLOEXEC) {
                // The connection was reset while it waited: the next one may be there (accept(2)).
                Err(Errno::CONNABORTED) => Err(Errno::INTR),
                other => other,
            }
        })
    }

    /// An error of a call on this socket.
    pub(crate) fn error(&self, call: &'static str, errno: Errno) -> Error {
        Error::os(call, &self.object, errno)
    }
}

/// Sets or clears O_NONBLOCK of the open file description.
pub(crate) fn set_nonblocking(fd: &OwnedFd, value: bool, object: &str) -> Result<()> {
    rustix::io::ioctl_fionbio(fd, value).map_err(|errno| Error::os("ioctl(FIONBIO)", object, errno))
}

pub(crate) fn send_flags(deadline: Deadline) -> SendFlags {
    SendFlags::NOSIGNAL | if deadline == Deadline::Never { SendFlags::empty() } else { SendFlags::DONTWAIT }
}

fn recv_flags(deadline: Deadline) -> RecvFlags {
    if deadline == Deadline::Never { RecvFlags::empty() } else { RecvFlags::DONTWAIT }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
