//! Row 12, POSIX shared memory: [shm_overview(7)](https://man7.org/linux/man-pages/man7/shm_overview.7.html).
//!
//! An object named `/name` is the file `/dev/shm/name`, in glibc, in musl and here, so programs in every language share it by
//! name. It stays until it is unlinked or the machine goes down, whoever was killed meanwhile.
//!
//! Any process that may write the object may also shorten it. So copies from and to its [`Region`] are made by the kernel, and
//! one beyond the new end is [`Error::Shortened`](crate::Error::Shortened) and no SIGBUS;
//! [`Region::trusting_its_length`] gives that up for speed. Room
//! is allocated when an object is created or grows, so that a full `/dev/shm` is ENOSPC then, and no SIGBUS later.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::allocate::{check_len, check_memory};
use super::named_file::{self, Place};
use super::region::{Access, Region};
use crate::{Deadline, PosixName, Result};

/// A POSIX shared memory object, mapped as a whole.
///
/// ```
/// use onecopy::PosixName;
/// use onecopy::memory::posix_shm::PosixShm;
///
/// let name = PosixName::new(format!("/onecopy-doc-{}", std::process::id()))?;
/// let ours = PosixShm::create(&name, 4096, 0o600)?;
/// let theirs = PosixShm::open(&name)?; // in another process
/// PosixShm::unlink(&name)?;
/// ours.region().write_at(0, b"hello")?;
/// let mut buffer = [0; 5];
/// theirs.region().read_at(0, &mut buffer)?;
/// assert_eq!(&buffer, b"hello");
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct PosixShm {
    region: Region,
}

impl PosixShm {
    /// Creates an object of `len` zero bytes. It appears under its name with its whole length and with exactly the permissions
    /// `mode`, whatever the umask.
    ///
    /// # Errors
    ///
    /// EEXIST when the name is taken; EACCES; ENOSPC with the free bytes when `/dev/shm` is too full; ENOMEM beyond `ulimit -v`
    /// and beyond the memory of this machine, with its free bytes; [`Error::Invalid`](crate::Error::Invalid) for a length of 0.
    pub fn create(name: &PosixName, len: usize, mode: u32) -> Result<Self> {
        check_len(len, &object(name))?;
        check_memory(len, &object(name))?;
        at(name, |place| place.create(len, mode))
    }

    /// Maps an object that exists, for reading and writing. One whose creator has not yet given it a length is waited for, for
    /// a second.
    ///
    /// # Errors
    ///
    /// ENOENT when there is none; EACCES with its owner and mode; [`Error::Invalid`](crate::Error::Invalid) when its length
    /// stays 0, and when the name is that of something else.
    pub fn open(name: &PosixName) -> Result<Self> {
        at(name, |place| place.open(Access::ReadWrite))
    }

    /// As [`PosixShm::open`], waiting until `deadline` for somebody to create the object and give it a length.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`](crate::Error::TimedOut) when nobody did; otherwise as [`PosixShm::open`].
    pub fn open_by(name: &PosixName, deadline: Deadline) -> Result<Self> {
        at(name, |place| place.open_by(Access::ReadWrite, deadline))
    }

    /// As [`PosixShm::open`], for reading only: a right to read is enough.
    ///
    /// # Errors
    ///
    /// As [`PosixShm::open`].
    pub fn open_read_only(name: &PosixName) -> Result<Self> {
        at(name, |place| place.open(Access::ReadOnly))
    }

    /// As [`PosixShm::open_read_only`], waiting as [`PosixShm::open_by`] does.
    ///
    /// # Errors
    ///
    /// As [`PosixShm::open_by`].
    pub fn open_read_only_by(name: &PosixName, deadline: Deadline) -> Result<Self> {
        at(name, |place| place.open_by(Access::ReadOnly, deadline))
    }

    /// Maps the object if it exists, all of it, and creates it with `len` bytes and `mode` otherwise. Any number of processes
    /// may do so at once; all get the same object. One that stayed empty for a second, since its creator died, gets its length
    /// here.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) with both lengths when it exists and is shorter than `len`; otherwise as
    /// [`PosixShm::create`] and [`PosixShm::open`].
    pub fn open_or_create(name: &PosixName, len: usize, mode: u32) -> Result<Self> {
        check_len(len, &object(name))?;
        check_memory(len, &object(name))?;
        at(name, |place| place.open_or_create(len, mode))
    }

    /// Removes the name. Who has the object mapped keeps it; its memory is free when the last of them is gone.
    ///
    /// # Errors
    ///
    /// ENOENT when nothing has that name; EACCES and EPERM when it is somebody else's.
    pub fn unlink(name: &PosixName) -> Result<()> {
        Place { path: &path(name), object: &object(name), flags: OFlags::NOFOLLOW }.remove("shm_unlink")
    }

    /// The memory, as long as it was when it was mapped.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The memory alone.
    #[must_use]
    pub fn into_region(self) -> Region {
        self.region
    }

    /// The length of the object in bytes. Others may change it at any time; [`Region::len`] is what is mapped.
    ///
    /// # Errors
    ///
    /// Only in a sandbox that forbids fstat.
    pub fn current_len(&self) -> Result<usize> {
        named_file::current_len(&self.region)
    }

    /// Extends the object to `len` bytes, unless somebody already did, and maps that much. The other processes follow with
    /// [`PosixShm::refresh`], and see the old length until then.
    ///
    /// # Errors
    ///
    /// ENOSPC; [`Error::Invalid`](crate::Error::Invalid) when `len` is less than what is mapped; EBADF for an object that was
    /// opened read-only. The mapping stays as it was then.
    pub fn grow(&mut self, len: usize) -> Result<()> {
        check_memory(len.saturating_sub(self.region.len()), self.region.object())?;
        named_file::grow(&mut self.region, len)
    }

    /// Maps as much as the object has now, and returns that.
    ///
    /// # Errors
    ///
    /// [`Error::Shortened`](crate::Error::Shortened) when it is shorter than what is mapped, which stays as it was then.
    pub fn refresh(&mut self) -> Result<usize> {
        named_file::refresh(&mut self.region)
    }
}

fn at(name: &PosixName, map: impl FnOnce(&Place<'_>) -> Result<Region>) -> Result<PosixShm> {
    map(&Place { path: &path(name), object: &object(name), flags: OFlags::NOFOLLOW }).map(|region| PosixShm { region })
}

/// Where glibc and musl keep the object.
fn path(name: &PosixName) -> PathBuf {
    let name = name.as_bytes();
    Path::new("/dev/shm").join(OsStr::from_bytes(name.strip_prefix(b"/").unwrap_or(name)))
}

fn object(name: &PosixName) -> String {
    format!("shm:{name}")
}
