//! Memory that one process alone can write and others can read: for messages that are made in place.
//!
//! | Who | How it has the memory | Why it stays so |
//! |---|---|---|
//! | the process that made it | one writable mapping | mapped before F_SEAL_FUTURE_WRITE, which leaves it as it is |
//! | whom it passes the descriptor | read-only | F_SEAL_FUTURE_WRITE refuses new writable mappings, mprotect(2) of others, write(2) and holes |
//! | a child made by fork | not at all | MADV_DONTFORK, and the descriptor is closed by then or on exec |
//!
//! See [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html), "File sealing"; Linux 5.1.
//!
//! # Safety
//!
//! [`Exclusive`] is the only mapping through which its bytes can be written, in any process, so references to them follow the
//! rules of references to private memory, and a shared mapping of it elsewhere can do no more than read. Who may attach to this
//! process can write them as any other memory of it. In a child made by fork the mapping does not exist and its addresses may be
//! anybody's: each access looks for the sentinel, which the kernel clears there, and nothing is unmapped.
#![expect(unsafe_code, reason = "lends out shared memory that nobody else can write")]

use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{SealFlags, ftruncate};
use rustix::mm::{Advice, madvise};

use super::{add_seals, check_name, length, new_memfd, shrink_sealed};
use crate::memory::allocate::{check_len, check_limit, check_memory};
use crate::memory::nonce::Nonce;
use crate::memory::region::{Access, Region};
use crate::{Error, Result};

/// The writable mapping.
#[derive(Debug)]
pub(crate) struct Exclusive {
    region: ManuallyDrop<Region>,
    /// Is there in the process that made the mapping, and in no child of it.
    sentinel: Nonce,
}

impl Exclusive {
    /// New memory of `len` zeros, and the descriptor of it for others, who cannot write by it. Pages are taken when they are
    /// warmed or touched.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] as [`AnonymousMapping::create`](super::AnonymousMapping::create); [`Error::Unsupported`] before Linux
    /// 5.1; EMFILE, ENFILE, ENOMEM.
    pub(crate) fn create(name: &str, len: usize) -> Result<(Self, OwnedFd)> {
        let object = format!("memfd:{name}");
        check_name(name, &object)?;
        check_len(len, &object)?;
        check_limit(len, &object)?;
        let sentinel = Nonce::draw()?;
        let fd = new_memfd(name, &object)?;
        ftruncate(&fd, len as u64).map_err(|errno| Error::os("ftruncate", &object, errno))?;
        add_seals(fd.as_fd(), SealFlags::SHRINK | SealFlags::GROW, &object)?;
        let region = Region::map(fd.as_fd(), len, Access::ReadWrite, object)?;
        keep_from_children(&region)?;
        let mapping = Self { region: ManuallyDrop::new(region), sentinel };
        add_seals(fd.as_fd(), SealFlags::FUTURE_WRITE | SealFlags::SEAL, mapping.object())?;
        Ok((mapping, fd))
    }

    pub(crate) fn len(&self) -> usize {
        self.region.len()
    }

    fn object(&self) -> &str {
        self.region.object()
    }

    /// Takes the pages of `range`, so that their first use neither faults nor finds that there is no memory (a SIGBUS).
    ///
    /// # Errors
    ///
    /// ENOMEM, also when this machine cannot have so much memory free.
    pub(crate) fn warm(&self, range: Range<usize>) -> Result<()> {
        check_memory(range.len(), self.object())?;
        self.check(&range);
        self.region.warm(range.start, range.len())
    }

    /// The bytes of `range`.
    ///
    /// # Panics
    ///
    /// When the range does not lie within the memory, and in a child made by fork, which does not have it.
    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        self.check(&range);
        // SAFETY: within the mapping, checked above.
        let start = unsafe { self.region.base().add(range.start) };
        // SAFETY: so many bytes of the mapping, which lives as long as `self`; initialised, since a memfd begins as zeros; nobody
        // else can write them, see above, and through `self` that needs a unique borrow.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), range.len()) }
    }

    /// The bytes of `range`, to be written.
    ///
    /// # Panics
    ///
    /// As [`Exclusive::slice`].
    pub(crate) fn slice_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        self.check(&range);
        // SAFETY: within the mapping, checked above.
        let start = unsafe { self.region.base().add(range.start) };
        // SAFETY: as in `slice`; the unique borrow of `self` makes it the only reference of this process, and no other one can
        // write.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), range.len()) }
    }

    #[inline]
    fn check(&self, range: &Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.region.len(), "{range:?} of {}", self.region.len());
        assert!(self.sentinel.is_intact(), "this memory is the parent's: a child made by fork does not have it");
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if self.sentinel.is_intact() {
            // SAFETY: dropped once, here, and not used any more.
            unsafe { ManuallyDrop::drop(&mut self.region) };
        }
    }
}

/// Maps what another process has made by [`Exclusive::create`], to read it. That process may write at any time.
///
/// # Errors
///
/// [`Error::Invalid`] when `fd` is no memfd, is not sealed against shrinking, is empty, or is longer than `limit_bytes`. ENOMEM.
pub(crate) fn map_to_read(fd: &OwnedFd, limit_bytes: usize, object: &str) -> Result<Region> {
    shrink_sealed(fd.as_fd(), object)?;
    let len = length(fd.as_fd(), object)?;
    if len > limit_bytes {
        let reason = format!("it has {len} bytes, where {limit_bytes} are the limit");
        return Err(Error::Invalid { object: object.to_owned(), reason });
    }
    Region::map(fd.as_fd(), len, Access::ReadOnly, object.to_owned())
}

fn keep_from_children(region: &Region) -> Result<()> {
    // SAFETY: the whole of a mapping that was just made and nobody uses yet; no byte changes.
    unsafe { madvise(region.base().as_ptr().cast(), region.len(), Advice::LinuxDontFork) }
        .map_err(|errno| Error::os("madvise(MADV_DONTFORK)", region.object(), errno))
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use rustix::fs::{Mode, OFlags, open};
    use rustix::io::Errno;
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect};

    use super::*;

    #[test]
    fn what_is_written_can_be_read_elsewhere_and_nobody_else_can_write() {
        let (mut own, fd) = Exclusive::create("exclusive", 1 << 20).unwrap();
        own.warm(0..1 << 20).unwrap();
        own.slice_mut(4096..4101).copy_from_slice(b"hello");
        assert_eq!(own.slice(4096..4101), b"hello");
        let other = map_to_read(&fd, 1 << 20, "other").unwrap();
        assert!(matches!(map_to_read(&fd, (1 << 20) - 1, "too long"), Err(Error::Invalid { .. })));
        let mut found = [0; 5];
        other.read_at(4096, &mut found).unwrap();
        assert_eq!(&found, b"hello");
        assert!(other.write_at(0, b"x").is_err());
        assert_eq!(rustix::io::pwrite(&fd, b"x", 0), Err(Errno::PERM));
        assert_eq!(
            rustix::fs::fallocate(
                &fd,
                rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
                0,
                4096
            ),
            Err(Errno::PERM)
        );
        // SAFETY: a null hint lets the kernel choose an address range that nothing else uses.
        let writable =
            unsafe { mmap(ptr::null_mut(), 4096, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0) };
        assert_eq!(writable, Err(Errno::PERM));
        // SAFETY: a mapping of this test, which loses nothing by it.
        let raised =
            unsafe { mprotect(other.base().as_ptr().cast(), 4096, MprotectFlags::READ | MprotectFlags::WRITE) };
        assert_eq!(raised, Err(Errno::ACCESS));
        assert_eq!(own.slice(0..1), [0]);
    }

    #[test]
    fn a_descriptor_of_something_else_is_refused() {
        for flags in [OFlags::RDWR, OFlags::PATH] {
            let file = open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
            let error = map_to_read(&file, 1 << 20, "theirs").unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
        }
    }
}
