//! Reserved addresses, at which buffers come and go.
//!
//! A retired buffer keeps its addresses for good. Strewn over the address space each would stay a mapping of its own, and a
//! process may have 65,530 of them (`vm.max_map_count`). Side by side in one reservation, all that nobody can access is one
//! mapping to the kernel: what is retired, what is free, and what was never used.
//!
//! # Safety
//!
//! A range is either free here or somebody's, never both. Free ranges are mapped without access, so the kernel gives their
//! addresses to nobody else.
#![expect(unsafe_code, reason = "reserves addresses")]

use std::collections::BTreeMap;
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::pages::HUGE_BYTES;
use crate::process::ProcessLock;

/// For ranges of whole pages.
pub(super) static SMALL: ProcessLock<Addresses> = ProcessLock::with(|| Addresses::new(1, 64 << 20));
/// For ranges of whole huge pages.
pub(super) static LARGE: ProcessLock<Addresses> = ProcessLock::with(|| Addresses::new(HUGE_BYTES, 1 << 30));

/// Addresses by the range, all of which begin at a multiple of the same number and are multiples of it long.
pub(super) struct Addresses {
    /// Where each range begins, if the kernel does not see to it: 1 is a page.
    alignment: usize,
    /// How much is reserved at a time.
    chunk_bytes: usize,
    free: Ranges,
    /// What nobody will ever have again.
    retired: Ranges,
}

/// The length of each range by its first address. No two of them touch.
type Ranges = BTreeMap<usize, usize>;

impl Addresses {
    fn new(alignment: usize, chunk_bytes: usize) -> Self {
        Self { alignment, chunk_bytes, free: Ranges::new(), retired: Ranges::new() }
    }

    /// A range of `bytes` addresses that nobody else has, mapped without access.
    pub(super) fn take(&mut self, bytes: usize) -> Result<NonNull<u8>, Errno> {
        if let Some(base) = self.cut(bytes) {
            return Ok(base);
        }
        // The second for where addresses are limited, by RLIMIT_AS.
        self.reserve(bytes.max(self.chunk_bytes)).or_else(|_| self.reserve(bytes))?;
        self.cut(bytes).ok_or(Errno::NOMEM)
    }

    /// Takes a range back, which is mapped without access again.
    pub(super) fn give(&mut self, base: NonNull<u8>, bytes: usize) {
        add(&mut self.free, base.as_ptr().addr(), bytes);
    }

    /// Takes a range back for good, which is mapped without access. Returns the first address and the length of all blocks of
    /// [`HUGE_BYTES`] of which it was the last part: as one they lose the page table that the kernel kept for the other parts.
    pub(super) fn retire(&mut self, base: NonNull<u8>, bytes: usize) -> Option<(NonNull<u8>, usize)> {
        let start = base.as_ptr().addr();
        let (first, length) = add(&mut self.retired, start, bytes);
        let low = first.next_multiple_of(HUGE_BYTES).max(start / HUGE_BYTES * HUGE_BYTES);
        let high = ((first + length) / HUGE_BYTES * HUGE_BYTES).min((start + bytes).next_multiple_of(HUGE_BYTES));
        let base = NonNull::new(ptr::with_exposed_provenance_mut(low))?;
        (low < high).then(|| (base, high - low))
    }

    /// The first `bytes` of the lowest range that has so many.
    fn cut(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let (&start, &length) = self.free.iter().find(|(_, length)| **length >= bytes)?;
        self.free.remove(&start);
        if length > bytes {
            self.free.insert(start + bytes, length - bytes);
        }
        NonNull::new(ptr::with_exposed_provenance_mut(start))
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), Errno> {
        let slack = self.alignment - 1;
        let total = bytes.checked_add(slack).ok_or(Errno::NOMEM)?;
        // Without MAP_NORESERVE: what cannot be written is not counted as memory, what is made writable later then is.
        // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), total, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let start: *mut u8 = start.cast();
        start.expose_provenance();
        let total = total.next_multiple_of(rustix::param::page_size());
        let head = start.align_offset(self.alignment);
        // SAFETY: an alignment is reached within `slack` bytes, and the mapping is longer.
        let base = unsafe { start.add(head) };
        // SAFETY: `head <= slack`, so `bytes` follow.
        let end = unsafe { base.add(bytes) };
        unmap(start, head);
        unmap(end, total - head - bytes);
        self.give(NonNull::new(base).expect("mmap with a null hint never maps address 0"), bytes);
        Ok(())
    }
}

/// Adds a range that touches no other, or makes one of those that it touches. Returns what it belongs to.
fn add(ranges: &mut Ranges, mut start: usize, mut bytes: usize) -> (usize, usize) {
    if let Some(above) = ranges.remove(&(start + bytes)) {
        bytes += above;
    }
    if let Some((&below, &length)) = ranges.range(..start).next_back()
        && below + length == start
    {
        (start, bytes) = (below, length + bytes);
    }
    ranges.insert(start, bytes);
    (start, bytes)
}

/// Unmaps what was reserved too much.
fn unmap(base: *mut u8, bytes: usize) {
    if bytes > 0 {
        // SAFETY: whole pages of a mapping that was just made and nobody uses. A refusal costs addresses only.
        let _ = unsafe { munmap(base.cast(), bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap_and_grow_together_again() {
        let mut addresses = Addresses::new(HUGE_BYTES, 8 * HUGE_BYTES);
        let taken: Vec<NonNull<u8>> = (0..8).map(|_| addresses.take(HUGE_BYTES).unwrap()).collect();
        for (index, base) in taken.iter().enumerate() {
            assert_eq!(base.as_ptr().addr(), taken[0].as_ptr().addr() + index * HUGE_BYTES);
            assert_eq!(base.as_ptr().addr() % HUGE_BYTES, 0);
        }
        assert!(addresses.free.is_empty());
        for index in [3, 5, 4, 0, 7, 1, 2, 6] {
            addresses.give(taken[index], HUGE_BYTES);
        }
        let whole = Ranges::from([(taken[0].as_ptr().addr(), 8 * HUGE_BYTES)]);
        assert_eq!(addresses.free, whole);
        assert_eq!(addresses.take(3 * HUGE_BYTES).unwrap(), taken[0]);
        assert_eq!(addresses.take(5 * HUGE_BYTES).unwrap(), taken[3]);
        assert!(addresses.take(9 * HUGE_BYTES).is_ok(), "more than a chunk");
        assert_eq!(addresses.take(1 << 62), Err(Errno::NOMEM));
    }

    #[test]
    fn blocks_are_told_when_their_last_part_is_retired() {
        let mut addresses = Addresses::new(1, 1 << 20);
        let base = NonNull::new(ptr::without_provenance_mut::<u8>(10 * HUGE_BYTES)).unwrap();
        let mut retire = |start: usize, bytes| {
            let place = base.map_addr(|address| address.checked_add(start).unwrap());
            addresses.retire(place, bytes).map(|(first, bytes)| (first.addr().get() - 10 * HUGE_BYTES, bytes))
        };
        assert_eq!(retire(4096, HUGE_BYTES - 4096), None);
        assert_eq!(retire(HUGE_BYTES + 8192, 2 * HUGE_BYTES), Some((2 * HUGE_BYTES, HUGE_BYTES)));
        assert_eq!(retire(HUGE_BYTES, 8192), Some((HUGE_BYTES, HUGE_BYTES)), "not again what was told before");
        assert_eq!(retire(0, 4096), Some((0, HUGE_BYTES)));
        assert_eq!(retire(3 * HUGE_BYTES + 8192, 4096), None);
    }
}
