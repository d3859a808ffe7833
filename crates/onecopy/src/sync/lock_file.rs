//! Opening, and making, the file that a lock lies on.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode as Permissions, OFlags, open as open_file};
use rustix::io::Errno;

use crate::io::mode::{create_exact, restore};
use crate::{Error, Result};

/// Without O_NONBLOCK a FIFO would wait for its other end here, and with O_CLOEXEC no child holds the lock by accident.
const FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NOCTTY).union(OFlags::NONBLOCK);
/// How often a file is looked for that others make and remove meanwhile. One that neither is there nor can be made, ever, is
/// a symbolic link without a target.
const TRIES: usize = 100;

/// Opens the file with the first of `accesses` that this user has. A missing one is made, empty, with exactly the permissions
/// `create`, or is ENOENT.
pub(super) fn open(path: &Path, accesses: &[OFlags], create: Option<Permissions>, object: &str) -> Result<OwnedFd> {
    for _ in 0..TRIES {
        match (open_existing(path, accesses), create) {
            (Err(Errno::NOENT), Some(mode)) => match create_new(path, accesses, mode) {
                // Another process was faster.
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => {
                    let error = Error::os("open", object, Errno::NOENT);
                    return Err(error.with_remedy("its directory does not exist: make that first"));
                }
                result => return result.map_err(|errno| Error::os("open", object, errno)),
            },
            (Err(Errno::NOENT), None) => {
                let error = Error::os("open", object, Errno::NOENT);
                return Err(error.with_remedy("there is no such file: create it first"));
            }
            (result, _) => return result.map_err(|errno| Error::os("open", object, errno)),
        }
    }
    Err(Error::os("open", object, Errno::EXIST).with_remedy("it is a symbolic link that leads nowhere"))
}

fn open_existing(path: &Path, accesses: &[OFlags]) -> Result<OwnedFd, Errno> {
    let mut first = None;
    for access in accesses {
        match open_file(path, FLAGS | *access, Permissions::empty()) {
            // Another access may be allowed: to a directory, a file of a read-only system, a program that runs.
            Err(errno @ (Errno::ACCESS | Errno::PERM | Errno::ISDIR | Errno::ROFS | Errno::TXTBSY)) => {
                first.get_or_insert(errno);
            }
            result => return result,
        }
    }
    Err(first.unwrap_or(Errno::INVAL))
}

fn create_new(path: &Path, accesses: &[OFlags], mode: Permissions) -> Result<OwnedFd, Errno> {
    let access = accesses.first().copied().unwrap_or(OFlags::RDONLY);
    let flags = FLAGS | access | OFlags::CREATE | OFlags::EXCL;
    let fd = create_exact(mode, || open_file(path, flags, mode))?;
    restore(&fd, mode)?;
    Ok(fd)
}
