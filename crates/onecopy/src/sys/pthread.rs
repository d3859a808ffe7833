//! POSIX threads' objects in memory that processes share, and unnamed semaphores, with deadlines of the monotonic clock.
//!
//! # Safety
//!
//! Each function is `unsafe` for the same reason: the object must be valid memory for the whole call, laid out by this C
//! library, initialised by the function of that name here (or by a program that does the same), and not destroyed; and all who can
//! write it do so by these calls alone.
#![expect(unsafe_code, reason = "neither rustix nor nix has process-shared pthread objects")]

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, PTHREAD_PROCESS_SHARED, c_int, clockid_t, pthread_barrier_t, pthread_cond_t,
    pthread_mutex_t, pthread_rwlock_t, sem_t, timespec,
};
use rustix::io::Errno;

use super::last_errno;
use crate::Deadline;

type Done = Result<(), Errno>;

/// glibc 2.30.
#[cfg(target_env = "gnu")]
mod clocked {
    use super::{c_int, clockid_t, pthread_mutex_t, pthread_rwlock_t, sem_t, timespec};

    unsafe extern "C" {
        pub(super) fn pthread_mutex_clocklock(
            mutex: *mut pthread_mutex_t,
            clock: clockid_t,
            until: *const timespec,
        ) -> c_int;
        pub(super) fn pthread_rwlock_clockrdlock(
            lock: *mut pthread_rwlock_t,
            clock: clockid_t,
            until: *const timespec,
        ) -> c_int;
        pub(super) fn pthread_rwlock_clockwrlock(
            lock: *mut pthread_rwlock_t,
            clock: clockid_t,
            until: *const timespec,
        ) -> c_int;
        pub(super) fn sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, until: *const timespec) -> c_int;
        pub(super) fn pthread_rwlockattr_setkind_np(attr: *mut libc::pthread_rwlockattr_t, kind: c_int) -> c_int;
    }
}

/// For a C library whose timed calls know the wall clock alone: when that is set, the wait is that much shorter or longer.
#[cfg(not(target_env = "gnu"))]
mod clocked {
    use super::{c_int, clockid_t, pthread_mutex_t, pthread_rwlock_t, sem_t, timespec};

    const NOT_THIS_CLOCK: c_int = libc::EINVAL;

    unsafe extern "C" {
        fn pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int;
        fn pthread_rwlock_timedwrlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int;
    }

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

    pub(super) unsafe fn pthread_rwlock_clockrdlock(
        lock: *mut pthread_rwlock_t,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int {
        if clock != libc::CLOCK_REALTIME {
            return NOT_THIS_CLOCK;
        }
        // SAFETY: as the caller's.
        unsafe { pthread_rwlock_timedrdlock(lock, until) }
    }

    pub(super) unsafe fn pthread_rwlock_clockwrlock(
        lock: *mut pthread_rwlock_t,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int {
        if clock != libc::CLOCK_REALTIME {
            return NOT_THIS_CLOCK;
        }
        // SAFETY: as the caller's.
        unsafe { pthread_rwlock_timedwrlock(lock, until) }
    }

    pub(super) unsafe fn sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, until: *const timespec) -> c_int {
        if clock != libc::CLOCK_REALTIME {
            nix::errno::Errno::from_raw(NOT_THIS_CLOCK).set();
            return -1;
        }
        // SAFETY: as the caller's.
        unsafe { libc::sem_timedwait(semaphore, until) }
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

/// Where the C library keeps the kind of a mutex: whether it checks for errors, is robust, and so on. That never changes.
const KIND_OFFSET: usize = if cfg!(target_env = "gnu") { 16 } else { 0 };

const _: () = assert!(KIND_OFFSET + 4 <= size_of::<pthread_mutex_t>() && align_of::<pthread_mutex_t>() >= 4);

/// What the C library keeps as the kind of a mutex, which need not be valid: any bytes will do.
pub(crate) unsafe fn mutex_kind(mutex: *const pthread_mutex_t) -> u32 {
    // SAFETY: within the object, see above.
    let kind = unsafe { mutex.byte_add(KIND_OFFSET) };
    // SAFETY: as above, and aligned; who writes there does so when it makes the mutex.
    unsafe { &*kind.cast::<AtomicU32>() }.load(Ordering::Relaxed)
}

/// The kind of what [`mutex_init`] makes.
pub(crate) fn mutex_kind_of(inherit: bool) -> Result<u32, Errno> {
    let mut mutex = MaybeUninit::<pthread_mutex_t>::zeroed();
    // SAFETY: room for one that nobody else uses.
    unsafe { mutex_init(mutex.as_mut_ptr(), inherit) }?;
    // SAFETY: initialised above.
    let kind = unsafe { mutex_kind(mutex.as_ptr()) };
    // SAFETY: as above, and not used any more.
    unsafe { libc::pthread_mutex_destroy(mutex.as_mut_ptr()) };
    Ok(kind)
}

#[inline]
pub(crate) unsafe fn mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: as the caller's.
    unsafe { libc::pthread_mutex_unlock(mutex) }
}

/// Locks it if it is free, without a look at the clock; otherwise ETIMEDOUT, or EINVAL where only the wall clock is known.
#[inline]
pub(crate) unsafe fn mutex_lock_at_once(mutex: *mut pthread_mutex_t) -> c_int {
    static PAST: timespec = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as the caller's; `PAST` is a time.
    unsafe { clocked::pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &raw const PAST) }
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

/// Makes a read-write lock that lets no new reader in while a writer waits, where the C library knows that.
pub(crate) unsafe fn rwlock_init(lock: *mut pthread_rwlock_t) -> Done {
    let mut attributes = MaybeUninit::uninit();
    let attr = attributes.as_mut_ptr();
    // SAFETY: `attr` is writable.
    done(unsafe { libc::pthread_rwlockattr_init(attr) })?;
    // SAFETY: initialised above.
    done(unsafe { libc::pthread_rwlockattr_setpshared(attr, PTHREAD_PROCESS_SHARED) })?;
    #[cfg(target_env = "gnu")]
    {
        const PREFER_WRITER_NONRECURSIVE: c_int = 2;
        // SAFETY: as above.
        done(unsafe { clocked::pthread_rwlockattr_setkind_np(attr, PREFER_WRITER_NONRECURSIVE) })?;
    }
    // SAFETY: the caller gives memory for a lock that nobody uses yet.
    let made = done(unsafe { libc::pthread_rwlock_init(lock, attr) });
    // SAFETY: as above.
    unsafe { libc::pthread_rwlockattr_destroy(attr) };
    made
}

/// EBUSY when [`Deadline::Now`] finds it taken, ETIMEDOUT when the deadline passed.
pub(crate) unsafe fn rwlock_read_by(lock: *mut pthread_rwlock_t, deadline: Deadline) -> Done {
    if deadline == Deadline::Now {
        // SAFETY: as the caller's.
        return done(unsafe { libc::pthread_rwlock_tryrdlock(lock) });
    }
    // SAFETY: as the caller's.
    let untimed = || done(unsafe { libc::pthread_rwlock_rdlock(lock) });
    // SAFETY: as the caller's; `until` is a time.
    until(deadline, untimed, |clock, until| done(unsafe { clocked::pthread_rwlock_clockrdlock(lock, clock, until) }))
}

/// As [`rwlock_read_by`], to write.
pub(crate) unsafe fn rwlock_write_by(lock: *mut pthread_rwlock_t, deadline: Deadline) -> Done {
    if deadline == Deadline::Now {
        // SAFETY: as the caller's.
        return done(unsafe { libc::pthread_rwlock_trywrlock(lock) });
    }
    // SAFETY: as the caller's.
    let untimed = || done(unsafe { libc::pthread_rwlock_wrlock(lock) });
    // SAFETY: as the caller's; `until` is a time.
    until(deadline, untimed, |clock, until| done(unsafe { clocked::pthread_rwlock_clockwrlock(lock, clock, until) }))
}

pub(crate) unsafe fn rwlock_unlock(lock: *mut pthread_rwlock_t) -> Done {
    // SAFETY: as the caller's.
    done(unsafe { libc::pthread_rwlock_unlock(lock) })
}

/// Makes a condition variable whose deadlines are points of the monotonic clock.
pub(crate) unsafe fn cond_init(cond: *mut pthread_cond_t) -> Done {
    let mut attributes = MaybeUninit::uninit();
    let attr = attributes.as_mut_ptr();
    // SAFETY: `attr` is writable.
    done(unsafe { libc::pthread_condattr_init(attr) })?;
    // SAFETY: initialised above.
    done(unsafe { libc::pthread_condattr_setpshared(attr, PTHREAD_PROCESS_SHARED) })?;
    // SAFETY: as above.
    done(unsafe { libc::pthread_condattr_setclock(attr, CLOCK_MONOTONIC) })?;
    // SAFETY: the caller gives memory for a condition variable, of whose former waiters nothing is expected any more.
    let made = done(unsafe { libc::pthread_cond_init(cond, attr) });
    // SAFETY: as above.
    unsafe { libc::pthread_condattr_destroy(attr) };
    made
}

/// The caller holds `mutex`, and holds it again afterwards unless it is ENOTRECOVERABLE. ETIMEDOUT when the deadline passed.
pub(crate) unsafe fn cond_wait_by(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, deadline: Deadline) -> Done {
    match point(CLOCK_MONOTONIC, deadline) {
        // SAFETY: as the caller's; `until` is a time.
        Some(until) => done(unsafe { libc::pthread_cond_timedwait(cond, mutex, &raw const until) }),
        // SAFETY: as the caller's.
        None => done(unsafe { libc::pthread_cond_wait(cond, mutex) }),
    }
}

pub(crate) unsafe fn cond_signal(cond: *mut pthread_cond_t) -> Done {
    // SAFETY: as the caller's.
    done(unsafe { libc::pthread_cond_signal(cond) })
}

pub(crate) unsafe fn cond_broadcast(cond: *mut pthread_cond_t) -> Done {
    // SAFETY: as the caller's.
    done(unsafe { libc::pthread_cond_broadcast(cond) })
}

pub(crate) unsafe fn barrier_init(barrier: *mut pthread_barrier_t, parties: u32) -> Done {
    let mut attributes = MaybeUninit::uninit();
    let attr = attributes.as_mut_ptr();
    // SAFETY: `attr` is writable.
    done(unsafe { libc::pthread_barrierattr_init(attr) })?;
    // SAFETY: initialised above.
    done(unsafe { libc::pthread_barrierattr_setpshared(attr, PTHREAD_PROCESS_SHARED) })?;
    // SAFETY: the caller gives memory for a barrier that nobody uses yet.
    let made = done(unsafe { libc::pthread_barrier_init(barrier, attr, parties) });
    // SAFETY: as above.
    unsafe { libc::pthread_barrierattr_destroy(attr) };
    made
}

/// Whether this is the one of the round that is told so.
pub(crate) unsafe fn barrier_wait(barrier: *mut pthread_barrier_t) -> Result<bool, Errno> {
    // SAFETY: as the caller's.
    match unsafe { libc::pthread_barrier_wait(barrier) } {
        libc::PTHREAD_BARRIER_SERIAL_THREAD => Ok(true),
        code => done(code).map(|()| false),
    }
}

pub(crate) unsafe fn semaphore_init(semaphore: *mut sem_t, value: u32) -> Done {
    const SHARED: c_int = 1;
    // SAFETY: the caller gives memory for a semaphore that nobody uses yet.
    answered(unsafe { libc::sem_init(semaphore, SHARED, value) })
}

pub(crate) unsafe fn semaphore_post(semaphore: *mut sem_t) -> Done {
    // SAFETY: as the caller's.
    answered(unsafe { libc::sem_post(semaphore) })
}

/// EAGAIN when [`Deadline::Now`] finds it at 0, ETIMEDOUT when the deadline passed. A signal does not end the wait.
pub(crate) unsafe fn semaphore_wait_by(semaphore: *mut sem_t, deadline: Deadline) -> Done {
    loop {
        let result = if deadline == Deadline::Now {
            // SAFETY: as the caller's.
            answered(unsafe { libc::sem_trywait(semaphore) })
        } else {
            // SAFETY: as the caller's.
            let untimed = || answered(unsafe { libc::sem_wait(semaphore) });
            let timed = |clock, until: &timespec| {
                // SAFETY: as the caller's; `until` is a time.
                answered(unsafe { clocked::sem_clockwait(semaphore, clock, until) })
            };
            until(deadline, untimed, timed)
        };
        if result != Err(Errno::INTR) {
            return result;
        }
    }
}

pub(crate) unsafe fn semaphore_value(semaphore: *mut sem_t) -> Result<u32, Errno> {
    let mut value = 0;
    // SAFETY: as the caller's; `value` is writable.
    answered(unsafe { libc::sem_getvalue(semaphore, &raw mut value) })?;
    Ok(u32::try_from(value).unwrap_or(0))
}

fn answered(result: c_int) -> Done {
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
