//! The number of this process, without the system call that tells it: 260 ns where a lock takes 20.
//!
//! It is kept in a page that a child made by fork(2) finds wiped, madvise(2) with MADV_WIPEONFORK (Linux 4.14).
//!
//! # Safety
//!
//! The page is never unmapped once it was published, and a word of it is zeros at first, or the number.
#![expect(unsafe_code, reason = "keeps a number in a page that is wiped in children")]

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// Where the number is kept; a child has its parent's, at the same place.
static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
/// Whether the kernel wipes no pages.
static IS_OLD: AtomicBool = AtomicBool::new(false);

/// As [`std::process::id`].
#[inline]
pub(crate) fn own_id() -> u32 {
    // SAFETY: null, or a word that is there for good.
    match unsafe { WORD.load(Ordering::Acquire).as_ref() } {
        // Relaxed: the kernel wiped it before the child could run, and all threads of a process write the same.
        Some(word) => match word.load(Ordering::Relaxed) {
            0 => note(word),
            id => id,
        },
        None => begin(),
    }
}

/// Without a lock, which a child might find locked. Where several threads come here, all but one make a page in vain.
#[cold]
fn begin() -> u32 {
    if !IS_OLD.load(Ordering::Relaxed) {
        match wiped_word() {
            Ok(word) => {
                let word = ptr::from_ref(word).cast_mut();
                let _ = WORD.compare_exchange(ptr::null_mut(), word, Ordering::AcqRel, Ordering::Relaxed);
            }
            Err(_) => IS_OLD.store(true, Ordering::Relaxed),
        }
    }
    std::process::id()
}

#[cold]
fn note(word: &AtomicU32) -> u32 {
    let id = std::process::id();
    word.store(id, Ordering::Relaxed);
    id
}

fn wiped_word() -> Result<&'static AtomicU32, Errno> {
    let (bytes, protection) = (rustix::param::page_size(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
    let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, MapFlags::PRIVATE) }?;
    // SAFETY: the mapping made above, which nobody uses yet. After a refusal it stays.
    unsafe { madvise(base, bytes, Advice::LinuxWipeOnFork) }?;
    // SAFETY: page-aligned zeros, longer than a word, valid for atomics, that are never unmapped.
    Ok(unsafe { &*base.cast::<AtomicU32>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_kernel_says() {
        for _ in 0..2 {
            assert_eq!(own_id(), std::process::id());
        }
    }
}
