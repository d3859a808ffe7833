//! Shared memory as a plain program maps it.
//!
//! # Safety
//!
//! [`Mapping`] owns a shared mapping that is at least as long as [`Head`]. The head holds atomics alone, for which any value
//! is valid.
#![expect(unsafe_code, reason = "maps shared memory and refers to atomics in it")]

use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};

use onecopy::Result;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::counter::Counter;
use super::os;

/// The memory before any bytes of messages.
pub(super) const HEAD_BYTES: usize = 4096;

/// What stands at the begin of the memory.
#[repr(C)]
pub(super) struct Head {
    /// What the sender has done.
    pub(super) put: Counter,
    /// What the receiver has done.
    pub(super) taken: Counter,
    /// Where the bytes of the current message lie, or shall lie, in the memory of `owner`.
    pub(super) address: AtomicU64,
    pub(super) owner: AtomicU32,
}

const _: () = assert!(size_of::<Head>() <= HEAD_BYTES);

/// Memory that both sides share.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    attached: bool,
}

impl Mapping {
    /// mmap(2) of the first `len` bytes of a file, a memfd or a POSIX object, which has as many.
    pub(crate) fn map(fd: impl AsFd, len: usize) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
        let base = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0) };
        Self::of(base.map_err(|errno| os("mmap", "plain memory", errno))?.cast(), len, false)
    }

    /// shmat(2) of a System V segment, of which `len` bytes are used.
    pub(crate) fn attach(id: i32, len: usize) -> Result<Self> {
        // SAFETY: an attachment at an address that the kernel chooses replaces nothing.
        let base = unsafe { libc::shmat(id, ptr::null(), 0) };
        if base.addr() == usize::MAX {
            return Err(os("shmat", "plain memory", std::io::Error::last_os_error()));
        }
        Self::of(base.cast(), len, true)
    }

    fn of(base: *mut u8, len: usize, attached: bool) -> Result<Self> {
        assert!(len >= HEAD_BYTES, "room for the head");
        let base = NonNull::new(base).ok_or_else(|| os("mmap", "plain memory", rustix::io::Errno::NOMEM))?;
        Ok(Self { base, len, attached })
    }

    pub(super) fn head(&self) -> &Head {
        // SAFETY: the mapping begins with a head, at the begin of a page, of atomics, for which any value is valid. It lives as
        // long as `self`.
        unsafe { self.base.cast().as_ref() }
    }

    /// The address of byte `offset` behind the head, which the mapping must have.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.len - HEAD_BYTES, "inside the mapping");
        // SAFETY: the offset was checked; the mapping is one object.
        let address = unsafe { self.base.add(HEAD_BYTES + offset) };
        address.as_ptr()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let base = self.base.as_ptr().cast();
        if self.attached {
            // SAFETY: the attachment belongs to `self`, and no reference into it outlives `self`.
            unsafe { libc::shmdt(base) };
        } else {
            // SAFETY: the mapping belongs to `self`, and no reference into it outlives `self`.
            let _ = unsafe { munmap(base, self.len) };
        }
    }
}
