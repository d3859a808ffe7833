//! Attempts on a process that change nothing: one byte at an address where no process has memory. The kernel checks the
//! permission first, so EFAULT says that it was given.
//!
//! # Safety
//!
//! Where a filter watches the system calls of this process, an attempt may be answered with a signal that kills. There it is
//! made by a child that is a copy of this process with the calling thread alone: until its end it may call only what is safe
//! in a signal handler, which system calls are, and allocates nothing.
#![expect(unsafe_code, reason = "an address of another process is no pointer of this one, and a child by clone(2)")]

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;

use rustix::process::{Pid, test_kill_process};

use super::Direction;

/// The last page of the address space, which is the kernel's on every machine.
const NOBODYS: usize = usize::MAX - 4095;

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Permitted,
    /// The errno.
    Refused(i32),
    /// The signal that killed the child which made the attempt.
    Killed(i32),
    /// No child could be made: the errno.
    Untried(i32),
}

/// Whether a process has the number `pid`, as far as kill(2) tells: EPERM is a process too.
pub(super) fn kill(pid: u32) -> Result<(), i32> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(libc::ESRCH)?;
    test_kill_process(number).map_err(rustix::io::Errno::raw_os_error)
}

/// Whether this process may attach to `pid`. With `filtered` a child tries it first.
pub(super) fn attach(direction: Direction, pid: u32, filtered: bool) -> Outcome {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return Outcome::Refused(libc::ESRCH) };
    if filtered && let outcome @ (Outcome::Killed(_) | Outcome::Untried(_)) = in_child(direction, Some(pid)) {
        return outcome;
    }
    // By this process itself too, since Yama lets an ancestor do what it refuses to that one's other children.
    outcome(attempt(direction, pid))
}

thread_local! {
    /// Under how many filters of this thread a child tried what, and what came of it.
    static TRIED: RefCell<Vec<(Direction, u32, Outcome)>> = const { RefCell::new(Vec::new()) };
}

/// Whether this process may attach to itself, which no rule of the kernel forbids: only a filter does. With `filtered` a child tries it,
/// which takes the longer the more memory this process has mapped; so it does that once for each number of `filters` of this thread.
pub(super) fn attach_to_oneself(direction: Direction, filtered: bool, filters: Option<u32>) -> Outcome {
    if !filtered {
        return outcome(attempt(direction, std::process::id().cast_signed()));
    }
    let Some(filters) = filters else { return in_child(direction, None) };
    TRIED.with_borrow_mut(|tried| {
        let known = tried.iter().find(|(of, under, _)| *of == direction && *under == filters);
        if let Some((_, _, outcome)) = known {
            return *outcome;
        }
        let outcome = in_child(direction, None);
        // Another signal is somebody's who kills processes, and no answer.
        if matches!(outcome, Outcome::Permitted | Outcome::Refused(_) | Outcome::Killed(libc::SIGSYS)) {
            tried.retain(|(of, _, _)| *of != direction);
            tried.push((direction, filters, outcome));
        }
        outcome
    })
}

fn outcome(errno: i32) -> Outcome {
    match errno {
        0 | libc::EFAULT => Outcome::Permitted,
        errno => Outcome::Refused(errno),
    }
}

/// The attempt itself; returns the errno. Safe in a signal handler.
fn attempt(direction: Direction, pid: libc::pid_t) -> i32 {
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: ptr::without_provenance_mut::<c_void>(NOBODYS), iov_len: 1 };
    let result = match direction {
        // SAFETY: the kernel would write at most one byte to `byte`; the remote address is not used by this process.
        Direction::Read => unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) },
        // SAFETY: the kernel reads at most one byte of `byte`, and writes to an address that no process has.
        Direction::Write => unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) },
    };
    if result >= 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) }
}

/// Lets a child attach to `pid`, or to itself. It sends no SIGCHLD, and only a wait with `__WALL` sees it: the program that
/// uses this library does not notice.
fn in_child(direction: Direction, pid: Option<libc::pid_t>) -> Outcome {
    // SAFETY: without flags clone(2) is fork(2) without a signal at the child's end. The child leaves this function by _exit.
    let child = unsafe { libc::syscall(libc::SYS_clone, 0_usize, 0_usize, 0_usize, 0_usize, 0_usize) };
    if child < 0 {
        return Outcome::Untried(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    if child == 0 {
        // SAFETY: one system call, which keeps a child that is killed from leaving a core file.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
        // SAFETY: one system call.
        let pid = pid.unwrap_or_else(|| unsafe { libc::getpid() });
        let errno = attempt(direction, pid);
        // SAFETY: ends the child at once, without running anything of the program's.
        unsafe { libc::_exit(errno) };
    }
    end_of(child as libc::pid_t)
}

fn end_of(child: libc::pid_t) -> Outcome {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes the status of this process's own child to `status`.
        if unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) } == child {
            break;
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            errno => return Outcome::Untried(errno.unwrap_or(0)),
        }
    }
    if libc::WIFEXITED(status) { outcome(libc::WEXITSTATUS(status)) } else { Outcome::Killed(libc::WTERMSIG(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_permits_itself_from_a_child_too() {
        for direction in [Direction::Read, Direction::Write] {
            for filtered in [false, true] {
                assert_eq!(attach_to_oneself(direction, filtered, None), Outcome::Permitted);
                assert_eq!(attach(direction, std::process::id(), filtered), Outcome::Permitted);
                assert_eq!(attach(direction, 0, filtered), Outcome::Refused(libc::ESRCH));
                assert_eq!(attach(direction, u32::MAX, filtered), Outcome::Refused(libc::ESRCH));
            }
        }
        assert_eq!(kill(std::process::id()), Ok(()));
        assert_eq!(kill(0), Err(libc::ESRCH));
        assert_eq!(kill(1 << 22), Err(libc::ESRCH));
    }
}
