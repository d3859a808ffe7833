//! Threads that take no signals of the program.
//!
//! # Safety
//!
//! The function works on the calling thread's signal mask only, through sets that live on its own stack.
#![expect(unsafe_code, reason = "rustix has no pthread_sigmask")]

use std::mem::MaybeUninit;
use std::ptr;

/// Runs `work` with all signals blocked in this thread: a thread that it starts begins that way, and stays so.
pub(crate) fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: sigfillset initialises the set that it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` is an initialised set; `before` is writable and as large as the kernel's answer.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let result = work();
    // SAFETY: initialised by the call above, which cannot fail with SIG_SETMASK and valid pointers.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}
