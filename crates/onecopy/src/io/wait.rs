//! Waiting: for one descriptor, or by asking again where no descriptor tells.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::{Deadline, Error, Result};

/// Waits until `fd` reports one of `events`, an error or a hang-up.
///
/// A signal handler that runs meanwhile does not end the wait: the deadline is absolute.
pub(crate) fn wait_for(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Deadline,
    operation: &'static str,
    object: &str,
) -> Result<()> {
    wait_events(fd, events, deadline, operation, object).map(drop)
}

/// As [`wait_for`], and returns what was reported.
pub(crate) fn wait_events(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Deadline,
    operation: &'static str,
    object: &str,
) -> Result<PollFlags> {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(fd, events)];
        match poll(&mut fds, deadline.timespec().as_ref()) {
            Ok(0) => return Err(Error::out_of_time(operation, object, deadline)),
            Ok(_) => return Ok(fds[0].revents()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os("poll", object, errno)),
        }
    }
}

/// Calls `attempt`, which must not wait, until it succeeds or `deadline` passes; between two attempts waits for `events`.
pub(crate) fn retry<T>(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Deadline,
    (operation, call, object): (&'static str, &'static str, &str),
    mut attempt: impl FnMut() -> Result<T, Errno>,
) -> Result<T> {
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if deadline == Deadline::Now => {
                return Err(Error::out_of_time(operation, object, deadline));
            }
            Err(Errno::AGAIN) => wait_for(fd, events, deadline, operation, object)?,
            Err(errno) => return Err(Error::os(call, object, errno)),
        }
    }
}

/// The pauses between two attempts at something that no descriptor reports: 1 ms at first, so that a side that comes a
/// moment later is met at once, then up to 10 ms, which costs no processor time worth naming.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(10);

    pub(crate) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// Sleeps before the next attempt, never beyond `deadline`; an error when it has passed.
    pub(crate) fn pause(&mut self, deadline: Deadline, operation: &'static str, object: &str) -> Result<()> {
        std::thread::sleep(self.step(deadline, operation, object)?);
        Ok(())
    }

    /// As [`Backoff::pause`]; the error tells what was `missing` until then.
    pub(crate) fn pause_for(
        &mut self,
        missing: &str,
        deadline: Deadline,
        operation: &'static str,
        object: &str,
    ) -> Result<()> {
        self.pause(deadline, operation, object)
            .map_err(|_| Error::out_of_time(operation, format!("{object} ({missing})"), deadline))
    }

    /// As [`Backoff::pause`], but ends early when `fd` has something to read or hangs up.
    pub(crate) fn pause_polling(
        &mut self,
        fd: BorrowedFd<'_>,
        deadline: Deadline,
        operation: &'static str,
        object: &str,
    ) -> Result<()> {
        let step = Deadline::after(self.step(deadline, operation, object)?);
        match wait_for(fd, PollFlags::IN, step, operation, object) {
            Err(error) if !error.is_out_of_time() => Err(error),
            _ => Ok(()),
        }
    }

    /// The length of this pause.
    fn step(&mut self, deadline: Deadline, operation: &'static str, object: &str) -> Result<Duration> {
        let left = deadline.remaining().unwrap_or(Duration::MAX);
        if left.is_zero() {
            return Err(Error::out_of_time(operation, object, deadline));
        }
        let step = self.next.min(left);
        self.next = (self.next * 2).min(Self::LONGEST);
        Ok(step)
    }
}
