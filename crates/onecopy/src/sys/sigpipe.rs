//! Writing without SIGPIPE on kernels before 6.18, which lack `RWF_NOSIGNAL`.
//!
//! # Safety
//!
//! The functions work on the calling thread's signal mask only, through pointers to sets that live on their own stack.
#![expect(unsafe_code, reason = "rustix and nix have neither sigpending nor sigtimedwait")]

use std::mem::MaybeUninit;
use std::ptr;

/// Runs `write` with SIGPIPE blocked in this thread, and takes back a SIGPIPE that it raised.
///
/// The signal of a failed write is sent to the writing thread itself (pipe(7)), so nobody else can receive it meanwhile.
/// One that was already pending stays pending.
pub(crate) fn without_sigpipe<T>(write: impl FnOnce() -> T) -> T {
    let sigpipe = only_sigpipe();
    let was_pending = is_pending();
    let mut before = MaybeUninit::uninit();
    // SAFETY: `sigpipe` is an initialised set; `before` is writable and as large as the kernel's answer.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const sigpipe, before.as_mut_ptr()) };
    let result = write();
    if !was_pending && is_pending() {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `sigpipe` and `at_once` are initialised; a null info pointer is allowed (sigtimedwait(2)).
        unsafe { libc::sigtimedwait(&raw const sigpipe, ptr::null_mut(), &raw const at_once) };
    }
    // SAFETY: the first pthread_sigmask call above initialised `before`; it cannot fail with SIG_BLOCK and valid pointers.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}

fn only_sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised by the call above; SIGPIPE is a valid signal number.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE) };
    // SAFETY: initialised by sigemptyset.
    unsafe { set.assume_init() }
}

fn is_pending() -> bool {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigpending fills in the set that it is given.
    unsafe { libc::sigpending(set.as_mut_ptr()) };
    // SAFETY: initialised by sigpending, which cannot fail with a valid pointer.
    unsafe { libc::sigismember(set.as_ptr(), libc::SIGPIPE) == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_sigpipe_is_taken_back() {
        let mut info = MaybeUninit::uninit();
        without_sigpipe(|| {
            // SAFETY: raise has no preconditions; the signal is blocked while this closure runs.
            unsafe { libc::raise(libc::SIGPIPE) };
            assert!(is_pending());
        });
        assert!(!is_pending());
        // SAFETY: a null set asks for the mask without changing it.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), info.as_mut_ptr()) };
        // SAFETY: initialised by the call above.
        assert_eq!(unsafe { libc::sigismember(info.as_ptr(), libc::SIGPIPE) }, 0);
    }
}
