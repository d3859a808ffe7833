//! What [futex_waitv(2)](https://man7.org/linux/man-pages/man2/futex_waitv.2.html) takes a list of.

use std::sync::atomic::AtomicU32;

use rustix::thread::futex::{Wait, WaitFlags, WaitPtr};

/// To be woken by `word` while that is `value`. Who sleeps by it has `word` borrowed until then.
pub(crate) fn waiter(word: &AtomicU32, value: u32, flags: WaitFlags) -> Wait {
    let mut waiter = Wait::new();
    waiter.val = value.into();
    waiter.uaddr = WaitPtr::new(word.as_ptr().cast());
    waiter.flags = WaitFlags::SIZE_U32 | flags;
    waiter
}
