//! Locks of an open file description.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode as Permissions;
use rustix::io::Errno;

use super::{ACCESSES, Holder, Kind, Span, try_until};
use crate::address::FileRange;
use crate::io::mode::permissions;
use crate::sync::{Acquired, Lock, Mode, held_already, lock_file, not_held};
use crate::{Deadline, Result};

/// A lock on a range of a file, which belongs to an open file description of its own.
///
/// ```
/// use onecopy::Deadline;
/// use onecopy::address::{FilePath, FileRange};
/// use onecopy::sync::record_lock::OfdLock;
/// use onecopy::sync::{Lock as _, Mode};
///
/// let path = std::env::temp_dir().join(format!("onecopy-doc-{}.table", std::process::id()));
/// let range = |start, len| FileRange::new(FilePath::new(&path)?, start, len);
/// let mut first = OfdLock::open_or_create(&range(0, 100)?, 0o600)?;
/// let mut second = OfdLock::open(&range(100, 100)?)?; // in another process
/// let both = (first.guard_by(Mode::Exclusive, Deadline::Now)?, second.guard_by(Mode::Exclusive, Deadline::Now)?);
/// # drop(both);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OfdLock {
    fd: OwnedFd,
    span: Span,
    object: String,
    held: Option<Mode>,
}

impl OfdLock {
    /// Opens a file that exists.
    ///
    /// # Errors
    ///
    /// ENOENT when it is missing; EACCES when this user may neither read nor write it.
    pub fn open(range: &FileRange) -> Result<Self> {
        Self::at(range, None)
    }

    /// Opens a file, which is created empty when it is missing, with exactly the permissions `mode`.
    ///
    /// # Errors
    ///
    /// Those of [`OfdLock::open`]; ENOENT and EACCES for its directory; [`Error::Invalid`](crate::Error::Invalid) for a mode
    /// beyond 0777.
    pub fn open_or_create(range: &FileRange, mode: u32) -> Result<Self> {
        Self::at(range, Some(permissions(mode, &object_of(range))?))
    }

    fn at(range: &FileRange, create: Option<Permissions>) -> Result<Self> {
        let object = object_of(range);
        let fd = lock_file::open(range.path(), &ACCESSES, create, &object)?;
        Ok(Self { fd, span: Span::new(range.start(), range.len()), object, held: None })
    }

    /// In which mode this value holds the range. A process that shares the description may have changed that.
    #[must_use]
    pub fn held(&self) -> Option<Mode> {
        self.held
    }

    /// Who would keep this value from holding the range in `mode` now; what it holds itself does not count. That may change at
    /// any time.
    ///
    /// # Errors
    ///
    /// None that are known of.
    pub fn holder(&self, mode: Mode) -> Result<Option<Holder>> {
        Kind::Description.holder(self.fd.as_fd(), self.span, mode, &self.object)
    }

    /// Turns the lock that is held into one of another mode, waiting until `deadline`: at one moment, so nobody is in between.
    /// Two that hold a range shared and both wait for it exclusively wait for each other.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) when nothing is held; otherwise as [`Lock::acquire_by`], and the lock is held as
    /// before.
    pub fn convert_by(&mut self, mode: Mode, deadline: Deadline) -> Result<()> {
        if self.held.is_none() {
            return Err(not_held(&self.object));
        }
        self.lock(mode, deadline)
    }

    fn lock(&mut self, mode: Mode, deadline: Deadline) -> Result<()> {
        let set = |waits| match Kind::Description.set(self.fd.as_fd(), self.span, Some(mode), waits) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(Kind::Description.error(&self.object, errno)),
        };
        match deadline {
            Deadline::Never => drop(set(true)?),
            _ => try_until(deadline, &self.object, || set(false))?,
        }
        self.held = Some(mode);
        Ok(())
    }
}

impl Lock for OfdLock {
    fn acquire_by(&mut self, mode: Mode, deadline: Deadline) -> Result<Acquired> {
        if self.held.is_some() {
            return Err(held_already(&self.object));
        }
        self.lock(mode, deadline).map(|()| Acquired::Clean)
    }

    /// Releases the range for all who share the description. Dropping the value only closes its descriptor, so that a child
    /// which inherited it keeps the lock.
    fn release(&mut self) -> Result<()> {
        if self.held.take().is_none() {
            return Err(not_held(&self.object));
        }
        let result = Kind::Description.set(self.fd.as_fd(), self.span, None, false);
        result.map_err(|errno| Kind::Description.error(&self.object, errno))
    }

    fn object(&self) -> &str {
        &self.object
    }
}

impl AsFd for OfdLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn object_of(range: &FileRange) -> String {
    format!("ofd:{range}")
}
