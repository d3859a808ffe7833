//! A descriptor of a pipe, a FIFO or a terminal: read and write with deadlines, and never a SIGPIPE.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::PollFlags;
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat, open};
use rustix::io::{Errno, ReadWriteFlags, pwritev2, readv, writev};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};
use rustix::pty::ptsname;
use rustix::termios::isatty;

use crate::io::wait::{retry, wait_for};
use crate::sys::sigpipe::without_sigpipe;
use crate::{Deadline, Error, Result, tally};

/// `RWF_NOSIGNAL` of Linux 6.18: a write without a reader is EPIPE and raises no signal.
const RWF_NOSIGNAL: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x100);
/// The offset with which preadv2 and pwritev2 behave as readv and writev.
const NO_OFFSET: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: OwnedFd,
    object: String,
    /// Whether the open file description has O_NONBLOCK, as far as we know. It is set at the first operation with a
    /// deadline and stays: until then a blocking operation is a single system call. Relaxed suffices, since a stale
    /// value only costs a second fcntl.
    nonblocking: AtomicBool,
    /// Cleared when the kernel refused RWF_NOSIGNAL. Relaxed: a stale value costs one refused call.
    nosignal: AtomicBool,
    /// Whether a write without a reader raises SIGPIPE at all.
    raises_sigpipe: bool,
    /// Whether it was opened anew. Of a FIFO that had no writer then, poll(2) does not tell the end of file until there was one.
    reopened: bool,
}

impl Descriptor {
    /// Takes over a descriptor whose open file description belongs to this process alone.
    pub(crate) fn new(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
        let object = object.into();
        let flags = fcntl_getfl(&fd).map_err(|errno| Error::os("fcntl(F_GETFL)", &object, errno))?;
        let nonblocking = AtomicBool::new(flags.contains(OFlags::NONBLOCK));
        Ok(Self { fd, object, nonblocking, nosignal: AtomicBool::new(true), raises_sigpipe: true, reopened: false })
    }

    /// Takes over a terminal, which knows no SIGPIPE.
    pub(crate) fn terminal(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
        Ok(Self { raises_sigpipe: false, ..Self::new(fd, object)? })
    }

    /// Takes over an inherited descriptor. Other processes may hold the same open file description, whose O_NONBLOCK is
    /// theirs too, so a pipe is opened anew, and a terminal, which a shell reads from afterwards; where that is refused the
    /// description stays shared.
    pub(crate) fn adopt(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
        let object = object.into();
        let stat = fstat(&fd).map_err(|errno| Error::os("fstat", &object, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo && !is_terminal(fd.as_fd()) {
            return Self::new(fd, object);
        }
        let flags = fcntl_getfl(&fd).map_err(|errno| Error::os("fcntl(F_GETFL)", &object, errno))?;
        match reopen(fd.as_fd(), flags & OFlags::RWMODE) {
            Ok(own) => Ok(Self { reopened: true, ..Self::new(own, object)? }),
            Err(_) => Self::new(fd, object),
        }
    }

    pub(crate) fn object(&self) -> &str {
        &self.object
    }

    /// Reads what is there, waiting for the first byte; 0 is the end of file.
    pub(crate) fn read_vectored_by(&self, buffers: &mut [IoSliceMut<'_>], deadline: Deadline) -> Result<usize> {
        self.prepare(deadline)?;
        retry(self.as_fd(), PollFlags::IN, deadline, ("receive", "read", &self.object), || readv(&self.fd, buffers))
            .inspect(|bytes| tally::count_kernel(*bytes))
    }

    /// Writes what there is room for, waiting for room for the first byte.
    pub(crate) fn write_vectored_by(&self, buffers: &[IoSlice<'_>], deadline: Deadline) -> Result<usize> {
        self.prepare(deadline)?;
        retry(self.as_fd(), PollFlags::OUT, deadline, ("send", "write", &self.object), || self.write_once(buffers))
            .inspect(|bytes| tally::count_kernel(*bytes))
    }

    /// Waits until a read would not wait.
    pub(crate) fn wait_readable(&self, deadline: Deadline) -> Result<()> {
        let wait = |deadline| wait_for(self.as_fd(), PollFlags::IN, deadline, "receive", &self.object);
        if self.reopened {
            match wait(Deadline::Now) {
                Err(error) if error.is_out_of_time() => {
                    if self.has_ended() {
                        return Ok(());
                    }
                }
                result => return result,
            }
        }
        wait(deadline)
    }

    /// Whether it is a pipe from which a read would bring the end of file. tee(2) tells, and takes no byte away. Without descriptors for
    /// that poll(2) has the last word.
    fn has_ended(&self) -> bool {
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .is_ok_and(|(_reader, probe)| tee(&self.fd, &probe, 1, SpliceFlags::NONBLOCK) == Ok(0))
    }

    fn write_once(&self, buffers: &[IoSlice<'_>]) -> Result<usize, Errno> {
        if !self.raises_sigpipe {
            return writev(&self.fd, buffers);
        }
        if self.nosignal.load(Ordering::Relaxed) {
            match pwritev2(&self.fd, buffers, NO_OFFSET, RWF_NOSIGNAL) {
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::SPIPE) => {
                    self.nosignal.store(false, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        without_sigpipe(|| writev(&self.fd, buffers))
    }

    fn prepare(&self, deadline: Deadline) -> Result<()> {
        if deadline == Deadline::Never || self.nonblocking.load(Ordering::Relaxed) {
            return Ok(());
        }
        let flags = fcntl_getfl(&self.fd).map_err(|errno| Error::os("fcntl(F_GETFL)", &self.object, errno))?;
        fcntl_setfl(&self.fd, flags | OFlags::NONBLOCK)
            .map_err(|errno| Error::os("fcntl(F_SETFL)", &self.object, errno))?;
        self.nonblocking.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether it is a terminal, but not the master of one: to open that anew makes another terminal.
fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    isatty(fd) && ptsname(fd, Vec::new()).is_err()
}

/// A new open file description of the same pipe or terminal. Opened without blocking, since a pipe whose other end is closed would
/// block like a FIFO (fifo(7)); the flag is cleared again.
fn reopen(fd: BorrowedFd<'_>, access: OFlags) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let own = open(path, access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    fcntl_setfl(&own, OFlags::empty())?;
    Ok(own)
}
