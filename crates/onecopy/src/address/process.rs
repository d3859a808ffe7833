//! Addresses that begin at a process: its pid, its descriptors, its memory.

use std::ffi::OsStr;
use std::fmt;
use std::num::NonZeroU64;

use super::name::invalid;
use crate::Result;

/// The number of a process: 1 to 2147483647.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(i32);

impl Pid {
    /// The process numbered `pid`, as [`std::process::id`] and [`std::process::Child::id`] give it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for 0, which means a process group to some calls and nothing to others,
    /// and above 2147483647.
    pub fn new(pid: u32) -> Result<Self> {
        Self::checked(pid.into()).map_err(|reason| invalid(OsStr::new(&format!("pid {pid}")), reason))
    }

    pub(super) fn checked(pid: u64) -> Result<Self, String> {
        match i32::try_from(pid) {
            Ok(0) => Err("pid 0 is no process".into()),
            Ok(pid) => Ok(Self(pid)),
            Err(_) => Err(format!("pid {pid} is above {}", i32::MAX)),
        }
    }

    /// The number, always positive.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A descriptor: one of this process's own, `N`, or one of another process's, `PID:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DescriptorName {
    owner: Option<Pid>,
    number: u32,
}

impl DescriptorName {
    /// Descriptor `number` of this process, which it inherited or was passed.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) above 2147483647.
    pub fn own(number: u32) -> Result<Self> {
        Self::checked(None, number.into()).map_err(|reason| invalid(OsStr::new(&format!("fd:{number}")), reason))
    }

    /// Descriptor `number` of process `owner`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) above 2147483647.
    pub fn of(owner: Pid, number: u32) -> Result<Self> {
        Self::checked(Some(owner), number.into())
            .map_err(|reason| invalid(OsStr::new(&format!("fd:{owner}:{number}")), reason))
    }

    pub(super) fn checked(owner: Option<Pid>, number: u64) -> Result<Self, String> {
        match i32::try_from(number) {
            Ok(fd) => Ok(Self { owner, number: fd.unsigned_abs() }),
            Err(_) => Err(format!("descriptor {number} is above {}", i32::MAX)),
        }
    }

    /// The process that holds it; `None` is this one.
    #[must_use]
    pub fn owner(self) -> Option<Pid> {
        self.owner
    }

    /// The number of the descriptor.
    #[must_use]
    pub fn number(self) -> u32 {
        self.number
    }
}

impl fmt::Display for DescriptorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.owner {
            Some(owner) => write!(f, "{owner}:{}", self.number),
            None => write!(f, "{}", self.number),
        }
    }
}

/// A range in the memory of another process: `PID:ADDRESS+LENGTH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryRange {
    pid: Pid,
    address: u64,
    len: NonZeroU64,
}

impl MemoryRange {
    /// `len` bytes at `address` of process `pid`. Whether they are mapped, and stay so, only a transfer can tell.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for a length of 0, and for a range that ends above the address space.
    pub fn new(pid: Pid, address: u64, len: u64) -> Result<Self> {
        Self::checked(pid, address, len)
            .map_err(|reason| invalid(OsStr::new(&format!("mem:{pid}:{address:#x}+{len}")), reason))
    }

    pub(super) fn checked(pid: Pid, address: u64, len: u64) -> Result<Self, String> {
        let len = NonZeroU64::new(len).ok_or("the length is 0")?;
        if address.checked_add(len.get()).is_none() {
            return Err("the range ends above the address space".into());
        }
        Ok(Self { pid, address, len })
    }

    /// The process.
    #[must_use]
    pub fn pid(self) -> Pid {
        self.pid
    }

    /// The first byte's address in that process.
    #[must_use]
    pub fn address(self) -> u64 {
        self.address
    }

    /// The length in bytes, never 0.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    #[must_use]
    pub fn len(self) -> u64 {
        self.len.get()
    }
}

impl fmt::Display for MemoryRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:#x}+{}", self.pid, self.address, self.len)
    }
}
