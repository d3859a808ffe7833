//! How many mutexes a thread holds.
//!
//! When it ends, the kernel goes through a list of them, so that the next owners are told: through the last 2048, and the others
//! stay locked for ever.
//!
//! # Safety
//!
//! The handler runs in the child of a fork, and changes a word of its only thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// `ROBUST_LIST_LIMIT` of linux/futex.h.
pub(super) const MOST: u32 = 2048;

thread_local! {
    static HELD: Cell<u32> = const { Cell::new(0) };
}

#[inline]
pub(super) fn held() -> u32 {
    HELD.get()
}

#[inline]
pub(super) fn note_locked() {
    HELD.set(HELD.get() + 1);
}

/// Not for what a child of a fork fails to unlock, since its parent holds it.
#[inline]
pub(super) fn note_unlocked() {
    HELD.set(HELD.get().saturating_sub(1));
}

/// Has children begin at 0: they hold nothing that their parent does. It comes before the first mutex.
pub(super) fn watch_forks() {
    static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
    // Relaxed: nothing else depends on it, and without the handler a child refuses too early.
    if !IS_INSTALLED.swap(true, Ordering::Relaxed) {
        // SAFETY: the function is there for as long as the process; see above for what it does.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
}

extern "C" fn in_child() {
    HELD.set(0);
}
