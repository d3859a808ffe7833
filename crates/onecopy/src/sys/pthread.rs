//! POSIX threads' objects in memory that processes share, with deadlines of the monotonic clock.
//!
//! # Safety
//!
//! Each function is `unsafe` for the same reason: the object must be valid memory for the whole call, laid out by this C
//! library, initialised by the function of that name here (or by a program that does the same), and not destroyed; and all who can
//! write it do so by these calls alone.
#![expect(unsafe_code, reason = "neither rustix nor nix has process-shared pthread objects")]

use std::mem::MaybeUninit;

use libc::{CLOCK_MONOTONIC, CLOCK_REALTIME, PTHREAD_PROCESS_SHARED, c_int, clockid_t, pthread_mutex_t, timespec};
use rustix::io::Errno;

use crate::Deadline;

type Done = Result<(), Errno>;

/// glibc 2.30.
#[cfg(target_env = "gnu")]
mod clocked {
    use super::{c_int, clockid_t, pthread_mutex_t, timespec};

    unsafe extern "C" {
        pub(super) fn pthread_mutex_clocklock(
            mutex: *mut pthread_mutex_t,
            clock: clockid_t,
            until: *const timespec,
        ) -> c_int;
    }
}

/// For a C library whose timed calls know the wall clock alone: when that is set, the wait is that much shorter or longer.
#[cfg(not(target_env = "gnu"))]
mod clocked {
    use super::{c_int, clockid_t, pthread_mutex_t, timespec};

    const NOT_THIS_CLOCK: c_int = libc::EINVAL;

    pub(super) unsafe fn pthread_mutex_clocklock(
        mutex: *mut pthread_mutex_t,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int {
        if clock != libc::CLOCK_REALTIME {
            return NOT_THIS_CLOCK;
        }
        // SAFETY: as the caller's.
        unsafe { libc::pthread_mutex_timedlock(mutex, until) }
    }
}

fn done(code: c_int) -> Done {
    if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code)) }
}

/// The point of `clock` at which `deadline` passes; `None` means never.
fn point(clock: clockid_t, deadline: Deadline) -> Option<timespec> {
    let left = deadline.remaining()?;
    let mut now = MaybeUninit::<timespec>::uninit();
    // SAFETY: `now` is writable; both clocks are always there, so it is filled in.
    unsafe { libc::clock_gettime(clock, now.as_mut_ptr()) };
    // SAFETY: filled in by the call above.
    let now = unsafe { now.assume_init() };
    let nanos = now.tv_nsec + i64::from(left.subsec_nanos());
    let seconds = i64::try_from(left.as_secs()).ok()?.checked_add(now.tv_sec)?.checked_add(nanos / 1_000_000_000)?;
    Some(timespec { tv_sec: seconds, tv_nsec: nanos % 1_000_000_000 })
}

/// Calls `wait` with the point at which `deadline` passes, on the monotonic clock or, where `wait` refuses that, on the wall
/// clock. A deadline that never passes is `untimed`.
fn until(deadline: Deadline, untimed: impl Fn() -> Done, wait: impl Fn(clockid_t, &timespec) -> Done) -> Done {
    let at = |clock| point(clock, deadline).map(|until| wait(clock, &until));
    match at(CLOCK_MONOTONIC) {
        Some(Err(Errno::INVAL)) => at(CLOCK_REALTIME).unwrap_or_else(untimed),
        Some(result) => result,
        None => untimed(),
    }
}

/// Makes a robust mutex that checks for errors, with priority inheritance if `inherit`.
pub(crate) unsafe fn mutex_init(mutex: *mut pthread_mutex_t, inherit: bool) -> Done {
    let mut attributes = MaybeUninit::uninit();
    let attr = attributes.as_mut_ptr();
    let protocol = if inherit { libc::PTHREAD_PRIO_INHERIT } else { libc::PTHREAD_PRIO_NONE };
    // SAFETY: `attr` is writable.
    done(unsafe { libc::pthread_mutexattr_init(attr) })?;
    // SAFETY: initialised above.
    done(unsafe { libc::pthread_mutexattr_setpshared(attr, PTHREAD_PROCESS_SHARED) })?;
    // SAFETY: as above.
    done(unsafe { libc::pthread_mutexattr_setrobust(attr, libc::PTHREAD_MUTEX_ROBUST) })?;
    // SAFETY: as above.
    done(unsafe { libc::pthread_mutexattr_settype(attr, libc::PTHREAD_MUTEX_ERRORCHECK) })?;
    // SAFETY: as above.
    done(unsafe { libc::pthread_mutexattr_setprotocol(attr, protocol) })?;
    // SAFETY: the caller gives memory for a mutex that nobody uses yet.
    let made = done(unsafe { libc::pthread_mutex_init(mutex, attr) });
    // SAFETY: as above.
    unsafe { libc::pthread_mutexattr_destroy(attr) };
    made
}

#[inline]
pub(crate) unsafe fn mutex_lock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: as the caller's.
    unsafe { libc::pthread_mutex_lock(mutex) }
}

#[inline]
pub(crate) unsafe fn mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: as the caller's.
    unsafe { libc::pthread_mutex_unlock(mutex) }
}

/// ETIMEDOUT when the deadline passed, [`Deadline::Now`] too. That is no pthread_mutex_trylock: glibc's (2.36) locks a mutex
/// that nobody can recover any more, says ENOTRECOVERABLE, and leaves it locked, so that later calls hang.
pub(crate) unsafe fn mutex_lock_by(mutex: *mut pthread_mutex_t, deadline: Deadline) -> Done {
    // SAFETY: as the caller's.
    let untimed = || done(unsafe { libc::pthread_mutex_lock(mutex) });
    // SAFETY: as the caller's; `until` is a time.
    until(deadline, untimed, |clock, until| done(unsafe { clocked::pthread_mutex_clocklock(mutex, clock, until) }))
}

pub(crate) unsafe fn mutex_consistent(mutex: *mut pthread_mutex_t) -> Done {
    // SAFETY: as the caller's.
    done(unsafe { libc::pthread_mutex_consistent(mutex) })
}
