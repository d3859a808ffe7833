//! POSIX semaphores: [sem_overview(7)](https://man7.org/linux/man-pages/man7/sem_overview.7.html).
//!
//! # Safety
//!
//! A [`Named`] owns what sem_open mapped until its drop closes it, so anyone may call its methods, from any thread. Other
//! processes may write the semaphore's memory at any time; only the C library touches it, by atomic operations.
#![expect(unsafe_code, reason = "neither rustix nor nix has POSIX semaphores")]

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::time::Duration;

use libc::{clockid_t, sem_t, timespec};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::last_errno;

/// `SEM_VALUE_MAX`.
pub(crate) const VALUE_MAX: u32 = i32::MAX as u32;

/// A semaphore that sem_open(3) found or made.
#[derive(Debug)]
pub(crate) struct Named(NonNull<sem_t>);

// SAFETY: the C library's functions on a semaphore may be called by any thread, at the same time too (sem_overview(7)).
unsafe impl Send for Named {}
// SAFETY: as above.
unsafe impl Sync for Named {}

impl Named {
    /// sem_open(3) of one that exists.
    pub(crate) fn open(name: &CStr) -> Result<Self, Errno> {
        // SAFETY: the name ends with a NUL; without O_CREAT there are no further arguments.
        Self::opened(unsafe { libc::sem_open(name.as_ptr(), 0) })
    }

    /// sem_open(3) of one that must not exist yet.
    pub(crate) fn create(name: &CStr, mode: u32, value: u32) -> Result<Self, Errno> {
        let flags = libc::O_CREAT | libc::O_EXCL;
        // SAFETY: the name ends with a NUL; with O_CREAT a mode and a value follow, both of the size of an unsigned int.
        Self::opened(unsafe { libc::sem_open(name.as_ptr(), flags, mode, value) })
    }

    fn opened(found: *mut sem_t) -> Result<Self, Errno> {
        // SEM_FAILED is null in glibc and musl.
        NonNull::new(found).map(Self).ok_or_else(last_errno)
    }

    /// sem_post(3).
    pub(crate) fn post(&self) -> Result<(), Errno> {
        // SAFETY: `self` owns an open semaphore.
        done(unsafe { libc::sem_post(self.0.as_ptr()) })
    }

    /// sem_trywait(3).
    pub(crate) fn try_wait(&self) -> Result<(), Errno> {
        // SAFETY: `self` owns an open semaphore.
        done(unsafe { libc::sem_trywait(self.0.as_ptr()) })
    }

    /// sem_clockwait(3) on the monotonic clock, or sem_timedwait(3) where the C library lacks that.
    pub(crate) fn wait_for(&self, time: Duration) -> Result<(), Errno> {
        let Some(clock_wait) = clock_wait() else {
            let until = later(ClockId::Realtime, time);
            // SAFETY: `self` owns an open semaphore; `until` is an initialised value on this stack.
            return done(unsafe { libc::sem_timedwait(self.0.as_ptr(), &raw const until) });
        };
        let until = later(ClockId::Monotonic, time);
        // SAFETY: as above; the symbol has the type that its man page gives.
        done(unsafe { clock_wait(self.0.as_ptr(), libc::CLOCK_MONOTONIC, &raw const until) })
    }

    /// sem_getvalue(3).
    pub(crate) fn value(&self) -> Result<i32, Errno> {
        let mut value = MaybeUninit::uninit();
        // SAFETY: `self` owns an open semaphore; `value` is writable.
        done(unsafe { libc::sem_getvalue(self.0.as_ptr(), value.as_mut_ptr()) })?;
        // SAFETY: filled in by the call above, which succeeded.
        Ok(unsafe { value.assume_init() })
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // SAFETY: `self` owns an open semaphore, and is not used any more.
        unsafe { libc::sem_close(self.0.as_ptr()) };
    }
}

/// sem_unlink(3).
pub(crate) fn unlink(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the name ends with a NUL.
    done(unsafe { libc::sem_unlink(name.as_ptr()) })
}

fn done(result: c_int) -> Result<(), Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

type ClockWait = unsafe extern "C" fn(*mut sem_t, clockid_t, *const timespec) -> c_int;

/// glibc has it since 2.30, musl does not.
fn clock_wait() -> Option<ClockWait> {
    static FOUND: OnceLock<Option<ClockWait>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: the name ends with a NUL; RTLD_DEFAULT is null and looks in what is loaded.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"sem_clockwait".as_ptr()) };
        // SAFETY: null becomes None; otherwise it is the function of that name, which has this type in every C library
        // that has it.
        unsafe { std::mem::transmute::<*mut c_void, Option<ClockWait>>(symbol) }
    })
}

/// The point of `clock` that is `time` from now.
fn later(clock: ClockId, time: Duration) -> timespec {
    let now = clock_gettime(clock);
    let nanoseconds = now.tv_nsec + i64::from(time.subsec_nanos());
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_add(nanoseconds / 1_000_000_000);
    // SAFETY: timespec is made of integers (and padding of such), for which zero is a value.
    let mut point: timespec = unsafe { MaybeUninit::zeroed().assume_init() };
    point.tv_sec = now.tv_sec.saturating_add(seconds);
    point.tv_nsec = nanoseconds % 1_000_000_000;
    point
}
