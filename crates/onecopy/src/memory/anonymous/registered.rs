//! Memory that one process makes, and that another one maps as well: for messages that both copy in user space.
//!
//! Its last page is not for messages: the number of a registration stands there for as long as that lasts, by which the other
//! process tells it from what it has mapped before.
//!
//! # Safety
//!
//! [`Own`] lends references to its bytes, so nobody else may write them but where the caller says that this process is at the mercy
//! of the other in any case: see [`Rights`]. [`Theirs`] is memory that a peer writes at any time, and forms no reference to it.
//! In a child made by fork the mapping of [`Own`] does not exist and its addresses may be anybody's, as a rule: each access looks for
//! the sentinel, which the kernel clears there, and nothing is unmapped. See [`Children`] for the exception.
#![expect(unsafe_code, reason = "lends out shared memory, and reaches a word of it as an atomic")]

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{OFlags, SealFlags, fcntl_getfl, ftruncate};
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};

use super::{add_seals, length, new_memfd, no_new_writers, shrink_sealed};
use crate::memory::allocate::{check_len, check_limit, check_memory};
use crate::memory::buffer::{HUGE_BYTES, Pages};
use crate::memory::nonce::Nonce;
use crate::memory::region::{Access, Region};
use crate::process::{forks, has_forked_since};
use crate::{Error, Result};

/// How much memory of another process is mapped at most: it has addresses and pages of this one at its disposal.
pub(crate) const MOST_BYTES: usize = 1 << 30;

/// What those may do to whom the descriptor is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Read. The kernel refuses everything else (F_SEAL_FUTURE_WRITE, Linux 5.1).
    Read,
    /// Read and write: for one that may write all memory of this process in any case.
    ReadWrite,
}

/// What a child made by fork has of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Children {
    /// Nothing.
    Without,
    /// The mapping. What it had in it must not change under the child: see [`Own::has_heirs`].
    With,
}

impl Children {
    /// The name of the memory, as `/proc/PID/maps` shows it.
    fn name(self) -> &'static str {
        match self {
            Self::Without => "onecopy-registered",
            Self::With => "onecopy-landings",
        }
    }
}

/// The mapping of the process that made it.
#[derive(Debug)]
pub(crate) struct Own {
    /// `None` only when they were given away, at the end.
    pages: Option<Pages>,
    /// How much of it is for messages.
    bytes: usize,
    /// Is there in the process that made the mapping, and in no child of it.
    sentinel: Nonce,
    /// How often the process had forked when it made the mapping, if children have that.
    forks: Option<u64>,
}

impl Own {
    /// New memory of `len` zeros at least, all of whose pages are there, and the descriptor to pass on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a length of 0, and one that no mapping can have; [`Error::Unsupported`] before Linux 5.1, and for
    /// children that cannot be counted; EMFILE, ENFILE, ENOMEM.
    pub(crate) fn create(len: usize, rights: Rights, children: Children) -> Result<(Self, OwnedFd)> {
        let object = format!("memfd:{}", children.name());
        let forks = match children {
            Children::Without => None,
            Children::With => Some(forks().ok_or_else(|| {
                let reason = "the C library cannot tell of forks".into();
                Error::Unsupported { object: object.clone(), reason }
            })?),
        };
        let page = rustix::param::page_size();
        let bytes = len.checked_next_multiple_of(page).unwrap_or(len);
        let total = bytes.saturating_add(page);
        [len, total].into_iter().try_for_each(|len| check_len(len, &object))?;
        check_limit(total, &object)?;
        check_memory(total, &object)?;
        let sentinel = Nonce::draw()?;
        let fd = new_memfd(children.name(), &object)?;
        ftruncate(&fd, total as u64).map_err(|errno| Error::os("ftruncate", &object, errno))?;
        add_seals(fd.as_fd(), SealFlags::SHRINK | SealFlags::GROW, &object)?;
        let pages = Pages::share(fd.as_fd(), total).map_err(|errno| Error::os("mmap", &object, errno))?;
        pages.warm_up().map_err(|errno| Error::os("madvise(MADV_POPULATE_WRITE)", &object, errno))?;
        let own = Self { pages: Some(pages), bytes, sentinel, forks };
        if children == Children::Without {
            own.advise(Advice::LinuxDontFork).map_err(|errno| Error::os("madvise(MADV_DONTFORK)", &object, errno))?;
        }
        let seals = match rights {
            Rights::Read => SealFlags::FUTURE_WRITE | SealFlags::SEAL,
            Rights::ReadWrite => SealFlags::SEAL,
        };
        add_seals(fd.as_fd(), seals, &object)?;
        Ok((own, fd))
    }

    fn advise(&self, advice: Advice) -> Result<(), Errno> {
        let Some(pages) = &self.pages else { return Ok(()) };
        // SAFETY: the whole mapping, which `self` owns; the advice that is given here changes no byte but at the end of the memory,
        // when nothing borrows from it.
        unsafe { madvise(pages.base().as_ptr().cast(), pages.bytes(), advice) }
    }

    /// Whether a child may have been made that has the mapping. What lay there then must stay as it is.
    pub(crate) fn has_heirs(&self) -> bool {
        self.forks.is_some_and(has_forked_since)
    }

    /// The first byte. Valid for as long as the memory, wherever that is moved.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.pages.as_ref().map_or(NonNull::dangling(), Pages::base)
    }

    /// The bytes of `range`.
    ///
    /// # Panics
    ///
    /// When the range does not lie within the memory, and in a child made by fork, which does not have it.
    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        self.check(&range);
        // SAFETY: within the mapping, checked above.
        let start = unsafe { self.base().add(range.start) };
        // SAFETY: so many bytes of the mapping, which lives as long as `self`; initialised, since a memfd begins as zeros; this
        // process writes them through `self` alone, which needs a unique borrow, and others as the head of the file says.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), range.len()) }
    }

    /// The bytes of `range`, to be written.
    ///
    /// # Panics
    ///
    /// As [`Own::slice`].
    pub(crate) fn slice_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        self.check(&range);
        // SAFETY: within the mapping, checked above.
        let start = unsafe { self.base().add(range.start) };
        // SAFETY: as in `slice`; the unique borrow of `self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), range.len()) }
    }

    #[inline]
    fn check(&self, range: &Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.bytes, "{range:?} of {}", self.bytes);
        assert!(self.sentinel.is_intact(), "this memory is the parent's: a child made by fork does not have it");
    }

    /// Says which registration this is; 0 is none any more.
    pub(crate) fn set_number(&self, number: u64) {
        if self.pages.is_some() && self.sentinel.is_intact() {
            // SAFETY: the last page of the mapping begins there, which this process has, checked above.
            let word = unsafe { number_at(self.base(), self.bytes) };
            // Relaxed: the packet that passes the memory publishes it. Who learns of the end late uses memory that is still there.
            word.store(number, Ordering::Relaxed);
        }
    }

    /// Takes the memory away from a writer that may still be at it, for good: nothing else is ever mapped at these addresses, and what
    /// others write to their mapping of it nobody reads.
    pub(crate) fn retire(mut self) {
        if self.sentinel.is_intact() {
            self.end();
            self.pages.take().into_iter().for_each(Pages::retire);
        }
    }

    /// Gives the pages back, though others may have them mapped.
    fn end(&self) {
        self.set_number(0);
        if !self.has_heirs() {
            // Refused where the memory is sealed: then it lasts until they unmap it.
            let _ = self.advise(Advice::LinuxRemove);
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        match self.sentinel.is_intact() {
            true => self.end(),
            // The addresses may be anybody's.
            false => std::mem::forget(self.pages.take()),
        }
    }
}

/// The mapping of another process, to which it may write at any time, and so may this one if it has the right.
#[derive(Debug)]
pub(crate) struct Theirs {
    region: Region,
    bytes: usize,
    /// Which registration it was when it came.
    number: u64,
    is_warm: AtomicBool,
}

impl Theirs {
    /// Maps what another process has made by [`Own::create`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `fd` is no memfd, is not sealed against shrinking, or has a length that none can have. ENOMEM.
    pub(crate) fn map(fd: &OwnedFd, object: &str) -> Result<Self> {
        let seals = shrink_sealed(fd.as_fd(), object)?;
        let (len, page) = (length(fd.as_fd(), object)?, rustix::param::page_size());
        let bytes = len.checked_sub(page).filter(|bytes| *bytes > 0 && len.is_multiple_of(page) && len <= MOST_BYTES);
        let Some(bytes) = bytes else {
            let reason = format!("registered memory of {len} bytes: {MOST_BYTES} are the most, in whole pages");
            return Err(Error::Invalid { object: object.to_owned(), reason });
        };
        let flags = fcntl_getfl(fd).map_err(|errno| Error::os("fcntl(F_GETFL)", object, errno))?;
        let writable = flags & OFlags::RWMODE == OFlags::RDWR && !seals.intersects(no_new_writers());
        let access = if writable { Access::ReadWrite } else { Access::ReadOnly };
        let mut region = Region::map(fd.as_fd(), len, access, object.to_owned())?;
        if bytes >= HUGE_BYTES {
            region = region.aligned_to(HUGE_BYTES);
        }
        let mut theirs = Self { region, bytes, number: 0, is_warm: AtomicBool::new(false) };
        theirs.number = theirs.number_now();
        Ok(theirs)
    }

    /// Which registration it was when it came; 0 is none.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the registration lasts, as far as the other process says.
    pub(crate) fn lasts(&self) -> bool {
        self.number_now() == self.number
    }

    fn number_now(&self) -> u64 {
        // SAFETY: the last page of the mapping begins there, which `self` keeps.
        let word = unsafe { number_at(self.region.base(), self.bytes) };
        // Relaxed: it says nothing of other bytes.
        word.load(Ordering::Relaxed)
    }

    /// Has all of it be mapped, once, before the first use of each page does that; pages that are not there it gets. For memory of a
    /// process that may take that of this one anyway.
    #[inline]
    pub(crate) fn warm_up(&self) {
        // Relaxed: twice does no harm.
        if !self.is_warm.load(Ordering::Relaxed) {
            self.is_warm.store(true, Ordering::Relaxed);
            // The first use finds out what is wrong.
            let _ = self.region.warm(0, self.bytes);
        }
    }

    /// How long a message can be.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// The memory: copies go through it.
    pub(crate) fn region(&self) -> &Region {
        &self.region
    }
}

/// The number of a registration, behind the bytes.
///
/// # Safety
///
/// A mapping of `bytes` whole pages and one more begins at `base`, and lasts for as long as the reference.
unsafe fn number_at<'a>(base: NonNull<u8>, bytes: usize) -> &'a AtomicU64 {
    // SAFETY: within the mapping, by the caller's promise.
    let word = unsafe { base.add(bytes) };
    // SAFETY: a page of the mapping begins there: aligned, and longer; an atomic tolerates what others write.
    unsafe { word.cast::<AtomicU64>().as_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mappings_begin_where_a_huge_page_can_and_are_the_same_memory() {
        for len in [1, HUGE_BYTES - 1, HUGE_BYTES, 3 * HUGE_BYTES + 5] {
            let (mut own, fd) = Own::create(len, Rights::ReadWrite, Children::Without).unwrap();
            own.set_number(7);
            let theirs = Theirs::map(&fd, "theirs").unwrap();
            let alignment = if len < HUGE_BYTES { 4096 } else { HUGE_BYTES };
            for base in [own.base(), theirs.region().base()] {
                assert!(base.as_ptr().addr().is_multiple_of(alignment), "{len}");
            }
            assert!(theirs.len() >= len && theirs.number() == 7 && theirs.lasts());
            own.slice_mut(0..len).fill(9);
            let mut found = vec![0; len];
            theirs.region().read_at(0, &mut found).unwrap();
            assert!(found.iter().all(|&byte| byte == 9));
            theirs.region().write_at(len - 1, &[5]).unwrap();
            assert_eq!(own.slice(len - 1..len), [5]);
            drop(own);
            assert!(!theirs.lasts());
        }
    }
}
