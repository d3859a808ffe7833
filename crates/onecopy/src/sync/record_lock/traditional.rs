//! Locks of a process.

use rustix::fs::Mode as Permissions;

use super::registry::Place;
use super::{Holder, Kind, Span, try_until};
use crate::address::FileRange;
use crate::io::mode::permissions;
use crate::sync::{Acquired, Lock, Mode, held_already, not_held};
use crate::{Deadline, Result};

/// A lock on a range of a file, which belongs to the process: see [the module](super) for what that means.
///
/// ```
/// use onecopy::Deadline;
/// use onecopy::address::{FilePath, FileRange};
/// use onecopy::sync::record_lock::RecordLock;
/// use onecopy::sync::{Lock as _, Mode};
///
/// let path = std::env::temp_dir().join(format!("onecopy-doc-{}.mailbox", std::process::id()));
/// let range = FileRange::new(FilePath::new(&path)?, 0, 0)?;
/// let mut lock = RecordLock::open_or_create(&range, 0o600)?;
/// let guard = lock.guard_by(Mode::Exclusive, Deadline::Never)?;
/// let other = RecordLock::open(&range)?;
/// assert_eq!(other.holder(Mode::Shared)?.and_then(|holder| holder.process), Some(std::process::id()));
/// # drop(guard);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RecordLock {
    place: Place,
    object: String,
}

impl RecordLock {
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
    /// Those of [`RecordLock::open`]; ENOENT and EACCES for its directory; [`Error::Invalid`](crate::Error::Invalid) for a mode
    /// beyond 0777.
    pub fn open_or_create(range: &FileRange, mode: u32) -> Result<Self> {
        Self::at(range, Some(permissions(mode, &object_of(range))?))
    }

    fn at(range: &FileRange, create: Option<Permissions>) -> Result<Self> {
        let object = object_of(range);
        let place = Place::open(range.path(), Span::new(range.start(), range.len()), create, &object)?;
        Ok(Self { place, object })
    }

    /// In which mode this value holds the range. A child that was forked holds nothing.
    #[must_use]
    pub fn held(&self) -> Option<Mode> {
        self.place.held()
    }

    /// Who would keep this value from holding the range in `mode` now, in this process or another; what it holds itself does
    /// not count. That may change at any time.
    ///
    /// # Errors
    ///
    /// None that are known of.
    pub fn holder(&self, mode: Mode) -> Result<Option<Holder>> {
        self.place.holder(mode, &self.object)
    }

    /// Turns the lock that is held into one of another mode, waiting until `deadline`: at one moment, so nobody is in between.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) when nothing is held; EDEADLK, with [`Deadline::Never`], when another process or
    /// another value of this one that holds it shared waits for the same; otherwise as [`Lock::acquire_by`], and the lock is
    /// held as before.
    pub fn convert_by(&mut self, mode: Mode, deadline: Deadline) -> Result<()> {
        if self.held().is_none() {
            return Err(not_held(&self.object));
        }
        self.lock(mode, deadline)
    }

    fn lock(&self, mode: Mode, deadline: Deadline) -> Result<()> {
        let failed = |errno| Kind::Process.error(&self.object, errno);
        match deadline {
            Deadline::Never => self.place.lock(mode).map_err(failed),
            _ => try_until(deadline, &self.object, || self.place.try_lock(mode).map_err(failed)),
        }
    }
}

impl Lock for RecordLock {
    /// EDEADLK, with [`Deadline::Never`], when its holder, which is another process, waits for a lock that this process holds.
    fn acquire_by(&mut self, mode: Mode, deadline: Deadline) -> Result<Acquired> {
        if self.held().is_some() {
            return Err(held_already(&self.object));
        }
        self.lock(mode, deadline).map(|()| Acquired::Clean)
    }

    fn release(&mut self) -> Result<()> {
        if self.held().is_none() {
            return Err(not_held(&self.object));
        }
        self.place.unlock().map_err(|errno| Kind::Process.error(&self.object, errno))
    }

    fn object(&self) -> &str {
        &self.object
    }
}

fn object_of(range: &FileRange) -> String {
    format!("record:{range}")
}
