//! Row 23, the record lock: [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl_locking.2.html), F_SETLK and F_OFD_SETLK.
//!
//! A range of a file is locked, shared or exclusively. It need not exist: a range may lie beyond the end of the file, and one of
//! the length 0 reaches to the end, however far the file grows. There are two kinds, which exclude each other:
//!
//! | | [`OfdLock`] (`ofd:`) | [`RecordLock`] (`record:`) |
//! |---|---|---|
//! | belongs to | an open file description | a process |
//! | two in one process | exclude each other | do so here, not in the kernel: see below |
//! | released by | the last close of its description | any close of any descriptor of the file, by the process |
//! | a child | shares it when it inherits the descriptor | has none of it |
//! | who holds it | is not told | [`Holder::process`] |
//! | a cycle of waits | lasts until a deadline | EDEADLK between processes; within one it lasts until a deadline |
//!
//! [`OfdLock`] has no traps: prefer it. [`RecordLock`] is for files that other programs lock in this way (sqlite, mail, lockf(3)).
//! This library keeps its traditional locks apart although the kernel does not: all values of a process that lie on one file
//! share one table and one descriptor, which stays open until the last of them is gone. So they exclude each other, none
//! releases another's, and no open and close of a [`RecordLock`] loses one. **Whatever else** of the process opens and closes
//! the file, be it [`std::fs::read`] or an [`OfdLock`] that is dropped, still makes the kernel release them all, and nothing
//! tells.
//!
//! **When its holder dies**, however it dies, the kernel releases either kind; a child that inherited the descriptor of an
//! [`OfdLock`] keeps it. A waiter that dies leaves nothing.
//!
//! **Whoever may open the file** can lock it, shared with a right to read and exclusively with one to write, and keep it: wait by
//! a deadline. The lock is advice: it stops nobody who does not ask. On local file systems record locks and file locks (flock)
//! do not see each other.
//!
//! fcntl(2) has no timeout: with [`Deadline::Never`] a call waits in the kernel, with an instant this library tries and sleeps
//! between tries, at first 1 ms, at last 10 ms; the kernel looks for cycles of waits only in the first case. It takes the threads
//! of a process for one, so EDEADLK can also come where another thread would have let go. Of what the values of one process wait for
//! among themselves it knows nothing, and neither do they: two threads that wait for each other's, without a deadline, wait for
//! ever, as with a [`std::sync::Mutex`]. Only two conversions of one range are EDEADLK there too.

mod ofd;
mod registry;
mod traditional;

use std::os::fd::BorrowedFd;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Mode;
use crate::io::wait::Backoff;
use crate::{Deadline, Error, Result};

pub use ofd::OfdLock;
pub use traditional::RecordLock;

/// To lock exclusively takes a right to write, to lock shared one to read.
const ACCESSES: [OFlags; 3] = [OFlags::RDWR, OFlags::RDONLY, OFlags::WRONLY];

/// Who stands in the way of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process; `None` for a lock of the kind of [`OfdLock`], and for a process of another pid namespace. It may be gone.
    pub process: Option<u32>,
    /// How it is held.
    pub mode: Mode,
    /// The first byte that is held.
    pub start: u64,
    /// How many bytes are held; 0 reaches to the end of the file, however far it grows.
    pub len: u64,
}

/// Bytes of a file, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
}

/// The largest offset of a file.
const LAST_OFFSET: u64 = i64::MAX as u64;

impl Span {
    /// `len` bytes from `start`; 0 reaches to the largest offset.
    fn new(start: u64, len: u64) -> Self {
        let last = if len == 0 { LAST_OFFSET } else { start.saturating_add(len - 1).min(LAST_OFFSET) };
        Self { first: start, last }
    }

    /// As fcntl(2) takes it: 0 for all that follows.
    fn len(self) -> u64 {
        if self.last == LAST_OFFSET { 0 } else { self.last - self.first + 1 }
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Which of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Description,
    Process,
}

impl Kind {
    /// Locks the span, or unlocks it; waits for it, or says EAGAIN.
    fn set(self, fd: BorrowedFd<'_>, span: Span, mode: Option<Mode>, waits: bool) -> Result<(), Errno> {
        let wish = raw(span, mode);
        loop {
            let argument = match (self, waits) {
                (Self::Description, false) => FcntlArg::F_OFD_SETLK(&wish),
                (Self::Description, true) => FcntlArg::F_OFD_SETLKW(&wish),
                (Self::Process, false) => FcntlArg::F_SETLK(&wish),
                (Self::Process, true) => FcntlArg::F_SETLKW(&wish),
            };
            match fcntl(fd, argument) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(Errno::from_raw_os_error(errno as i32)),
            }
        }
    }

    /// The first lock that would keep a lock of `span` in `mode` from being taken.
    fn holder(self, fd: BorrowedFd<'_>, span: Span, mode: Mode, object: &str) -> Result<Option<Holder>> {
        let mut found = raw(span, Some(mode));
        let argument = match self {
            Self::Description => FcntlArg::F_OFD_GETLK(&mut found),
            Self::Process => FcntlArg::F_GETLK(&mut found),
        };
        fcntl(fd, argument).map_err(|errno| Error::os("fcntl(F_GETLK)", object, errno))?;
        Ok(told(&found))
    }

    fn call(self) -> &'static str {
        match self {
            Self::Description => "fcntl(F_OFD_SETLK)",
            Self::Process => "fcntl(F_SETLK)",
        }
    }

    fn error(self, object: &str, errno: Errno) -> Error {
        let error = Error::os(self.call(), object, errno);
        match errno {
            Errno::BADF => error.with_remedy(
                "the file could not be opened for that: an exclusive lock takes a right to write, a shared one to read",
            ),
            Errno::NOLCK => error.with_remedy("the kernel has no memory for another lock, or this file system has none"),
            Errno::DEADLK => error.with_remedy(
                "its holder waits for a lock that this process holds: release that, or wait by a deadline and try again",
            ),
            _ => error,
        }
    }
}

fn raw(span: Span, mode: Option<Mode>) -> libc::flock {
    let kind = match mode {
        Some(Mode::Exclusive) => libc::F_WRLCK,
        Some(Mode::Shared) => libc::F_RDLCK,
        None => libc::F_UNLCK,
    };
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: span.first.cast_signed(),
        l_len: span.len().cast_signed(),
        l_pid: 0,
    }
}

/// What F_GETLK found: F_UNLCK when nothing stands in the way.
fn told(found: &libc::flock) -> Option<Holder> {
    let mode = match i32::from(found.l_type) {
        libc::F_WRLCK => Mode::Exclusive,
        libc::F_RDLCK => Mode::Shared,
        _ => return None,
    };
    let process = u32::try_from(found.l_pid).ok().filter(|pid| *pid != 0);
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    Some(Holder { process, mode, start: number(found.l_start), len: number(found.l_len) })
}

/// Calls `attempt`, which says whether it has the lock, until it has, or `deadline` passes.
fn try_until(deadline: Deadline, object: &str, mut attempt: impl FnMut() -> Result<bool>) -> Result<()> {
    let mut backoff = Backoff::new();
    while !attempt()? {
        backoff.pause(deadline, "lock", object)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reaches_to_its_last_byte_or_to_the_end() {
        assert_eq!((Span::new(5, 1).last, Span::new(5, 1).len()), (5, 1));
        assert_eq!((Span::new(5, 0).last, Span::new(5, 0).len()), (LAST_OFFSET, 0));
        assert_eq!(Span::new(LAST_OFFSET, 1), Span::new(LAST_OFFSET, 0));
        assert!(Span::new(0, 5).overlaps(Span::new(4, 1)) && !Span::new(0, 5).overlaps(Span::new(5, 0)));
        assert!(Span::new(7, 0).overlaps(Span::new(1 << 40, 1)));
    }
}
