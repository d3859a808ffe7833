//! [get_robust_list(2)](https://man7.org/linux/man-pages/man2/get_robust_list.2.html): a list of words that the kernel marks when a
//! thread ends.
//!
//! Each entry is a word with the address of the next one, the last one's is that of the head. At a fixed distance from each lies the
//! word that is to be marked. When the thread ends, however it does, the kernel goes through the first 2048 and sets
//! [`OWNER_DIED`](rustix::thread::futex::OWNER_DIED) in each word that holds the thread's id, and wakes one who waits for it if
//! [`WAITERS`](rustix::thread::futex::WAITERS) is set there. That comes before the process's memory is taken apart.
//!
//! # Safety
//!
//! The kernel reads the head and the entries when the thread has ended, by checked accesses: an address where nothing is ends the walk.
//! It changes words that hold the id of that thread and nothing else.
#![expect(unsafe_code, reason = "neither rustix nor nix has set_robust_list")]

use std::ffi::c_long;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::thread::gettid;

use super::last_errno;

/// `struct robust_list_head`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Head {
    first: AtomicUsize,
    futex_offset: c_long,
    list_op_pending: AtomicUsize,
}

impl Head {
    /// An empty list, whose words lie `futex_offset` behind the entries. It stays for good: the kernel looks at it in the end.
    pub(crate) fn new(futex_offset: c_long) -> &'static Self {
        let head = Self { first: AtomicUsize::new(0), futex_offset, list_op_pending: AtomicUsize::new(0) };
        let head: &Self = Box::leak(Box::new(head));
        head.first.store(head.address(), Ordering::Relaxed);
        head
    }

    /// What the last entry holds.
    pub(crate) fn address(&self) -> usize {
        ptr::from_ref(self).expose_provenance()
    }

    /// The address of the first entry.
    pub(crate) fn first(&self) -> &AtomicUsize {
        &self.first
    }

    /// Makes this the list of the calling thread, in place of that of the C library, which has its robust mutexes there. Returns the id
    /// of the thread.
    pub(crate) fn register(&'static self) -> Result<u32, Errno> {
        // SAFETY: a head of this length that stays for good, which the kernel reads; see above for what it does with it.
        let result = unsafe { libc::syscall(libc::SYS_set_robust_list, ptr::from_ref(self), size_of::<Self>()) };
        if result == 0 { Ok(gettid().as_raw_nonzero().get().cast_unsigned()) } else { Err(last_errno()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use rustix::thread::futex::{OWNER_DIED, WAITERS};

    use super::*;

    /// `ROBUST_LIST_LIMIT` of linux/futex.h.
    const MOST_ENTRIES: usize = 2048;

    /// An entry, and the word behind it.
    #[repr(C)]
    struct Entry {
        next: AtomicUsize,
        word: AtomicU32,
    }

    #[test]
    fn the_words_of_a_thread_that_has_ended_are_marked_and_no_others() {
        let entries: Vec<Entry> =
            (0..MOST_ENTRIES + 2).map(|_| Entry { next: AtomicUsize::new(0), word: AtomicU32::new(0) }).collect();
        let head = Head::new(std::mem::offset_of!(Entry, word) as c_long);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let id = head.register().unwrap();
                let mut next = head.address();
                for (index, entry) in entries.iter().enumerate().rev() {
                    entry.word.store(if index == 1 { id + 1 } else { id | WAITERS }, Ordering::Relaxed);
                    entry.next.store(next, Ordering::Relaxed);
                    next = ptr::from_ref(entry).expose_provenance();
                }
                head.first().store(next, Ordering::Relaxed);
            });
            // A scope ends before its threads do.
            thread.join().unwrap();
        });
        let is_marked = |index: usize| entries[index].word.load(Ordering::Relaxed) & OWNER_DIED != 0;
        assert!(is_marked(0) && !is_marked(1) && is_marked(2));
        assert!(is_marked(MOST_ENTRIES - 1) && !is_marked(MOST_ENTRIES + 1));
    }
}
