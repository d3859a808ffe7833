//! What lies in shared memory, and ranges of files.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use super::name::invalid;
use super::{Address, DescriptorName, FilePath, PosixName, SysvName};
use crate::Result;

/// Shared memory in which a lock, a semaphore or a futex word lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegionName {
    /// POSIX shared memory: `shm:/name`.
    PosixShm(PosixName),
    /// System V shared memory: `sysv-shm:KEY`.
    SysvShm(SysvName),
    /// A file: `mmap:/path`.
    FileMapping(FilePath),
    /// A memfd, or another file that is open: `fd:N`.
    Descriptor(DescriptorName),
}

impl From<RegionName> for Address {
    fn from(region: RegionName) -> Self {
        match region {
            RegionName::PosixShm(name) => Self::PosixShm(name),
            RegionName::SysvShm(name) => Self::SysvShm(name),
            RegionName::FileMapping(path) => Self::FileMapping(path),
            RegionName::Descriptor(descriptor) => Self::Descriptor(descriptor),
        }
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PosixShm(name) => write!(f, "shm:{name}"),
            Self::SysvShm(name) => write!(f, "sysv-shm:{name}"),
            Self::FileMapping(path) => write!(f, "mmap:{path}"),
            Self::Descriptor(descriptor) => write!(f, "fd:{descriptor}"),
        }
    }
}

/// A barrier: where it lies and how many meet at it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BarrierName {
    region: RegionName,
    parties: u32,
}

impl BarrierName {
    /// The most that can meet: glibc's barrier, which is for one less than it counts to, refuses more.
    pub(crate) const MAX_PARTIES: u32 = i32::MAX as u32 - 1;

    /// The barrier in `region` at which `parties` meet.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for 0 parties, and for more than 2147483646.
    pub fn new(region: RegionName, parties: u32) -> Result<Self> {
        let object = format!("barrier:{region}");
        Self::checked(region, parties.into()).map_err(|reason| invalid(OsStr::new(&object), reason))
    }

    pub(super) fn checked(region: RegionName, parties: u64) -> Result<Self, String> {
        match u32::try_from(parties) {
            Ok(count @ 1..=Self::MAX_PARTIES) => Ok(Self { region, parties: count }),
            _ => Err(format!("{parties} parties are not between 1 and {}", Self::MAX_PARTIES)),
        }
    }

    /// The memory in which it lies.
    #[must_use]
    pub fn region(&self) -> &RegionName {
        &self.region
    }

    /// How many meet at it, at least 1.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.parties
    }
}

impl fmt::Display for BarrierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let region = self.region.to_string();
        // In a path a question mark is encoded: one here begins the options of the region itself.
        let join = if region.contains('?') { '&' } else { '?' };
        write!(f, "{region}{join}parties={}", self.parties)
    }
}

/// A range of a file, to lock: `/path?start=S&len=L`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileRange {
    path: FilePath,
    start: u64,
    len: u64,
}

impl FileRange {
    /// `len` bytes from `start`; a length of 0 reaches to the end of the file, however far it grows
    /// ([fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html), `l_len`). The range may lie beyond the end.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for a range that ends above the largest file offset, 2^63 - 1.
    pub fn new(path: FilePath, start: u64, len: u64) -> Result<Self> {
        let object = path.to_string();
        Self::checked(path, start, len).map_err(|reason| invalid(OsStr::new(&object), reason))
    }

    pub(super) fn checked(path: FilePath, start: u64, len: u64) -> Result<Self, String> {
        let last = start.checked_add(len.saturating_sub(1));
        if last.is_none_or(|last| i64::try_from(last).is_err()) || i64::try_from(len).is_err() {
            return Err(format!("the range from {start} of {len} bytes ends above {}", i64::MAX));
        }
        Ok(Self { path, start, len })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.path.as_path()
    }

    /// The first byte's offset.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The length in bytes; 0 reaches to the end of the file, however far it grows.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty: 0 reaches to the end")]
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }
}

impl fmt::Display for FileRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        match (self.start, self.len) {
            (0, 0) => Ok(()),
            (start, 0) => write!(f, "?start={start}"),
            (0, len) => write!(f, "?len={len}"),
            (start, len) => write!(f, "?start={start}&len={len}"),
        }
    }
}
