//! Row 14, the shared mapping of a file: [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html), MAP_SHARED.
//!
//! The bytes are those of a file on any file system: processes share them through the page cache, and they outlive every
//! process and, once flushed, the machine's power.
//!
//! Any process that may write the file may also shorten it, an editor or a log rotation among them. So copies from and to its
//! [`Region`] are made by the kernel, and one beyond the new end is
//! [`Error::Shortened`](crate::Error::Shortened) and no SIGBUS;
//! [`Region::trusting_its_length`] gives that up for speed. A file that is replaced by rename stays mapped as it was.

use std::path::Path;

use rustix::fs::OFlags;

use super::named_file::{self, Place};
use super::region::{Access, Region};
use crate::address::FilePath;
use crate::{Deadline, Result};

/// A file, mapped as a whole.
///
/// ```
/// use onecopy::memory::file_mapping::FileMapping;
///
/// let path = std::env::temp_dir().join(format!("onecopy-doc-{}", std::process::id()));
/// let mapping = FileMapping::create(&path, 4096, 0o600)?;
/// mapping.region().write_at(0, b"hello")?;
/// mapping.flush()?; // on the disk now
/// assert_eq!(&std::fs::read(&path).unwrap()[..5], b"hello");
/// FileMapping::remove(&path)?;
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct FileMapping {
    region: Region,
}

impl FileMapping {
    /// Creates a file of `len` zero bytes. It appears under its name with its whole length, with room on the disk for all of
    /// it, and with exactly the permissions `mode`, whatever the umask. (A file system without O_TMPFILE shows it earlier.)
    ///
    /// # Errors
    ///
    /// EEXIST when the name is taken; ENOENT when its directory is missing; EACCES; ENOSPC with the free bytes;
    /// ENOMEM beyond `ulimit -v`; EFBIG beyond `ulimit -f`; [`Error::Invalid`](crate::Error::Invalid) for a length of 0.
    pub fn create(path: &Path, len: usize, mode: u32) -> Result<Self> {
        at(path, |place| place.create(len, mode))
    }

    /// Maps a file that exists, for reading and writing. One whose creator has not yet given it a length is waited for, for a
    /// second.
    ///
    /// # Errors
    ///
    /// ENOENT when there is none; EACCES with its owner and mode; [`Error::Invalid`](crate::Error::Invalid) when its length
    /// stays 0, and for a directory, a FIFO or anything else that is no regular file; ENODEV from a file system whose files
    /// cannot be mapped.
    pub fn open(path: &Path) -> Result<Self> {
        at(path, |place| place.open(Access::ReadWrite))
    }

    /// As [`FileMapping::open`], waiting until `deadline` for somebody to create the file and give it a length.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`](crate::Error::TimedOut) when nobody did; otherwise as [`FileMapping::open`].
    pub fn open_by(path: &Path, deadline: Deadline) -> Result<Self> {
        at(path, |place| place.open_by(Access::ReadWrite, deadline))
    }

    /// As [`FileMapping::open`], for reading only: a right to read is enough.
    ///
    /// # Errors
    ///
    /// As [`FileMapping::open`].
    pub fn open_read_only(path: &Path) -> Result<Self> {
        at(path, |place| place.open(Access::ReadOnly))
    }

    /// As [`FileMapping::open_read_only`], waiting as [`FileMapping::open_by`] does.
    ///
    /// # Errors
    ///
    /// As [`FileMapping::open_by`].
    pub fn open_read_only_by(path: &Path, deadline: Deadline) -> Result<Self> {
        at(path, |place| place.open_by(Access::ReadOnly, deadline))
    }

    /// Maps the file if it exists, all of it, and creates it with `len` bytes and `mode` otherwise. Any number of processes may
    /// do so at once; all get the same file. One that stayed empty for a second gets its length here.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) with both lengths when it exists and is shorter than `len`; otherwise as
    /// [`FileMapping::create`] and [`FileMapping::open`].
    pub fn open_or_create(path: &Path, len: usize, mode: u32) -> Result<Self> {
        at(path, |place| place.open_or_create(len, mode))
    }

    /// Removes the file's name. Who has it mapped keeps it.
    ///
    /// # Errors
    ///
    /// ENOENT when nothing has that name; EISDIR for a directory; EACCES and EPERM.
    pub fn remove(path: &Path) -> Result<()> {
        Place { path, object: &object(path)?, flags: OFlags::empty() }.remove("unlink")
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

    /// Waits until every byte written so far, by this process or another, is on the disk (msync(2) with MS_SYNC).
    ///
    /// # Errors
    ///
    /// EIO when the disk failed, reported once to each descriptor.
    pub fn flush(&self) -> Result<()> {
        self.region.sync(0, self.region.len())
    }

    /// As [`FileMapping::flush`], for the pages with the bytes from `offset` to `offset + len`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) with the numbers when the range does not lie within the region; otherwise as
    /// [`FileMapping::flush`].
    pub fn flush_range(&self, offset: usize, len: usize) -> Result<()> {
        self.region.sync(offset, len)
    }

    /// The length of the file in bytes. Others may change it at any time; [`Region::len`] is what is mapped.
    ///
    /// # Errors
    ///
    /// EIO and ESTALE from a file system that lost the file.
    pub fn current_len(&self) -> Result<usize> {
        named_file::current_len(&self.region)
    }

    /// Extends the file to `len` bytes, unless somebody already did, and maps that much. The other processes follow with
    /// [`FileMapping::refresh`], and see the old length until then.
    ///
    /// # Errors
    ///
    /// ENOSPC; [`Error::Invalid`](crate::Error::Invalid) when `len` is less than what is mapped; EBADF for a file that was
    /// opened read-only; EOPNOTSUPP from a file system without fallocate(2). The mapping stays as it was then.
    pub fn grow(&mut self, len: usize) -> Result<()> {
        named_file::grow(&mut self.region, len)
    }

    /// Maps as much as the file has now, and returns that.
    ///
    /// # Errors
    ///
    /// [`Error::Shortened`](crate::Error::Shortened) when it is shorter than what is mapped, which stays as it was then.
    pub fn refresh(&mut self) -> Result<usize> {
        named_file::refresh(&mut self.region)
    }
}

fn at(path: &Path, map: impl FnOnce(&Place<'_>) -> Result<Region>) -> Result<FileMapping> {
    map(&Place { path, object: &object(path)?, flags: OFlags::empty() }).map(|region| FileMapping { region })
}

fn object(path: &Path) -> Result<String> {
    Ok(format!("mmap:{}", FilePath::new(path)?))
}
