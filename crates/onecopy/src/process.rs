//! Which process: its number alone is used again, its number with its start time is not.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// `PIDFD_THREAD` of Linux 6.9 (its value is that of O_EXCL): the descriptor stands for one thread.
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL as u32);

/// A pidfd: it stands for one process, and its number says nothing about which, so a recycled pid is not taken for it.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    pid: u32,
    start_ticks: u64,
    fd: OwnedFd,
}

impl ProcessHandle {
    /// Opens the process, or thread, that has the number `pid` now.
    ///
    /// # Errors
    ///
    /// ESRCH when there is none or it has exited; EINVAL for a thread that is not its process's first before Linux 6.9;
    /// what opening `/proc/PID/stat` says.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        let fd = match pidfd_open(number, PidfdFlags::empty()) {
            // A thread, but not the first of its process: EINVAL, or ENOENT from Linux 6.16 on.
            Err(Errno::INVAL | Errno::NOENT) => pidfd_open(number, PIDFD_THREAD),
            other => other,
        }?;
        let stat = start_ticks(pid);
        // The file belonged to this very process if that still lives: only then could nobody else have had its number.
        if has_exited(fd.as_fd())? {
            return Err(Errno::SRCH.into());
        }
        Ok(Self { pid, start_ticks: stat?, fd })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// When it started, in clock ticks since the machine did.
    pub(crate) fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// Whether it has exited. While it has not, its number belongs to nobody else.
    pub(crate) fn has_exited(&self) -> io::Result<bool> {
        has_exited(self.fd.as_fd())
    }
}

fn has_exited(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&at_once)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Field 22 of `/proc/PID/stat`, which proc_pid_stat(5) describes.
pub(crate) fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    parse_start_ticks(&stat).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start time")))
}

/// The name in field 2 may hold blanks and parentheses, so the fields are counted from its last closing one.
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_shifts_nothing() {
        let stat = b"7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 100";
        assert_eq!(parse_start_ticks(stat), Some(4711));
        assert_eq!(parse_start_ticks(b"7 (short) S 1"), None);
        assert_eq!(parse_start_ticks(b""), None);
    }

    #[test]
    fn this_process_lives_and_the_unused_number_does_not() {
        let own = ProcessHandle::open(std::process::id()).unwrap();
        assert!(!own.has_exited().unwrap());
        assert_eq!(own.start_ticks(), start_ticks(std::process::id()).unwrap());
        for pid in [0, 1 << 22, u32::MAX] {
            let error = ProcessHandle::open(pid).unwrap_err();
            assert!(matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)), "pid {pid}: {error}");
        }
    }
}
