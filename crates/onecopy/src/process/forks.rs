//! How often this process has called fork(2): what its children got a copy of must not be changed under them.
//!
//! It is counted by a handler of pthread_atfork(3), before the child is there. Children made without the C library's fork, as
//! posix_spawn(3) makes them, which execute a program at once, are not counted, and need not be.
//!
//! # Safety
//!
//! The handler does nothing but change an atomic.
#![expect(unsafe_code, reason = "installs a handler that the C library calls")]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

static FORKS: AtomicU64 = AtomicU64::new(0);
/// What has become of the handler. In a child of a fork in the middle of it that stays as it is.
static HANDLER: AtomicU32 = AtomicU32::new(NONE);

const NONE: u32 = 0;
const UNDER_WAY: u32 = 1;
const INSTALLED: u32 = 2;

/// How often, since it was asked for the first time; `None` when they cannot be counted, or not yet.
pub(crate) fn forks() -> Option<u64> {
    if HANDLER.load(Ordering::Acquire) != INSTALLED && !install() {
        return None;
    }
    // SeqCst: whoever reads it after a fork has begun, by whatever the two threads have done since, sees it counted.
    Some(FORKS.load(Ordering::SeqCst))
}

/// Without a lock, which a child might find locked.
#[cold]
fn install() -> bool {
    if HANDLER.compare_exchange(NONE, UNDER_WAY, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return HANDLER.load(Ordering::Acquire) == INSTALLED;
    }
    // SAFETY: a function that is there for good, and may be called at any time.
    let refusal = unsafe { libc::pthread_atfork(Some(before_fork), None, None) };
    HANDLER.store(if refusal == 0 { INSTALLED } else { NONE }, Ordering::Release);
    refusal == 0
}

unsafe extern "C" fn before_fork() {
    FORKS.fetch_add(1, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_is_counted() {
        let before = forks().unwrap();
        // SAFETY: the child calls nothing but `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends this process.
            unsafe { libc::_exit(0) };
        }
        assert!(child > 0 && forks().unwrap() > before);
        rustix::process::waitpid(rustix::process::Pid::from_raw(child), rustix::process::WaitOptions::empty()).unwrap();
    }
}
