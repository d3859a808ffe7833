//! A mapping that this process shares with others.
//!
//! # Safety
//!
//! A [`Region`] owns its mapping from `map` until `drop`, so its base is valid for `len` bytes for as long as it can be
//! borrowed. Any peer may write the bytes at any time: nobody forms a `&[u8]` or `&mut [u8]` to them. Control words are
//! reached as atomics at checked, aligned offsets, everything else through [`copy`](super::copy), or through
//! [`guarded`](super::guarded) where a page can be missing.
#![expect(unsafe_code, reason = "maps, unmaps and reaches shared memory")]

use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{Stat, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MremapFlags, MsyncFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect,
    mremap, mremap_fixed, msync, munmap,
};
use rustix::process::{Resource, getrlimit};

use super::allocate::{Use, allocate};
use super::copy::{copy_in, copy_in_beside, copy_out, copy_out_beside, copy_out_past_caches};
use super::guarded;
use super::occupied::{Conflict, Occupied, Origin, Use as Usage};
use super::writers::Writers;
use crate::sys::sysv_shm::Attachment;
use crate::{Error, Result};

/// How often a copy is tried that failed though the file is long enough: it may have been shorter for a moment.
const ATTEMPTS: usize = 8;

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// What this process may do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// What keeps the pages of a mapping where they are, and how it ends.
#[derive(Debug)]
enum Backing {
    /// Nobody can shorten it: a sealed memfd. Ends with munmap.
    Fixed,
    /// The same, between two pages that nobody can access, with so many bytes of this process alone behind the first of them.
    Guarded { private_bytes: usize },
    /// Nobody can shorten it: a System V segment. Ends with shmdt.
    Attached,
    /// A file that every process with the right to write it can shorten: the kernel makes the copies, unless the program
    /// trusts all of them.
    File { fd: OwnedFd, trusted: bool },
}

/// A mapping shared with other processes, which may read and write it at any time.
///
/// Every access is a copy whose bounds are checked. What a copy brings is what the peers had written at that moment, one
/// byte perhaps before and its neighbour after a write that ran meanwhile: order them with a lock, a message or an atomic.
/// Where somebody can shorten the object ([`posix_shm`](super::posix_shm), [`file_mapping`](super::file_mapping)), a copy
/// beyond its new end is [`Error::Shortened`]; see [`Region::trusting_its_length`] for what that costs.
///
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
    backing: Backing,
    writers: Writers,
    origin: Origin,
}

// SAFETY: the mapping belongs to the process, not to a thread; every access is an atomic or a copy that tolerates
// concurrent writers.
unsafe impl Send for Region {}
// SAFETY: as above: peers write concurrently in any case, so other threads of this process may too.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the first `len` bytes of `fd`, which must be sealed against shrinking.
    pub(super) fn map(fd: BorrowedFd<'_>, len: usize, access: Access, object: String) -> Result<Self> {
        let stat = stat(fd, &object)?;
        let base = map_shared(fd, len, access, &object)?;
        let (writers, origin) = (Writers::of_memfd(&stat), Origin::of_file(&stat));
        Ok(Self { base, len, access, object, backing: Backing::Fixed, writers, origin })
    }

    /// Maps the first `len` bytes of a file that others may shorten, and keeps its descriptor.
    pub(super) fn map_file(fd: OwnedFd, len: usize, access: Access, object: String) -> Result<Self> {
        let stat = stat(fd.as_fd(), &object)?;
        let base = map_shared(fd.as_fd(), len, access, &object)?;
        let (writers, origin) = (Writers::of_file(&stat), Origin::of_file(&stat));
        Ok(Self { base, len, access, object, backing: Backing::File { fd, trusted: false }, writers, origin })
    }

    /// Maps the first `len` bytes of `fd`, which must be sealed against shrinking and against writing.
    ///
    /// Kernels before 6.7 refuse a shared mapping of it, even one that can only be read. A private one is the same pages.
    pub(super) fn map_frozen(fd: BorrowedFd<'_>, len: usize, object: String) -> Result<Self> {
        let stat = stat(fd, &object)?;
        // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
        let base = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, fd, 0) }
            .map_err(|errno| Error::os("mmap", &object, errno))?;
        let (base, access, backing) = (non_null(base), Access::ReadOnly, Backing::Fixed);
        let (writers, origin) = (Writers::of_memfd(&stat), Origin::of_file(&stat));
        Ok(Self { base, len, access, object, backing, writers, origin })
    }

    /// Maps `len` zero bytes that have no descriptor, for this process and the children that it forks.
    pub(super) fn map_for_children(len: usize, object: String) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::SHARED) }
            .map_err(|errno| Error::os("mmap", &object, errno))?;
        let (base, access, backing) = (non_null(base), Access::ReadWrite, Backing::Fixed);
        Ok(Self { base, len, access, object, backing, writers: Writers::Children, origin: Origin::nameless() })
    }

    /// Takes over the System V segment `id`, which was attached for this region alone.
    pub(super) fn attached(
        attachment: Attachment,
        id: i32,
        len: usize,
        access: Access,
        object: String,
        writers: Writers,
    ) -> Self {
        let (base, backing, origin) = (attachment.into_base(), Backing::Attached, Origin::of_segment(id));
        Self { base, len, access, object, backing, writers, origin }
    }

    /// The first `at` bytes and the rest, as regions of their own. Only for memory that nobody can shorten.
    ///
    /// # Panics
    ///
    /// When `at` is no boundary of pages inside of the region, or somebody can shorten it.
    pub(crate) fn split(mut self, at: usize) -> (Self, Self) {
        assert!(at > 0 && at < self.len && at.is_multiple_of(rustix::param::page_size()), "{at} of {}", self.len);
        assert!(matches!(self.backing, Backing::Fixed), "the halves of {} end apart", self.object);
        let (object, access, writers) = (std::mem::take(&mut self.object), self.access, self.writers);
        let half = |base, len, origin| Self {
            base,
            len,
            access,
            object: object.clone(),
            backing: Backing::Fixed,
            writers,
            origin,
        };
        // SAFETY: `at` lies within the mapping.
        let middle = unsafe { self.base.add(at) };
        let halves = (half(self.base, at, self.origin), half(middle, self.len - at, self.origin.at(at)));
        // Each half unmaps its own pages.
        std::mem::forget(self);
        halves
    }

    /// Moves the mapping, of whole pages that nobody can shorten, between two pages that nobody can access: a mistake that reaches
    /// beyond its ends is a SIGSEGV, and not an access to what happens to lie there.
    ///
    /// # Panics
    ///
    /// When it ends within a page, or somebody can shorten it.
    pub(crate) fn between_guards(self) -> Result<Self> {
        self.behind(0)
    }

    /// As [`Region::between_guards`], with a page of zeros between the first guard and the mapping, the
    /// [`private_page`](Region::private_page): what lies there and here has the same distance everywhere.
    ///
    /// # Panics
    ///
    /// As [`Region::between_guards`].
    pub(crate) fn behind_private_page(self) -> Result<Self> {
        self.behind(rustix::param::page_size())
    }

    fn behind(mut self, private_bytes: usize) -> Result<Self> {
        let page = rustix::param::page_size();
        assert!(self.len.is_multiple_of(page) && matches!(self.backing, Backing::Fixed), "{}", self.object);
        let bytes = self.len + private_bytes + 2 * page;
        // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
        let reserved = unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE) }
            .map_err(|errno| Error::os("mmap", &self.object, errno))?;
        match self.move_into(reserved.wrapping_byte_add(page), private_bytes) {
            Ok(base) => {
                (self.base, self.backing) = (base, Backing::Guarded { private_bytes });
                Ok(self)
            }
            // A part of the reservation may be somebody else's already, so it is left as it is: addresses, and no memory.
            Err((call, errno)) => Err(Error::os(call, &self.object, errno)),
        }
    }

    /// Moves the mapping behind so many bytes from `start` on, in a reservation that has room for both and that nobody uses. It stays
    /// where it is after an error.
    fn move_into(
        &mut self,
        start: *mut c_void,
        private_bytes: usize,
    ) -> std::result::Result<NonNull<u8>, (&'static str, Errno)> {
        if private_bytes > 0 {
            // SAFETY: whole pages of the reservation.
            unsafe { mprotect(start, private_bytes, MprotectFlags::READ | MprotectFlags::WRITE) }
                .map_err(|errno| ("mprotect", errno))?;
        }
        let target = start.wrapping_byte_add(private_bytes);
        // SAFETY: `self` owns the old range, and nothing borrows from it; the new one lies in the reservation, which nobody uses.
        let base = unsafe { mremap_fixed(self.base.as_ptr().cast(), self.len, self.len, MremapFlags::MAYMOVE, target) };
        base.map(non_null).map_err(|errno| ("mremap", errno))
    }

    /// The page of this process alone that lies before the first byte of a region that was moved
    /// [behind it](Region::behind_private_page), and stays for as long as that.
    pub(crate) fn private_page(&self) -> Option<NonNull<u8>> {
        match self.backing {
            Backing::Guarded { private_bytes } if private_bytes > 0 => {
                // SAFETY: the page lies there, in the reservation of this region.
                Some(unsafe { self.base.sub(private_bytes) })
            }
            _ => None,
        }
    }

    /// Moves the mapping, of whole pages that nobody can shorten, to a multiple of `alignment`, a power of two: where a huge page can
    /// begin. It stays where it is when there is no room.
    ///
    /// # Panics
    ///
    /// When it ends within a page, or somebody can shorten it.
    pub(super) fn aligned_to(mut self, alignment: usize) -> Self {
        assert!(self.len.is_multiple_of(rustix::param::page_size()) && matches!(self.backing, Backing::Fixed));
        let total = self.len + alignment;
        // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
        let reserved = unsafe { mmap_anonymous(ptr::null_mut(), total, ProtFlags::empty(), MapFlags::PRIVATE) };
        let Ok(reserved) = reserved else { return self };
        let head = reserved.cast::<u8>().align_offset(alignment);
        let target = reserved.wrapping_byte_add(head);
        let unmap = |from: *mut c_void, bytes: usize| {
            if bytes > 0 {
                // SAFETY: whole pages of the reservation that nobody uses. A refusal costs addresses only.
                let _ = unsafe { munmap(from, bytes) };
            }
        };
        // SAFETY: `self` owns the old range, and nothing borrows from it; the new one lies in the reservation, which nobody uses, since
        // an alignment is reached within `alignment` bytes.
        let moved =
            unsafe { mremap_fixed(self.base.as_ptr().cast(), self.len, self.len, MremapFlags::MAYMOVE, target) };
        // After a refusal a part of the reservation may be somebody else's already, so it is left as it is.
        if let Ok(base) = moved {
            self.base = non_null(base);
            unmap(reserved, head);
            unmap(target.wrapping_byte_add(self.len), total - head - self.len);
        }
        self
    }

    /// Maps `len` bytes in place of what was mapped, perhaps at another address. Nothing borrows from the region meanwhile.
    pub(super) fn remap(&mut self, len: usize) -> Result<()> {
        // SAFETY: `self` owns the old range, and the unique borrow says that nobody uses an address in it.
        let base = unsafe { mremap(self.base.as_ptr().cast(), self.len, len, MremapFlags::MAYMOVE) }
            .map_err(|errno| mapping_error("mremap", &self.object, errno, len))?;
        (self.base, self.len) = (non_null(base), len);
        Ok(())
    }

    /// The descriptor of a file that others may shorten.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::File { fd, .. } => Some(fd.as_fd()),
            Backing::Fixed | Backing::Guarded { .. } | Backing::Attached => None,
        }
    }

    /// Whether the bytes lie in the page cache of a disk, as far as the kernel tells.
    pub(super) fn is_on_disk(&self) -> bool {
        self.file().and_then(|fd| fstatfs(fd).ok()).is_some_and(|fs| fs.f_type != TMPFS_MAGIC)
    }

    /// Makes every copy a plain one, at the speed of memcpy, and trusts all who may write the object that they never shorten
    /// it: if one does, the next access beyond the new end is a SIGBUS, which ends this process.
    ///
    /// Without it a copy from a file or a POSIX shared memory object is a system call: 0.4 to 0.9 us more and a fifth to a half
    /// of memcpy's speed in, 1.6 to 3.7 us and a quarter of it out (hot, on a busy machine). Nothing changes for regions
    /// that cannot be shortened.
    #[must_use]
    pub fn trusting_its_length(mut self) -> Self {
        if let Backing::File { trusted, .. } = &mut self.backing {
            *trusted = true;
        }
        self
    }

    /// The same memory, which messages call `object`.
    pub(crate) fn named(mut self, object: &str) -> Self {
        object.clone_into(&mut self.object);
        self
    }

    /// Writes changed pages from `offset` on back to the file, and waits until they are there (msync(2), MS_SYNC).
    pub(super) fn sync(&self, offset: usize, len: usize) -> Result<()> {
        self.check("flush", offset, len)?;
        let start = offset - offset % rustix::param::page_size();
        // SAFETY: the range was checked, so the sum stays within the mapping.
        let base = unsafe { self.base.add(start) };
        // SAFETY: whole pages of the mapping, which `self` owns; no page changes.
        unsafe { msync(base.as_ptr().cast(), offset + len - start, MsyncFlags::SYNC) }
            .map_err(|errno| Error::os("msync", &self.object, errno))
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// The length of the mapping in bytes. The object behind may have grown since, and so may one that can be shortened have
    /// become shorter.
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
    /// [`Error::Shortened`] when the object has meanwhile become too short for the range; the buffer holds anything then.
    pub fn read_at(&self, offset: usize, buffer: &mut [u8]) -> Result<()> {
        self.check("read", offset, buffer.len())?;
        if let Backing::File { fd, trusted: false } = &self.backing {
            return self.read_guarded(fd, offset, buffer);
        }
        // SAFETY: the range was checked, so the sum stays within the mapping.
        let shared = unsafe { self.base.add(offset) };
        // SAFETY: readable for `buffer.len()` bytes, checked above; `self` owns the mapping during the call; `buffer` is
        // private and so does not overlap it.
        unsafe { copy_in(buffer, shared.as_ptr()) };
        Ok(())
    }

    /// As [`Region::read_at`], of what another core copies out of at the same time, for memory that nobody can shorten.
    pub(crate) fn read_beside_at(&self, offset: usize, buffer: &mut [u8]) -> Result<()> {
        if matches!(self.backing, Backing::File { trusted: false, .. }) {
            return self.read_at(offset, buffer);
        }
        self.check("read", offset, buffer.len())?;
        // SAFETY: the range was checked, so the sum stays within the mapping.
        let shared = unsafe { self.base.add(offset) };
        // SAFETY: as in `read_at`.
        unsafe { copy_in_beside(buffer, shared.as_ptr()) };
        Ok(())
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the numbers when the range does not lie within the region, when it is mapped read-only, and
    /// when it reaches into a [lock](crate::sync::shared) or its value while this process has a handle of that, by way of
    /// whatever mapping; nothing was copied then. [`Error::Shortened`] when the object has meanwhile become too short for the range; what it
    /// still has room for was written then.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let shared = self.target(offset, bytes.len())?;
        if self.origin.may_have_locks(offset, bytes.len()) {
            self.check_free(offset, bytes.len())?;
        }
        // SAFETY: `target` has said so.
        unsafe { self.store(shared, offset, bytes) }
    }

    /// As [`Region::write_at`], for what uses the bytes there.
    pub(crate) fn write_occupied_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let shared = self.target(offset, bytes.len())?;
        // SAFETY: `target` has said so.
        unsafe { self.store(shared, offset, bytes) }
    }

    /// # Safety
    ///
    /// `shared` is the [`target`](Region::target) of so many bytes at `offset`.
    #[inline]
    unsafe fn store(&self, shared: NonNull<u8>, offset: usize, bytes: &[u8]) -> Result<()> {
        if let Backing::File { fd, trusted: false } = &self.backing {
            return self.write_guarded(fd, offset, bytes);
        }
        // SAFETY: writable for `bytes.len()` bytes, by the caller's promise; `self` owns the mapping during the call; `bytes` is
        // private and so does not overlap it.
        unsafe { copy_out(shared.as_ptr(), bytes) };
        Ok(())
    }

    /// As [`Region::write_at`], beside another core that writes there at the same time, for memory that nobody can shorten.
    pub(crate) fn write_beside_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        if matches!(self.backing, Backing::File { trusted: false, .. }) {
            return self.write_at(offset, bytes);
        }
        let shared = self.target(offset, bytes.len())?;
        // SAFETY: as in `write_at`.
        unsafe { copy_out_beside(shared.as_ptr(), bytes) };
        Ok(())
    }

    /// As [`Region::write_at`], past the caches, for memory that nobody can shorten.
    pub(crate) fn write_past_caches_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let shared = self.target(offset, bytes.len())?;
        if matches!(self.backing, Backing::File { trusted: false, .. }) {
            return self.write_at(offset, bytes);
        }
        // SAFETY: as in `write_at`.
        unsafe { copy_out_past_caches(shared.as_ptr(), bytes) };
        Ok(())
    }

    /// Fails where this process uses a lock within so many bytes from `offset` on.
    #[cold]
    fn check_free(&self, offset: usize, len: usize) -> Result<()> {
        self.origin.check_free(&(offset..offset + len)).map_err(|conflict| {
            let reason = conflict.reason(&format!("write of {len} bytes at offset {offset} reaches"));
            Error::Invalid { object: self.object.clone(), reason }
        })
    }

    /// Says that this process uses `range`, which lies within the region, until the result is dropped.
    pub(crate) fn occupy(&self, range: &Range<usize>, usage: Usage) -> Result<Occupied, Conflict> {
        self.origin.occupy(range, usage)
    }

    /// As [`Region::occupy`], for the first `len` bytes, as something that is no lock.
    pub(crate) fn occupy_words(&self, len: usize, name: &'static str) -> Result<Occupied> {
        self.occupy(&(0..len), Usage::Words(name)).map_err(|conflict| {
            let reason = conflict.reason(&format!("{name} of {len} bytes reaches"));
            Error::Invalid { object: self.object.clone(), reason }
        })
    }

    /// Where `len` bytes from `offset` on are, to be written.
    fn target(&self, offset: usize, len: usize) -> Result<NonNull<u8>> {
        self.check_writable()?;
        self.check("write", offset, len)?;
        // SAFETY: the range was checked, so the sum stays within the mapping.
        Ok(unsafe { self.base.add(offset) })
    }

    fn read_guarded(&self, fd: &OwnedFd, offset: usize, buffer: &mut [u8]) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let found = guarded::read_from(fd.as_fd(), offset, buffer)
                .map_err(|errno| Error::os("pread", &self.object, errno))?;
            if found == buffer.len() {
                return Ok(());
            }
            self.check_length("read", fd, offset, buffer.len())?;
        }
        Err(self.shortened("read", offset, buffer.len()))
    }

    /// `offset` and the length of `bytes` were checked, and the region is writable.
    fn write_guarded(&self, fd: &OwnedFd, offset: usize, bytes: &[u8]) -> Result<()> {
        // SAFETY: the range was checked, so the sum stays within the mapping.
        let shared = unsafe { self.base.add(offset) };
        for _ in 0..ATTEMPTS {
            // SAFETY: the range was checked; the mapping is shared, writable, and owned by `self` during the call.
            match unsafe { guarded::write_to(shared, bytes) } {
                // Where it is long enough by now, what was written may be lost: again.
                Err((_, Errno::FAULT)) => self.check_length("write", fd, offset, bytes.len())?,
                Err((call, errno)) => return Err(Error::os(call, &self.object, errno)),
                // Bytes between the end of a file and the end of its last page are lost without a fault.
                Ok(()) => return self.check_length("write", fd, offset, bytes.len()),
            }
        }
        Err(Error::os("process_vm_writev", &self.object, Errno::FAULT).with_remedy(
            "a page could not be had: its file system is full or failed, or somebody shortens it again and again",
        ))
    }

    fn check_length(&self, operation: &'static str, fd: &OwnedFd, offset: usize, len: usize) -> Result<()> {
        let stat = fstat(fd).map_err(|errno| Error::os("fstat", &self.object, errno))?;
        if len > 0 && (stat.st_size as u64) < (offset + len) as u64 {
            return Err(self.shortened_to(stat.st_size as u64, operation, offset, len));
        }
        Ok(())
    }

    /// The error for a range that the object no longer has.
    pub(super) fn shortened(&self, operation: &'static str, offset: usize, len: usize) -> Error {
        let current_bytes = self.file().and_then(|fd| fstat(fd).ok()).map_or(0, |stat| stat.st_size as u64);
        self.shortened_to(current_bytes, operation, offset, len)
    }

    fn shortened_to(&self, current_bytes: u64, operation: &'static str, offset: usize, len: usize) -> Error {
        Error::Shortened {
            operation,
            object: self.object.clone(),
            offset,
            range_bytes: len,
            mapped_bytes: self.len,
            current_bytes,
        }
    }

    /// The first byte. Valid for [`Region::len`] bytes while the region lives; peers write behind it at any time.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Fails for a region that is mapped read-only: a store into it would be a SIGSEGV.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => {
                let reason = "mapped read-only: open it for writing".to_owned();
                Err(Error::Invalid { object: self.object.clone(), reason })
            }
        }
    }

    /// Who may write the object, as it was when it was mapped.
    pub(crate) fn writers(&self) -> Writers {
        self.writers
    }

    /// Makes sure that the object has all of the first `len` bytes, with room for each: accesses that are no checked copies
    /// are a SIGBUS otherwise. It stays so for as long as nobody shortens the object or punches a hole.
    pub(crate) fn secure(&self, len: usize) -> Result<()> {
        self.check("access", 0, len)?;
        let Some(fd) = self.file() else { return Ok(()) };
        let stat = fstat(fd).map_err(|errno| Error::os("fstat", &self.object, errno))?;
        if (stat.st_size as u64) < len as u64 {
            return Err(self.shortened_to(stat.st_size as u64, "access", 0, len));
        }
        // The kernel counts in blocks of 512 bytes, whatever those of the file system are.
        if stat.st_blocks as u64 * 512 >= stat.st_size as u64 {
            return Ok(());
        }
        allocate(fd, 0, len, Use::Shared, &self.object)
    }

    /// Takes the pages of so many bytes from `offset` on, which are writable, so that their first use neither faults nor finds that
    /// there is no memory (a SIGBUS). Before Linux 5.14 the first use takes them all the same.
    pub(crate) fn warm(&self, offset: usize, len: usize) -> Result<()> {
        self.check("warm", offset, len)?;
        let begin = offset / rustix::param::page_size() * rustix::param::page_size();
        // SAFETY: within the mapping, checked above.
        let start = unsafe { self.base.add(begin) };
        // SAFETY: within the mapping, checked above; no byte changes.
        match unsafe { madvise(start.as_ptr().cast(), len + (offset - begin), Advice::LinuxPopulateWrite) } {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            // What would be a SIGBUS.
            Err(Errno::FAULT) => Err(Error::os("madvise(MADV_POPULATE_WRITE)", &self.object, Errno::NOMEM)),
            Err(errno) => Err(Error::os("madvise(MADV_POPULATE_WRITE)", &self.object, errno)),
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

fn stat(fd: BorrowedFd<'_>, object: &str) -> Result<Stat> {
    fstat(fd).map_err(|errno| Error::os("fstat", object, errno))
}

/// A shared mapping of the first `len` bytes of `fd`, which the caller owns from here on.
fn map_shared(fd: BorrowedFd<'_>, len: usize, access: Access, object: &str) -> Result<NonNull<u8>> {
    let protection = match access {
        Access::ReadOnly => ProtFlags::READ,
        Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
    };
    // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
    let base = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0) }
        .map_err(|errno| mapping_error("mmap", object, errno, len))?;
    Ok(non_null(base))
}

/// A mapping of `len` bytes that could not be made.
pub(super) fn mapping_error(call: &'static str, object: &str, errno: Errno, len: usize) -> Error {
    let error = Error::os(call, object, errno);
    match (errno, getrlimit(Resource::As).current) {
        (Errno::NOMEM, Some(limit)) => error.with_remedy(format!(
            "{len} bytes were to be mapped, and this process may map {limit} in all (RLIMIT_AS): raise `ulimit -v`"
        )),
        _ => error,
    }
}

fn non_null(base: *mut c_void) -> NonNull<u8> {
    NonNull::new(base.cast()).expect("the kernel never chooses address 0")
}

impl Drop for Region {
    fn drop(&mut self) {
        if matches!(self.backing, Backing::Attached) {
            // SAFETY: the base is that of the attachment, which `self` owns.
            return drop(unsafe { Attachment::from_base(self.base) });
        }
        let (before, after) = match self.backing {
            Backing::Guarded { private_bytes } => {
                (rustix::param::page_size() + private_bytes, rustix::param::page_size())
            }
            _ => (0, 0),
        };
        let start = self.base.as_ptr().wrapping_sub(before);
        // SAFETY: `self` owns the mapping and what lies around it, and nothing that borrowed from it is left. The only error, of a bad
        // range, cannot occur.
        let _ = unsafe { munmap(start.cast(), before + self.len + after) };
    }
}

#[cfg(test)]
mod tests {
    use crate::memory::anonymous::AnonymousMapping;
    use crate::memory::maps::maps;

    #[test]
    fn between_guards_the_bytes_are_the_same_and_the_pages_around_belong_to_nobody() {
        let len = 2 * rustix::param::page_size();
        let (region, rest) = AnonymousMapping::create("guarded", 2 * len).unwrap().into_region().split(len);
        region.write_at(len - 3, b"end").unwrap();
        let region = region.between_guards().unwrap();
        let (mut found, mut other) = ([0; 3], [1; 3]);
        region.read_at(len - 3, &mut found).unwrap();
        rest.read_at(0, &mut other).unwrap();
        assert_eq!((&found, other), (b"end", [0; 3]));

        let start = region.base().addr().get() as u64;
        let end = start + len as u64;
        let all: Vec<_> = maps(std::process::id()).unwrap().map(Result::unwrap).collect();
        let at = |address: u64| all.iter().find(|map| map.range().contains(&address)).unwrap();
        assert_eq!(at(start).range(), start..end);
        for beyond in [start - 1, end] {
            assert!(!at(beyond).is_attachable(), "{:?}", at(beyond));
        }
        assert!(region.private_page().is_none());
    }

    #[test]
    fn behind_a_private_page_the_bytes_are_the_same_and_that_page_is_nobody_elses() {
        let page = rustix::param::page_size();
        let mapping = AnonymousMapping::create("behind", page).unwrap();
        let other = AnonymousMapping::from_fd(mapping.try_clone_fd().unwrap()).unwrap();
        mapping.region().write_at(0, b"begin").unwrap();
        let region = mapping.into_region().behind_private_page().unwrap();
        let mut found = [0; 5];
        region.read_at(0, &mut found).unwrap();
        assert_eq!(&found, b"begin");

        let start = region.private_page().unwrap().addr().get() as u64;
        assert_eq!(start + page as u64, region.base().addr().get() as u64);
        let all: Vec<_> = maps(std::process::id()).unwrap().map(Result::unwrap).collect();
        let at = |address: u64| all.iter().find(|map| map.range().contains(&address)).unwrap();
        assert!(at(start).is_attachable() && at(start).range().end == start + page as u64, "{:?}", at(start));
        assert!(at(start + page as u64).is_attachable());
        for beyond in [start - 1, start + 2 * page as u64] {
            assert!(!at(beyond).is_attachable(), "{:?}", at(beyond));
        }
        drop(region);
        other.region().read_at(0, &mut found).unwrap();
        assert_eq!(&found, b"begin");
    }
}
