//! The process that a signal goes to.

use std::fmt::Write as _;
use std::os::fd::AsFd as _;

use rustix::io::Errno;

use crate::address::{Address, Pid, SignalName, SignalNumber};
use crate::process::{self, ProcessHandle};
use crate::sys::signal;
use crate::{Error, Result};

/// One signal for one process.
#[derive(Debug)]
pub(super) struct Target {
    process: ProcessHandle,
    number: SignalNumber,
    object: String,
}

impl Target {
    /// The process that has the number `pid` now.
    pub(super) fn open(pid: Pid, number: SignalNumber) -> Result<Self> {
        let object = Address::Signal(SignalName::to(pid, number)).to_string();
        if let Some(process) = process_of(pid).filter(|process| *process != pid.get().unsigned_abs()) {
            let reason =
                format!("{pid} is a thread of process {process}, whose other threads would not get the signal");
            return Err(Error::Invalid { object, reason });
        }
        let process =
            ProcessHandle::open_hidden(pid.get().unsigned_abs()).map_err(|error| match error.raw_os_error() {
                Some(libc::ESRCH) => Error::os("pidfd_open", object.clone(), error)
                    .with_remedy("no process has this number, or it has exited"),
                _ => Error::os("pidfd_open", object.clone(), error),
            })?;
        Ok(Self { process, number, object })
    }

    /// Sends it, with a payload or without.
    pub(super) fn send(&self, value: Option<i32>) -> Result<(), Errno> {
        signal::send(self.process.as_fd(), self.number.get(), value)
    }

    pub(super) fn object(&self) -> &str {
        &self.object
    }

    pub(super) fn error(&self, errno: Errno) -> Error {
        let error = Error::os("pidfd_send_signal", self.object.clone(), errno);
        match errno {
            Errno::AGAIN => error.with_remedy(self.full()),
            Errno::PERM => error.with_remedy(
                "a process may send signals to those of its own user (real or effective uid against real or saved), and with \
                 CAP_KILL to all",
            ),
            _ => error,
        }
    }

    /// What stands in the way, with the numbers that the kernel tells now.
    fn full(&self) -> String {
        let mut text = String::from("the queue of its user is full");
        let status = process::status(self.process.pid()).unwrap_or_default();
        let queue = status.lines().find_map(|line| line.strip_prefix("SigQ:")).map(str::trim);
        if let Some((pending, limit)) = queue.and_then(|queue| queue.split_once('/')) {
            // Writing to a String does not fail.
            let _ = write!(text, ": {pending} signals are pending, of the {limit} that RLIMIT_SIGPENDING allows");
        }
        text + "; receive some, or raise it there with `ulimit -i` or `prlimit --sigpending`"
    }
}

/// The process to which a thread belongs, as far as /proc tells: a process has the number of its first thread.
fn process_of(thread: Pid) -> Option<u32> {
    let status = process::status(thread).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}
