//! How often this process has called fork(2): what its children got a copy of must not be changed under them.
//!
//! It is counted by handlers of pthread_atfork(3), before the child is there, and after. Children made without the C library's fork, as
//! posix_spawn(3) makes them, which execute a program at once, are not counted, and need not be. Nor are those of a bare _Fork(3) or
//! clone(2), which may call nothing of this library.
//!
//! # Safety
//!
//! The handlers do nothing but change atomics.
#![expect(unsafe_code, reason = "installs a handler that the C library calls")]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);
/// What has become of the handler. In a child of a fork in the middle of it that stays as it is.
static HANDLER: AtomicU32 = AtomicU32::new(NONE);

const NONE: u32 = 0;
const UNDER_WAY: u32 = 1;
const INSTALLED: u32 = 2;

/// How often, since it was asked for the first time; `None` when they cannot be counted, or not now: what is made while a fork is under way
/// may be in the child too.
pub(crate) fn forks() -> Option<u64> {
    if HANDLER.load(Ordering::Acquire) != INSTALLED && !install() {
        return None;
    }
    let ended = ENDED.load(Ordering::SeqCst);
    (begun() == ended).then_some(ended)
}

/// Whether a fork has begun since [`forks`] said so.
pub(crate) fn has_forked_since(forks: u64) -> bool {
    begun() != forks
}

fn begun() -> u64 {
    // SeqCst: whoever reads it after a fork has begun, by whatever the two threads have done since, sees it counted.
    BEGUN.load(Ordering::SeqCst)
}

/// Without a lock, which a child might find locked.
#[cold]
fn install() -> bool {
    if HANDLER.compare_exchange(NONE, UNDER_WAY, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return HANDLER.load(Ordering::Acquire) == INSTALLED;
    }
    // SAFETY: functions that are there for good, and may be called at any time.
    let refusal = unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) };
    HANDLER.store(if refusal == 0 { INSTALLED } else { NONE }, Ordering::Release);
    refusal == 0
}

unsafe extern "C" fn before_fork() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
}

unsafe extern "C" fn after_fork() {
    ENDED.fetch_add(1, Ordering::SeqCst);
}

/// Those that other threads of the parent had begun never end here.
unsafe extern "C" fn in_child() {
    ENDED.store(begun(), Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests of this process may be in a fork at any time.
    fn between_forks() -> u64 {
        (0..).find_map(|_| forks()).unwrap()
    }

    #[test]
    fn a_fork_is_counted_in_both_processes() {
        let before = between_forks();
        // SAFETY: the child calls nothing but what reads atomics, and `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let is_counted = has_forked_since(before) && forks().is_some_and(|now| now > before);
            // SAFETY: ends this process.
            unsafe { libc::_exit(i32::from(!is_counted)) };
        }
        assert!(child > 0 && has_forked_since(before) && between_forks() > before);
        let pid = rustix::process::Pid::from_raw(child);
        let (_, status) = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
    }

    #[test]
    fn what_is_made_while_a_fork_is_under_way_is_not_said_to_be_after_it() {
        let before = between_forks();
        // SAFETY: as by a fork, they change atomics.
        unsafe { before_fork() };
        assert!(forks().is_none() && has_forked_since(before));
        // SAFETY: as above.
        unsafe { after_fork() };
        assert!(between_forks() > before);
    }
}
