//! The pages of one buffer: put in at addresses that were reserved for them, warm, and taken out again.
//!
//! # Safety
//!
//! [`Pages`] is the only owner of its range of addresses. That goes back to where others get it only when the pages were never
//! written by a peer, or cannot be any more.
#![expect(unsafe_code, reason = "puts pages into reserved addresses, and takes them out")]

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect};

use super::addresses::{self, Addresses};
use crate::{Error, Result};

pub(super) const PAGE_BYTES: usize = 4096;
/// A huge page of x86-64, and of aarch64 with small pages of 4 KiB.
pub(crate) const HUGE_BYTES: usize = 2 << 20;
/// From `asm-generic/mman-common.h` of Linux 6.1.
const MADV_COLLAPSE: libc::c_int = 25;

/// The number of bytes mapped for `len` of them: in steps of an eighth, so that buffers of about the same size can follow each
/// other; `None` is more than an address space holds.
pub(super) fn capacity_for(len: usize) -> Option<usize> {
    let step = (len.checked_next_power_of_two()? / 8).max(PAGE_BYTES);
    // A power of two: no division.
    let bytes = len.max(1).checked_add(step - 1)? & !(step - 1);
    (bytes <= isize::MAX as usize).then_some(bytes)
}

/// Readable and writable pages.
#[derive(Debug)]
pub(crate) struct Pages {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Pages` is its only owner.
unsafe impl Send for Pages {}
// SAFETY: through a shared reference nothing can be reached but the address.
unsafe impl Sync for Pages {}

impl Pages {
    /// New zeros for `len` bytes, all of them there.
    pub(super) fn map(len: usize) -> Result<Self> {
        let failed = |errno: Errno| Error::os("mmap", format!("a buffer of {len} bytes"), errno);
        let bytes = capacity_for(len).ok_or_else(|| failed(Errno::NOMEM))?;
        let pages = Self::put_in(bytes).map_err(failed)?;
        // A refusal costs speed only.
        let _ = pages.warm_up();
        Ok(pages)
    }

    /// The first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How many there are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first `bytes` of a memfd, which others may map as well.
    pub(in crate::memory) fn share(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self, Errno> {
        let range = range_for(bytes).ok_or(Errno::NOMEM)?;
        let base = addresses_for(bytes, |addresses| addresses.take(range))?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
        // SAFETY: addresses that were reserved, and are this caller's alone since `take`; what is there now, nobody can access.
        // After a refusal they may be anybody's, and are not given back.
        unsafe { mmap(base.as_ptr().cast(), bytes, protection, flags, fd, 0) }?;
        Ok(Self { base, bytes })
    }

    fn put_in(bytes: usize) -> Result<Self, Errno> {
        let range = range_for(bytes).ok_or(Errno::NOMEM)?;
        let base = addresses_for(bytes, |addresses| addresses.take(range))?;
        // SAFETY: addresses that were reserved, and are this caller's alone since `take`; what is there now, nobody can access.
        // A refusal, for want of memory, changes nothing.
        let allowed = unsafe { mprotect(base.as_ptr().cast(), bytes, MprotectFlags::READ | MprotectFlags::WRITE) };
        match allowed {
            Ok(()) => Ok(Self { base, bytes }),
            Err(errno) => {
                addresses_for(bytes, |addresses| addresses.give(base, range));
                Err(errno)
            }
        }
    }

    /// Has the kernel provide all pages, huge ones where it can; fails where there is no memory for them.
    pub(in crate::memory) fn warm_up(&self) -> Result<(), Errno> {
        if self.bytes >= HUGE_BYTES {
            // Refusals cost speed only.
            let _ = self.advise(0..self.bytes, Advice::LinuxHugepage);
            self.collapse();
        }
        match self.advise(0..self.bytes, Advice::LinuxPopulateWrite) {
            // Before Linux 5.14 the first use takes them.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(Errno::FAULT) => Err(Errno::NOMEM),
            Err(errno) => Err(errno),
        }
    }

    /// Asks for huge pages where the setting of the machine keeps them away, as it usually does for shared memory: madvise(2) with
    /// MADV_COLLAPSE (Linux 6.1). It makes one out of the pages that are there, or of one: 0.06 ms for each MiB where it takes 1.0 out of all.
    fn collapse(&self) {
        for start in (0..self.bytes / HUGE_BYTES).map(|index| index * HUGE_BYTES) {
            let _ = self.advise(start..start + rustix::param::page_size(), Advice::LinuxPopulateWrite);
        }
        // SAFETY: the mapping that `self` owns; its contents stay as they are. A refusal costs speed only.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.bytes, MADV_COLLAPSE) };
    }

    fn advise(&self, range: Range<usize>, advice: Advice) -> Result<(), Errno> {
        // SAFETY: callers name whole pages within the mapping.
        let start = unsafe { self.base.add(range.start) };
        // SAFETY: the mapping that `self` owns and nobody uses yet; no advice that is given here changes what it contains.
        unsafe { madvise(start.as_ptr().cast(), range.len(), advice) }
    }

    /// Gives the pages back and the addresses never, so that nothing else is ever mapped there.
    pub(crate) fn retire(self) {
        take_out(self.base, self.range());
        if let Some((base, bytes)) = addresses_for(self.bytes, |addresses| addresses.retire(self.base, self.range())) {
            take_out(base, bytes);
        }
        std::mem::forget(self);
    }

    /// How many addresses it has.
    fn range(&self) -> usize {
        range_for(self.bytes).expect("it was computed when the pages were put in")
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if take_out(self.base, self.range()) {
            addresses_for(self.bytes, |addresses| addresses.give(self.base, self.range()));
        }
    }
}

/// Makes of pages what was there before them: addresses that nobody can access. False when there is no memory left even for that;
/// the addresses must not be used again then.
pub(super) fn take_out(base: NonNull<u8>, bytes: usize) -> bool {
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: replaces what was mapped in a range of `Addresses` that is this caller's, or nobody's any more.
    let replaced = unsafe { mmap_anonymous(base.as_ptr().cast(), bytes, ProtFlags::empty(), flags) };
    if replaced.is_err() {
        // SAFETY: as above; if pages come there again, by a late write, they are nobody's.
        let _ = unsafe { madvise(base.as_ptr().cast(), bytes, Advice::LinuxDontNeed) };
    }
    replaced.is_ok()
}

/// How many addresses are taken for that many bytes.
fn range_for(bytes: usize) -> Option<usize> {
    let unit = if bytes < HUGE_BYTES { rustix::param::page_size() } else { HUGE_BYTES };
    bytes.checked_next_multiple_of(unit)
}

/// Those that begin where a huge page can, if there is room for one.
fn addresses_for<T>(bytes: usize, work: impl FnOnce(&mut Addresses) -> T) -> T {
    let addresses = if bytes < HUGE_BYTES { &addresses::SMALL } else { &addresses::LARGE };
    work(&mut addresses.lock())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_wastes_an_eighth_at_most() {
        for len in [1, 5000, 33_000, 100_000, 1 << 20, (1 << 20) + 1, 50 << 20] {
            let capacity = capacity_for(len).unwrap();
            assert!(capacity >= len && capacity.is_multiple_of(PAGE_BYTES));
            assert!(capacity - len < (len / 4).max(PAGE_BYTES), "{len}: {capacity}");
        }
    }
}
