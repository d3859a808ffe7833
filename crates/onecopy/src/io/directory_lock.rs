//! A short lock on a directory, which orders processes that create or replace the same name in it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use crate::Deadline;
use crate::io::wait::Backoff;

/// How long a lock is waited for. Its holder makes a few system calls; who holds it longer is stopped, or a stranger.
const PATIENCE: Duration = Duration::from_secs(1);

/// flock(2) on a directory: no lock file stays behind, and the kernel lets go when the holder dies.
///
/// The lock is advice among processes that use this library. Where it can't be had, since the directory may not be read or
/// a stranger holds it, there is none: nobody may keep others from a directory by it.
#[derive(Debug)]
pub(crate) struct DirectoryLock(#[expect(dead_code, reason = "closing the descriptor is the unlock")] Option<OwnedFd>);

impl DirectoryLock {
    /// Locks the directory that holds `path`.
    pub(crate) fn of_parent(path: &Path) -> Self {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(directory) = open(parent, flags, Mode::empty()) else { return Self(None) };
        let deadline = Deadline::after(PATIENCE);
        let mut backoff = Backoff::new();
        loop {
            if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Self(Some(directory));
            }
            if backoff.pause(deadline, "lock", "").is_err() {
                return Self(None);
            }
        }
    }
}
