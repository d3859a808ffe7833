//! A mapping that this process shares with others.
//!
//! # Safety
//!
//! A [`Region`] owns its mapping from `map` until `drop`, so its base is valid for `len` bytes for as long as it can be
//! borrowed. Any peer may write the bytes at any time: nobody forms a `&[u8]` or `&mut [u8]` to them. Control words are
//! reached as atomics at checked, aligned offsets, everything else through [`copy`](super::copy).
#![expect(unsafe_code, reason = "maps, unmaps and reaches shared memory")]

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::copy::{copy_in, copy_out};
use crate::{Error, Result};

/// What this process may do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// A mapping shared with other processes, which may read and write it at any time.
///
/// Every access is a copy whose bounds are checked. What a copy brings is what the peers had written at that moment, one
/// byte perhaps before and its neighbour after a write that ran meanwhile: order them with a lock, a message or an atomic.
/// Dropping a region unmaps it; the memory itself lives on for as long as its name or another process keeps it.
///
/// ```
/// use onecopy::memory::anonymous::AnonymousMapping;
///
/// let mapping = AnonymousMapping::create("doc", 4096)?;
/// let region = mapping.region();
/// region.write_at(100, b"hello")?;
/// let mut buffer = [0; 5];
/// region.read_at(100, &mut buffer)?;
/// assert_eq!(&buffer, b"hello");
/// assert!(region.read_at(4092, &mut buffer).is_err());
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    access: Access,
    object: String,
}

// SAFETY: the mapping belongs to the process, not to a thread; every access is an atomic or a copy that tolerates
// concurrent writers.
unsafe impl Send for Region {}
// SAFETY: as above: peers write concurrently in any case, so other threads of this process may too.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the first `len` bytes of `fd`, which must be sealed against shrinking.
    pub(crate) fn map(fd: BorrowedFd<'_>, len: usize, access: Access, object: impl Into<String>) -> Result<Self> {
        let object = object.into();
        let protection = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
        let base = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0) }
            .map_err(|errno| Error::os("mmap", &object, errno))?;
        Ok(Self::own(base, len, access, object))
    }

    /// Maps the first `len` bytes of `fd`, which must be sealed against shrinking and against writing.
    ///
    /// Kernels before 6.7 refuse a shared mapping of it, even one that can only be read. A private one is the same pages.
    pub(super) fn map_frozen(fd: BorrowedFd<'_>, len: usize, object: String) -> Result<Self> {
        // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
        let base = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, fd, 0) }
            .map_err(|errno| Error::os("mmap", &object, errno))?;
        Ok(Self::own(base, len, Access::ReadOnly, object))
    }

    fn own(base: *mut c_void, len: usize, access: Access, object: String) -> Self {
        let base = NonNull::new(base.cast()).expect("mmap with a null hint never maps address 0");
        Self { base, len, access, object }
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// The length in bytes. It never changes; the object behind may have grown since it was mapped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the length is 0, which it never is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of the object, as errors name it.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Whether this process may write. Others may in any case.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.access == Access::ReadWrite
    }

    /// Copies the bytes from `offset` on into `buffer`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the numbers when the range does not lie within the region; nothing was copied then.
    pub fn read_at(&self, offset: usize, buffer: &mut [u8]) -> Result<()> {
        self.check("read", offset, buffer.len())?;
        // SAFETY: the range was checked, so the sum stays within the mapping.
        let shared = unsafe { self.base.add(offset) };
        // SAFETY: readable for `buffer.len()` bytes, checked above; `self` owns the mapping during the call; `buffer` is
        // private and so does not overlap it.
        unsafe { copy_in(buffer, shared.as_ptr()) };
        Ok(())
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the numbers when the range does not lie within the region, or when it is mapped read-only;
    /// nothing was copied then.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check_writable()?;
        self.check("write", offset, bytes.len())?;
        // SAFETY: the range was checked, so the sum stays within the mapping.
        let shared = unsafe { self.base.add(offset) };
        // SAFETY: writable for `bytes.len()` bytes, checked above; `self` owns the mapping during the call; `bytes` is
        // private and so does not overlap it.
        unsafe { copy_out(shared.as_ptr(), bytes) };
        Ok(())
    }

    /// The first byte. Valid for [`Region::len`] bytes while the region lives; peers write behind it at any time.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The control word of eight bytes at `offset`.
    #[expect(dead_code, reason = "the ring's counters")]
    pub(crate) fn atomic_u64(&self, offset: usize) -> Result<&AtomicU64> {
        let word = self.aligned(offset, size_of::<AtomicU64>())?;
        // SAFETY: within the mapping and aligned, checked above; any value is valid; lives as long as `self`; everyone
        // reaches it by atomics alone.
        Ok(unsafe { AtomicU64::from_ptr(word.cast().as_ptr()) })
    }

    /// The control word of four bytes at `offset`: what a futex waits on.
    #[expect(dead_code, reason = "the ring's futex words")]
    pub(crate) fn atomic_u32(&self, offset: usize) -> Result<&AtomicU32> {
        let word = self.aligned(offset, size_of::<AtomicU32>())?;
        // SAFETY: within the mapping and aligned, checked above; any value is valid; lives as long as `self`; everyone
        // reaches it by atomics alone.
        Ok(unsafe { AtomicU32::from_ptr(word.cast().as_ptr()) })
    }

    /// The place of a control word of `size` bytes, which is its alignment too. Only in a writable region: a store into
    /// another would be a SIGSEGV.
    fn aligned(&self, offset: usize, size: usize) -> Result<NonNull<u8>> {
        self.check_writable()?;
        self.check("control word", offset, size)?;
        if !offset.is_multiple_of(size) {
            let reason = format!("a control word of {size} bytes cannot stand at offset {offset}");
            return Err(Error::Invalid { object: self.object.clone(), reason });
        }
        // SAFETY: the range was checked, so the sum stays within the mapping; its base is aligned to a page.
        Ok(unsafe { self.base.add(offset) })
    }

    fn check_writable(&self) -> Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => {
                let reason = "mapped read-only: open it for writing".to_owned();
                Err(Error::Invalid { object: self.object.clone(), reason })
            }
        }
    }

    fn check(&self, operation: &str, offset: usize, len: usize) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => {
                let reason =
                    format!("{operation} of {len} bytes at offset {offset} reaches beyond its {} bytes", self.len);
                Err(Error::Invalid { object: self.object.clone(), reason })
            }
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `self` owns the mapping, and nothing that borrowed from it is left. The only error, of a bad range,
        // cannot occur.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
