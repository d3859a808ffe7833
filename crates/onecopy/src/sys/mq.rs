//! POSIX message queues: what nix leaves out, on descriptors that close themselves.
//!
//! # Safety
//!
//! On Linux a queue descriptor is a file descriptor (mq_overview(7)), so every function borrows one and may be called by
//! anyone. Names are C strings, buffers are slices, both of which live beyond the call; the kernel keeps no pointer.
#![expect(unsafe_code, reason = "nix has neither mq_timedsend nor mq_notify, and its descriptor does not close itself")]

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::last_errno;

/// The most messages and the longest one, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) max_messages: usize,
    pub(crate) message_bytes: usize,
    pub(crate) queued: usize,
}

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all, whatever the O_NONBLOCK of the description says: the call has a timeout that passed in 1970, which the
    /// kernel looks at only when it would have to wait.
    No,
    /// Until the queue is ready.
    Forever,
}

impl Wait {
    fn timeout(self) -> Option<libc::timespec> {
        (self == Self::No).then_some(libc::timespec { tv_sec: 0, tv_nsec: 0 })
    }
}

/// A timeout in the past is this library's "do not wait", so its ETIMEDOUT is an EAGAIN.
fn waited(errno: Errno) -> Errno {
    if errno == Errno::TIMEDOUT { Errno::AGAIN } else { errno }
}

/// mq_open(3) of a queue that exists.
pub(crate) fn open(name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = (flags | OFlags::CLOEXEC).bits().cast_signed();
    // SAFETY: the name ends with a NUL; without O_CREAT there are no further arguments.
    owned(unsafe { libc::mq_open(name.as_ptr(), flags) })
}

/// mq_open(3) of a queue that must not exist yet.
pub(crate) fn create(name: &CStr, flags: OFlags, mode: Mode, attributes: Attributes) -> Result<OwnedFd, Errno> {
    let flags = (flags | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL).bits().cast_signed();
    // SAFETY: mq_attr is made of integers (and padding of such), for which zero is a value.
    let mut wanted: libc::mq_attr = unsafe { MaybeUninit::zeroed().assume_init() };
    wanted.mq_maxmsg = i64::try_from(attributes.max_messages).unwrap_or(i64::MAX);
    wanted.mq_msgsize = i64::try_from(attributes.message_bytes).unwrap_or(i64::MAX);
    // SAFETY: the name ends with a NUL; with O_CREAT a mode and a pointer to attributes follow, which outlive the call.
    owned(unsafe { libc::mq_open(name.as_ptr(), flags, mode.bits(), &raw const wanted) })
}

fn owned(fd: libc::mqd_t) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: mq_open just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// mq_unlink(3).
pub(crate) fn unlink(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the name ends with a NUL.
    if unsafe { libc::mq_unlink(name.as_ptr()) } < 0 { Err(last_errno()) } else { Ok(()) }
}

/// mq_getattr(3).
pub(crate) fn attributes(fd: BorrowedFd<'_>) -> Result<Attributes, Errno> {
    let mut found = MaybeUninit::<libc::mq_attr>::uninit();
    // SAFETY: `found` is writable and of the type that the call fills in.
    if unsafe { libc::mq_getattr(fd.as_raw_fd(), found.as_mut_ptr()) } < 0 {
        return Err(last_errno());
    }
    // SAFETY: the call succeeded, so it filled `found` in.
    let found = unsafe { found.assume_init() };
    let count = |value: libc::c_long| usize::try_from(value).unwrap_or(0);
    Ok(Attributes {
        max_messages: count(found.mq_maxmsg),
        message_bytes: count(found.mq_msgsize),
        queued: count(found.mq_curmsgs),
    })
}

/// mq_timedsend(3).
pub(crate) fn send(fd: BorrowedFd<'_>, message: &[u8], priority: u32, wait: Wait) -> Result<(), Errno> {
    let timeout = wait.timeout();
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let bytes = message.as_ptr().cast();
    // SAFETY: `bytes` can be read for the length of `message`; `timeout` is null, which means forever, or points to a value
    // that lives until the end of this function.
    let result = unsafe { libc::mq_timedsend(fd.as_raw_fd(), bytes, message.len(), priority, timeout) };
    if result < 0 { Err(waited(last_errno())) } else { Ok(()) }
}

/// mq_timedreceive(3): the length of the message and its priority.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8], wait: Wait) -> Result<(usize, u32), Errno> {
    let timeout = wait.timeout();
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let mut priority = 0;
    let bytes = buffer.as_mut_ptr().cast();
    // SAFETY: `bytes` can be written for the length of `buffer`; `priority` is writable; `timeout` as in `send`.
    let count = unsafe { libc::mq_timedreceive(fd.as_raw_fd(), bytes, buffer.len(), &raw mut priority, timeout) };
    usize::try_from(count).map(|count| (count, priority)).map_err(|_| waited(last_errno()))
}

/// mq_notify(3): a signal for this process when a message arrives in the empty queue; `None` takes it back.
pub(crate) fn notify(fd: BorrowedFd<'_>, signal: Option<i32>) -> Result<(), Errno> {
    // SAFETY: sigevent is made of integers and a union of a pointer and an integer, for all of which zero is a value.
    let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal.unwrap_or(0);
    let event = if signal.is_some() { &raw const event } else { ptr::null() };
    // The system call itself: libc has no declaration of musl's function, and for a signal this is all that it does.
    // SAFETY: `event` is null or points to an initialised value on this stack; the kernel copies it.
    if unsafe { libc::syscall(libc::SYS_mq_notify, fd.as_raw_fd(), event) } < 0 { Err(last_errno()) } else { Ok(()) }
}
