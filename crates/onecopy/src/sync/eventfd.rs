//! Row 21, the eventfd: [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html).
//!
//! A counter of 64 bits behind a descriptor, which a child inherits or a UNIX socket passes. To add makes it readable; to take
//! waits until it is not zero.
//!
//! | | [`Taking::All`] | [`Taking::One`] (EFD_SEMAPHORE) |
//! |---|---|---|
//! | one take brings | all that was added, and leaves 0 | 1, and leaves the rest |
//! | for | one who waits, and learns how often it was woken | many who wait, each woken once |
//!
//! **Full** is 2^64 - 2: who would add beyond that waits. **When its holders die** nothing is left: it goes with the last descriptor,
//! and what was added is never given back when the one who added it, or took it, has died.
//!
//! **Whoever holds a descriptor** may add and take what they like, and may set and clear O_NONBLOCK, which belongs to all. So nothing
//! here relies on O_NONBLOCK, nor changes it for the others: a take never waits longer than it was told; an [`EventFd::add_by`] can be
//! made to wait by a holder who fills the counter between two system calls of ours.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::{Errno, ReadWriteFlags, preadv2, read, write};

use super::{Notify, Wait};
use crate::io::wait::wait_for;
use crate::{Deadline, Error, Result};

/// The largest value that the counter can have.
pub const MAX_VALUE: u64 = u64::MAX - 1;
/// readv(2) without a position, as preadv2(2) writes it.
const NO_OFFSET: u64 = u64::MAX;
const OBJECT: &str = "an eventfd";

/// What one take brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Taking {
    /// Everything that was added.
    #[default]
    All,
    /// One, as a semaphore gives it.
    One,
}

/// A counter behind a descriptor.
///
/// ```
/// use onecopy::Deadline;
/// use onecopy::sync::eventfd::{EventFd, Taking};
///
/// let mut counter = EventFd::new(0, Taking::All)?;
/// counter.add_by(2, Deadline::Now)?;
/// counter.add_by(3, Deadline::Now)?;
/// assert_eq!(counter.take_by(Deadline::Never)?, 5);
/// assert!(counter.take_by(Deadline::Now).unwrap_err().is_out_of_time());
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct EventFd {
    fd: OwnedFd,
    object: String,
    /// What a take of [`Wait`] brought beyond the one that it was for.
    left: u64,
}

impl EventFd {
    /// A new counter. Its descriptor is closed on exec.
    ///
    /// # Errors
    ///
    /// EMFILE and ENFILE.
    pub fn new(value: u32, taking: Taking) -> Result<Self> {
        let flags = match taking {
            Taking::All => EventfdFlags::CLOEXEC,
            Taking::One => EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE,
        };
        let fd = eventfd(value, flags).map_err(|errno| Error::os("eventfd", OBJECT, errno))?;
        Ok(Self { fd, object: OBJECT.into(), left: 0 })
    }

    /// Takes over a descriptor that was inherited or passed. `object` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is something else than an eventfd, with what it is.
    pub fn from_fd(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
        let object = object.into();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .map_err(|error| Error::os("readlink", &object, error))?;
        if link.as_os_str() != "anon_inode:[eventfd]" {
            return Err(Error::Invalid { object, reason: format!("it is no eventfd but {}", link.display()) });
        }
        Ok(Self { fd, object, left: 0 })
    }

    /// Adds `count` to the counter, waiting until `deadline` while that would go beyond [`MAX_VALUE`]. To add 0 does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for 2^64 - 1, which the kernel refuses with EINVAL; [`Error::WouldBlock`] and [`Error::TimedOut`], with
    /// nothing added, when it stayed full.
    pub fn add_by(&self, count: u64, deadline: Deadline) -> Result<()> {
        if count > MAX_VALUE {
            let reason = format!("{count} cannot be added at once: at most {MAX_VALUE} can");
            return Err(Error::Invalid { object: self.object.clone(), reason });
        }
        if count == 0 {
            return Ok(());
        }
        loop {
            if deadline != Deadline::Never {
                self.wait_for_room(count, deadline)?;
            }
            match write(&self.fd, &count.to_ne_bytes()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                // A holder has set O_NONBLOCK.
                Err(Errno::AGAIN) => self.wait_for_room(count, deadline)?,
                Err(errno) => return Err(Error::os("write", &self.object, errno)),
            }
        }
    }

    /// POLLOUT tells that one more fits; whether `count` more fit is in fdinfo only, so for that it is asked again and again.
    fn wait_for_room(&self, count: u64, deadline: Deadline) -> Result<()> {
        let mut backoff = crate::io::wait::Backoff::new();
        loop {
            wait_for(self.as_fd(), PollFlags::OUT, deadline, "add", &self.object)?;
            if count == 1 || self.value()? <= MAX_VALUE - count {
                return Ok(());
            }
            backoff.pause(deadline, "add", &self.object)?;
        }
    }

    /// Takes what [`Taking`] says, waiting until `deadline` while the counter is 0.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`], with nothing taken.
    pub fn take_by(&mut self, deadline: Deadline) -> Result<u64> {
        if self.left > 0 {
            return Ok(std::mem::take(&mut self.left));
        }
        loop {
            match self.take_at_once() {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait_for(self.as_fd(), PollFlags::IN, deadline, "take", &self.object)?,
                Err(errno) => return Err(Error::os("read", &self.object, errno)),
            }
        }
    }

    fn take_at_once(&self) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        let taken = preadv2(&self.fd, &mut [IoSliceMut::new(&mut bytes)], NO_OFFSET, ReadWriteFlags::NOWAIT);
        match taken {
            // Before Linux 5.8 a read of it knows no RWF_NOWAIT. Then somebody else may take between the look and the read.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::SPIPE) => {
                if wait_for(self.as_fd(), PollFlags::IN, Deadline::Now, "take", &self.object).is_err() {
                    return Err(Errno::AGAIN);
                }
                read(&self.fd, &mut bytes)?
            }
            other => other?,
        };
        Ok(u64::from_ne_bytes(bytes))
    }

    /// The value of the counter (proc_pid_fdinfo(5)). Others may change it meanwhile.
    ///
    /// # Errors
    ///
    /// What reading /proc/self/fdinfo says.
    pub fn value(&self) -> Result<u64> {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let text = std::fs::read_to_string(&path).map_err(|error| Error::os("read of fdinfo", &self.object, error))?;
        let count = text.lines().find_map(|line| line.strip_prefix("eventfd-count:"));
        count.and_then(|count| u64::from_str_radix(count.trim(), 16).ok()).ok_or_else(|| Error::Corrupt {
            object: self.object.clone(),
            detail: format!("{path} has no line eventfd-count"),
        })
    }
}

impl AsFd for EventFd {
    /// Readable while the counter is not 0, writable while it is below [`MAX_VALUE`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Notify for EventFd {
    fn notify_by(&mut self, count: u32, deadline: Deadline) -> Result<()> {
        self.add_by(count.into(), deadline)
    }

    fn object(&self) -> &str {
        &self.object
    }
}

impl Wait for EventFd {
    /// Takes one. Where a take brings more, this value keeps the others for its next waits: with [`Taking::All`] one process
    /// waits.
    fn wait_by(&mut self, deadline: Deadline) -> Result<()> {
        self.left = self.take_by(deadline)? - 1;
        Ok(())
    }

    fn object(&self) -> &str {
        &self.object
    }
}
