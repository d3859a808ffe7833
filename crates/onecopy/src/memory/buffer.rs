//! Page-aligned memory that the library owns: warm, and on huge pages where the kernel gives them.
//!
//! A first touch of new memory is a page fault, and faults cost more than the copy: 16 MiB into new memory went at 3.2 GB/s
//! where warm memory took 11.4. So all pages of a [`Buffer`] are there from the start, and when it is dropped they are kept
//! for the next one, up to [`pool_limit_bytes`].
//!
//! Huge pages make the kernel's copy by cross-memory attach two times as fast where it is the other process's memory that lies on
//! them, since the kernel looks up and pins each of its pages: 9.4 GB/s where small ones took 5.3, and 28 for 14 where the bytes are in
//! the cache. So they are asked for from 64 KiB on: with MADV_HUGEPAGE, which the kernel heeds unless its setting is `never`, and
//! with MADV_COLLAPSE (Linux 6.1), which works whatever the setting. Without either the pages are small ones. Buffers that are shorter
//! than a huge page share one: it stays as a whole for as long as one of them is there.
//!
//! A child made by fork has the pool of its parent, or begins with none where another thread of that was using it just then; so with
//! the addresses. What it cannot find there stays mapped, of no use.
//!
//! # Safety
//!
//! A [`Buffer`] is the only owner of its pages. Its bytes are reached through it alone, by the rules of references. A buffer
//! that a peer may write belongs to a [`WriteWindow`](super::window::WriteWindow), which hands out no references and never
//! gives it back to the pool.
#![expect(unsafe_code, reason = "lends out memory")]

mod addresses;
mod blocks;
mod pages;
mod spare;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use blocks::{Blocks, Part, Unused, units_for};
use pages::capacity_for;
pub(crate) use pages::{HUGE_BYTES, Pages};

use crate::Result;
use crate::process::ProcessLock;

/// How many buffers are kept at most: each is looked at when one is asked for.
const KEPT_BUFFERS: usize = 64;

/// How much memory the pool keeps, in bytes.
static LIMIT_BYTES: AtomicUsize = AtomicUsize::new(64 << 20);
static POOL: ProcessLock<Pool> = ProcessLock::with(Pool::new);

/// Page-aligned bytes that belong to this process alone until they are exposed by a [`window`](super::window).
///
/// ```
/// use onecopy::memory::buffer::Buffer;
///
/// let mut buffer = Buffer::zeroed(100_000)?;
/// assert_eq!(buffer.as_ptr().addr() % 4096, 0);
/// buffer[..5].copy_from_slice(b"hello");
/// assert_eq!((buffer.len(), &buffer[..5]), (100_000, &b"hello"[..]));
/// # Ok::<(), onecopy::Error>(())
/// ```
pub struct Buffer {
    /// `None` once it was given away.
    memory: Option<Memory>,
    len: usize,
}

/// What a buffer is made of.
#[derive(Debug)]
enum Memory {
    Pages(Pages),
    Part(Part),
}

impl Memory {
    /// Memory for `len` bytes, and whether it is zeros.
    fn take(len: usize) -> Result<(Self, bool)> {
        if let Some(part) = units_for(len).and_then(share) {
            return Ok((Self::Part(part), false));
        }
        let kept = |wanted| spare::take(wanted).or_else(|| pool(|pool| pool.take(wanted)));
        match capacity_for(len).and_then(kept) {
            Some(pages) => Ok((Self::Pages(pages), false)),
            None => Ok((Self::Pages(Pages::map(len)?), true)),
        }
    }

    fn base(&self) -> NonNull<u8> {
        match self {
            Self::Pages(pages) => pages.base(),
            Self::Part(part) => part.base(),
        }
    }

    fn give_back(self) {
        match self {
            // What does not fit the pool is unmapped here, outside of the lock.
            Self::Pages(pages) => {
                drop(spare::keep(pages).map(|pages| pool(|pool| pool.keep(pages, pool_limit_bytes()))))
            }
            Self::Part(part) => give_part(&part, false),
        }
    }

    fn retire(self) {
        match self {
            Self::Pages(pages) => pages.retire(),
            Self::Part(part) => {
                part.take_out();
                give_part(&part, true);
            }
        }
    }
}

/// A part of a block that has room, of one that is kept, or of a new one, if there is memory for that.
fn share(units: u32) -> Option<Part> {
    pool(|pool| pool.share(units)).or_else(|| {
        // Outside of the lock: it takes a while.
        let block = Pages::map(HUGE_BYTES).ok()?;
        Some(pool(|pool| pool.share_new(block, units)))
    })
}

/// Gives a part back to its block, and that to the pool when nobody uses it.
fn give_part(part: &Part, is_retired: bool) {
    let (surplus, torn) = pool(|pool| match pool.blocks.give(part, is_retired) {
        None => (Vec::new(), None),
        Some(Unused::Whole(pages)) => (pool.keep(pages, pool_limit_bytes()), None),
        Some(Unused::Torn(pages)) => (Vec::new(), Some(pages)),
    });
    torn.into_iter().for_each(Pages::retire);
    drop(surplus);
}

impl Buffer {
    /// A buffer of `len` zeros. It may be empty.
    ///
    /// # Errors
    ///
    /// ENOMEM with the length, when there is no memory or no room for another mapping.
    pub fn zeroed(len: usize) -> Result<Self> {
        let (memory, is_zeros) = Memory::take(len)?;
        let mut buffer = Self { memory: Some(memory), len };
        if !is_zeros {
            buffer.fill(0);
        }
        Ok(buffer)
    }

    /// A buffer of `len` bytes that holds anything: zeros, or what an earlier buffer of this process held. For what will be
    /// overwritten at once, this saves a pass over the memory.
    ///
    /// # Errors
    ///
    /// As [`Buffer::zeroed`].
    pub fn warm(len: usize) -> Result<Self> {
        let (memory, _) = Memory::take(len)?;
        Ok(Self { memory: Some(memory), len })
    }

    /// A buffer that holds a copy of `bytes`.
    ///
    /// # Errors
    ///
    /// As [`Buffer::zeroed`].
    pub fn copy_of(bytes: &[u8]) -> Result<Self> {
        let mut buffer = Self::warm(bytes.len())?;
        buffer.copy_from_slice(bytes);
        Ok(buffer)
    }

    /// The first byte. Valid for as long as the buffer, wherever that is moved.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.memory.as_ref().map_or(NonNull::dangling(), Memory::base)
    }

    /// Takes the memory away from a writer that may still be at it, for good: about 1 ms for 64 MiB. A late write fails, and
    /// nothing else is ever mapped at these addresses.
    pub(crate) fn retire(mut self) {
        if let Some(memory) = self.memory.take() {
            memory.retire();
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes of the mapping, which `self` owns; new pages are zeros, so all are initialised; nobody else
        // writes them while a reference can exist. An empty dangling slice is one too.
        unsafe { std::slice::from_raw_parts(self.base().as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the unique borrow of `self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.base().as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("base", &self.base()).field("len", &self.len).finish()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            memory.give_back();
        }
    }
}

/// How many bytes of dropped buffers are kept for new ones, in this process. Each thread keeps the one of less than 64 KiB that it has
/// dropped last besides, unless the limit is 0. The memory in which long messages of channels arrive, which their senders have mapped, is
/// not of these: of that as much is kept again, as long as its channel is open.
#[must_use]
pub fn pool_limit_bytes() -> usize {
    LIMIT_BYTES.load(Ordering::Relaxed)
}

/// Sets [`pool_limit_bytes`], 64 MiB at first, and gives back what the pool has beyond it. With 0 nothing is kept, but by other threads
/// what they have dropped before.
pub fn set_pool_limit_bytes(limit_bytes: usize) {
    LIMIT_BYTES.store(limit_bytes, Ordering::Relaxed);
    if limit_bytes == 0 {
        drop(spare::give_up());
    }
    drop(pool(|pool| pool.shrink(limit_bytes)));
}

/// Gives back up to `bytes` of the pool, for other memory in which messages will arrive instead.
pub(crate) fn give_back(bytes: usize) {
    drop(pool(|pool| pool.shrink(pool.bytes.saturating_sub(bytes))));
}

/// How many bytes are kept now; other threads take from them and add to them at any time.
#[must_use]
pub fn pool_bytes() -> usize {
    pool(|pool| pool.bytes)
}

fn pool<T>(work: impl FnOnce(&mut Pool) -> T) -> T {
    work(&mut POOL.lock())
}

/// Warm memory that no buffer uses.
struct Pool {
    /// The one that was dropped last comes last: its bytes are the likeliest to be in a cache.
    kept: Vec<Pages>,
    bytes: usize,
    /// What buffers share that are in use.
    blocks: Blocks,
}

impl Pool {
    const fn new() -> Self {
        Self { kept: Vec::new(), bytes: 0, blocks: Blocks::new() }
    }

    /// A part of a block, if there is one with room.
    fn share(&mut self, units: u32) -> Option<Part> {
        self.blocks.take(units).or_else(|| {
            let block = self.take(HUGE_BYTES)?;
            Some(self.share_new(block, units))
        })
    }

    fn share_new(&mut self, block: Pages, units: u32) -> Part {
        self.blocks.add(block);
        self.blocks.take(units).expect("a new block has room for any part")
    }

    /// Memory of `wanted` bytes.
    fn take(&mut self, wanted: usize) -> Option<Pages> {
        let index = self.kept.iter().rposition(|pages| pages.bytes() == wanted)?;
        let pages = self.kept.remove(index);
        self.bytes -= pages.bytes();
        Some(pages)
    }

    /// Takes `pages` in, and returns what had to go for that.
    fn keep(&mut self, pages: Pages, limit_bytes: usize) -> Vec<Pages> {
        self.bytes += pages.bytes();
        self.kept.push(pages);
        self.shrink(limit_bytes)
    }

    /// Gives up what was used longest ago until the rest fits.
    fn shrink(&mut self, limit_bytes: usize) -> Vec<Pages> {
        let mut surplus = Vec::new();
        while !self.kept.is_empty() && (self.bytes > limit_bytes || self.kept.len() > KEPT_BUFFERS) {
            let pages = self.kept.remove(0);
            self.bytes -= pages.bytes();
            surplus.push(pages);
        }
        surplus
    }
}

#[cfg(test)]
mod tests {
    use super::pages::PAGE_BYTES;
    use super::*;

    #[test]
    fn any_length_is_zeros_on_page_boundaries() {
        for len in [0, 1, PAGE_BYTES, PAGE_BYTES + 1, HUGE_BYTES - 1, HUGE_BYTES, 3 * HUGE_BYTES + 5] {
            let mut buffer = Buffer::zeroed(len).unwrap();
            assert_eq!(buffer.len(), len);
            let alignment = if len < HUGE_BYTES { PAGE_BYTES } else { HUGE_BYTES };
            assert_eq!(buffer.as_ptr().addr() % alignment, 0, "{len}");
            assert!(buffer.iter().all(|&byte| byte == 0), "{len}");
            buffer.fill(7);
            drop(buffer);
            assert!(Buffer::zeroed(len).unwrap().iter().all(|&byte| byte == 0), "{len}, after one that was written");
        }
    }

    #[test]
    fn a_copy_is_equal() {
        assert_eq!(Buffer::copy_of(b"some bytes").unwrap().as_ref(), b"some bytes");
    }

    #[test]
    fn impossible_lengths_are_refused_with_their_number() {
        for len in [usize::MAX, isize::MAX as usize, 1 << 62] {
            let error = Buffer::warm(len).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
            assert!(error.to_string().contains(&len.to_string()), "{error}");
        }
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_limit_and_the_latest_first() {
        let pages = |len| Pages::map(len).unwrap();
        let mut pool = Pool::new();
        let (first, second) = (pages(PAGE_BYTES), pages(PAGE_BYTES));
        let latest = second.base();
        assert!(pool.keep(first, 3 * PAGE_BYTES).is_empty());
        assert!(pool.keep(second, 3 * PAGE_BYTES).is_empty());
        assert!(pool.take(2 * PAGE_BYTES).is_none(), "another size");
        assert_eq!(pool.take(PAGE_BYTES).unwrap().base(), latest);
        assert_eq!(pool.bytes, PAGE_BYTES);
        assert_eq!(pool.keep(pages(3 * PAGE_BYTES), 3 * PAGE_BYTES).len(), 1, "the oldest goes");
        assert_eq!(pool.bytes, 3 * PAGE_BYTES);
        assert_eq!(pool.shrink(0).len(), 1);
        assert_eq!(pool.bytes, 0);
        for _ in 0..KEPT_BUFFERS {
            assert!(pool.keep(pages(1), usize::MAX).is_empty());
        }
        assert_eq!(pool.keep(pages(1), usize::MAX).len(), 1);
    }
}
