//! Row 24, the file lock: [flock(2)](https://man7.org/linux/man-pages/man2/flock.2.html).
//!
//! A whole file is locked, shared or exclusively, by an open file description. [`FileLock`] and flock(1) exclude each other,
//! as do all programs that call flock(2) on the file. The lock is advice: it stops nobody who does not ask.
//!
//! **When its holder dies**, however it dies, the kernel releases the lock with the last descriptor of the description. A child
//! that inherited the descriptor ([`AsFd`]; it is closed on exec unless the caller changes that) holds the lock too: it keeps
//! it after its parent's death, and can release it for both. A waiter that dies leaves nothing.
//!
//! **Whoever may open the file**, for reading or for writing, can lock it exclusively and keep it: give it a mode that lets in
//! only whom you trust with that, and wait by a deadline. Whoever may write its directory can remove the file. A lock on a
//! removed file excludes nobody, so a [`FileLock`] that was opened by its path looks, each time it has acquired the lock, whether
//! the path still names the same file, and goes on with the new one if not. flock(1) does not look: do not remove lock files
//! that it uses.
//!
//! flock(2) has no timeout: with [`Deadline::Never`] a call waits in the kernel, with an instant this library tries and sleeps
//! between tries, at first 1 ms, at last 10 ms, so those who wait in the kernel are served first. On local file systems file
//! locks and record locks do not see each other; on NFS a file lock is a record lock, and an exclusive one needs a descriptor
//! that is open for writing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode as Permissions, OFlags, flock, fstat, stat};
use rustix::io::Errno;

use super::{Acquired, Lock, Mode, held_already, lock_file, not_held};
use crate::address::path_text;
use crate::io::mode::permissions;
use crate::io::wait::Backoff;
use crate::{Deadline, Error, Result};

/// To lock a file it takes a right to read it, or one to write it.
const ACCESSES: [OFlags; 2] = [OFlags::RDONLY, OFlags::WRONLY];

/// A lock on a file. Each value has an open file description of its own, so two in one process exclude each other.
///
/// ```
/// use onecopy::Deadline;
/// use onecopy::sync::file_lock::FileLock;
/// use onecopy::sync::{Lock as _, Mode};
///
/// let path = std::env::temp_dir().join(format!("onecopy-doc-{}.lock", std::process::id()));
/// let mut ours = FileLock::open_or_create(&path, 0o600)?;
/// let mut theirs = FileLock::open(&path)?; // in another process
/// let guard = ours.guard_by(Mode::Exclusive, Deadline::Never)?;
/// assert!(theirs.acquire_by(Mode::Shared, Deadline::Now).unwrap_err().is_out_of_time());
/// drop(guard);
/// let _ = theirs.acquire_by(Mode::Shared, Deadline::Now)?;
/// std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileLock {
    fd: OwnedFd,
    object: String,
    held: Option<Mode>,
    source: Option<Source>,
}

/// Where the file was found, to find it again.
#[derive(Debug)]
struct Source {
    /// Absolute, unless the working directory cannot be told.
    path: PathBuf,
    /// The permissions with which a missing file is made; `None` is an error then.
    create: Option<Permissions>,
}

impl FileLock {
    /// Opens a file or a directory that exists.
    ///
    /// # Errors
    ///
    /// ENOENT when it is missing; EACCES when this user may neither read nor write it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::at(path.as_ref(), None)
    }

    /// Opens a file, which is created empty when it is missing, with exactly the permissions `mode`.
    ///
    /// # Errors
    ///
    /// Those of [`FileLock::open`]; ENOENT and EACCES for its directory; [`Error::Invalid`] for a mode beyond 0777.
    pub fn open_or_create(path: impl AsRef<Path>, mode: u32) -> Result<Self> {
        let path = path.as_ref();
        Self::at(path, Some(permissions(mode, &object_of(path))?))
    }

    /// Takes over a descriptor, such as one that this process inherited: what its description holds is acquired at once, and
    /// released for all who share it. `object` is what errors call it.
    #[must_use]
    pub fn from_fd(fd: OwnedFd, object: impl Into<String>) -> Self {
        Self { fd, object: object.into(), held: None, source: None }
    }

    fn at(path: &Path, create: Option<Permissions>) -> Result<Self> {
        let object = object_of(path);
        let source = Source { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), create };
        Ok(Self { fd: source.open(&object)?, object, held: None, source: Some(source) })
    }

    /// In which mode this value holds the lock. A process that shares the description may have changed that.
    #[must_use]
    pub fn held(&self) -> Option<Mode> {
        self.held
    }

    /// Turns the lock that is held into one of another mode, waiting until `deadline`.
    ///
    /// That is not atomic, in either direction: the kernel gives the old lock up before it asks for the new one. Another
    /// process may hold the file in between, so what was read before must be read again. Where the file was removed meanwhile it is
    /// the new one that is locked, as by [`Lock::acquire_by`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when nothing is held; [`Error::WouldBlock`] and [`Error::TimedOut`] when somebody else holds it; those of
    /// [`FileLock::open`] when it was removed. Then the old lock is lost too, and [`FileLock::held`] is `None`.
    pub fn convert_by(&mut self, mode: Mode, deadline: Deadline) -> Result<()> {
        match self.held {
            None => return Err(not_held(&self.object)),
            Some(held) if held == mode => return Ok(()),
            Some(_) => self.held = None,
        }
        self.lock_in_place(mode, deadline).inspect_err(|_| {
            // A call that fails for want of memory leaves the old lock, one that would wait does not: make it the same.
            let _ = self.unlock();
        })
    }

    /// Locks the file that the path names, be it another one than the one that is open.
    fn lock_in_place(&mut self, mode: Mode, deadline: Deadline) -> Result<()> {
        let mut tries = 0;
        loop {
            self.lock(mode, deadline)?;
            if self.is_in_place() {
                self.held = Some(mode);
                return Ok(());
            }
            // The file was removed while we waited. Its lock goes first: where no other one can be opened the descriptor stays, and
            // the file may get its name back.
            self.unlock()?;
            self.open_again()?;
            tries += 1;
            if tries > 1 && deadline.has_passed() {
                return Err(Error::out_of_time("lock", &self.object, deadline));
            }
        }
    }

    fn lock(&self, mode: Mode, deadline: Deadline) -> Result<()> {
        let operation = match (mode, deadline) {
            (Mode::Shared, Deadline::Never) => FlockOperation::LockShared,
            (Mode::Exclusive, Deadline::Never) => FlockOperation::LockExclusive,
            (Mode::Shared, _) => FlockOperation::NonBlockingLockShared,
            (Mode::Exclusive, _) => FlockOperation::NonBlockingLockExclusive,
        };
        let mut backoff = Backoff::new();
        loop {
            match flock(&self.fd, operation) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => backoff.pause(deadline, "lock", &self.object)?,
                Err(errno) => return Err(self.error(errno)),
            }
        }
    }

    fn unlock(&self) -> Result<()> {
        flock(&self.fd, FlockOperation::Unlock).map_err(|errno| self.error(errno))
    }

    /// Whether the path still names the file that is open. Where that cannot be told it counts as the same.
    fn is_in_place(&self) -> bool {
        let Some(source) = &self.source else { return true };
        match (fstat(&self.fd), stat(&source.path)) {
            (Ok(open), Ok(named)) => (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino),
            (Ok(_), Err(Errno::NOENT)) => false,
            _ => true,
        }
    }

    fn open_again(&mut self) -> Result<()> {
        if let Some(source) = &self.source {
            self.fd = source.open(&self.object)?;
        }
        Ok(())
    }

    fn error(&self, errno: Errno) -> Error {
        let error = Error::os("flock", &self.object, errno);
        match errno {
            Errno::BADF => {
                error.with_remedy("on this file system an exclusive lock needs a file that is open for writing")
            }
            Errno::NOLCK => error.with_remedy("the kernel has no memory for another lock"),
            _ => error,
        }
    }
}

impl Source {
    fn open(&self, object: &str) -> Result<OwnedFd> {
        lock_file::open(&self.path, &ACCESSES, self.create, object)
    }
}

fn object_of(path: &Path) -> String {
    format!("flock:{}", path_text(path))
}

impl Lock for FileLock {
    fn acquire_by(&mut self, mode: Mode, deadline: Deadline) -> Result<Acquired> {
        if self.held.is_some() {
            return Err(held_already(&self.object));
        }
        self.lock_in_place(mode, deadline).map(|()| Acquired::Clean)
    }

    /// Releases the lock for all who share the description. Dropping the value only closes its descriptor, so that a child
    /// which inherited it keeps the lock.
    fn release(&mut self) -> Result<()> {
        if self.held.take().is_none() {
            return Err(not_held(&self.object));
        }
        self.unlock()
    }

    fn object(&self) -> &str {
        &self.object
    }
}

impl AsFd for FileLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
