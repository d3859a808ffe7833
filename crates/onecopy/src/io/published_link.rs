//! A symbolic link by which other processes find a pseudoterminal.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{lstat, readlink, rename, symlink, unlink};
use rustix::io::Errno;

use crate::address::path_text;
use crate::io::directory_lock::DirectoryLock;
use crate::{Error, Result};

/// Where the kernel shows the slave sides of pseudoterminals.
const TERMINALS: &str = "/dev/pts";

/// A link that goes when this is dropped, unless it leads elsewhere by then.
#[derive(Debug)]
pub(crate) struct PublishedLink {
    link: PathBuf,
    target: PathBuf,
    /// The process that made it. A child made by fork has a copy of this value, and the link is not the child's.
    owner: u32,
}

impl PublishedLink {
    /// Makes `link` lead to `target`, the slave side of a pseudoterminal that this process owns. A link to a terminal that is
    /// gone is replaced, in one step.
    ///
    /// # Errors
    ///
    /// EEXIST when anything else has the path.
    pub(crate) fn create(link: &Path, target: PathBuf, object: &str) -> Result<Self> {
        // Absolute, so that a change of the working directory cannot aim the removal elsewhere.
        let link = std::path::absolute(link).map_err(|error| Error::os("getcwd", object, error))?;
        let _lock = DirectoryLock::of_parent(&link);
        match symlink(&target, &link) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                check_dead(&link, &target, object)?;
                replace(&link, &target).map_err(|errno| Error::os("rename", object, errno))?;
            }
            Err(errno) => return Err(link_error(object, errno)),
        }
        Ok(Self { link, target, owner: std::process::id() })
    }

    /// The slave side to which the link leads.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }
}

impl Drop for PublishedLink {
    fn drop(&mut self) {
        if self.owner == std::process::id() && read(&self.link).is_ok_and(|target| target == self.target) {
            let _ = unlink(&self.link);
        }
    }
}

/// Refuses unless `link` leads to a terminal that is gone. One that leads to `target` was left by a process that had the same
/// number before us, since the numbers of living terminals differ.
fn check_dead(link: &Path, target: &Path, object: &str) -> Result<()> {
    let taken = |remedy: String| Error::os("symlink", object, Errno::EXIST).with_remedy(remedy);
    let old = match read(link) {
        Ok(old) => old,
        Err(Errno::NOENT) => return Ok(()),
        Err(_) => return Err(taken("a file that is no link has this path: remove it, or choose another path".into())),
    };
    if !old.starts_with(TERMINALS) {
        return Err(taken(format!("it is a link to {}, which is no terminal of ours", path_text(&old))));
    }
    if old != target && lstat(&old).is_ok() {
        return Err(taken(format!("the terminal {} that it leads to is in use: choose another path", path_text(&old))));
    }
    Ok(())
}

/// Puts a new link in the place of the old one, so that the path leads somewhere at every moment.
fn replace(link: &Path, target: &Path) -> Result<(), Errno> {
    // The number of a living terminal is unique: nobody else uses this name now.
    let number = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = link.with_file_name(format!(".onecopy-pty-{number}"));
    match unlink(&temporary) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    symlink(target, &temporary)?;
    rename(&temporary, link).inspect_err(|_| {
        let _ = unlink(&temporary);
    })
}

fn read(link: &Path) -> Result<PathBuf, Errno> {
    readlink(link, Vec::new()).map(|target| PathBuf::from(OsString::from_vec(target.into_bytes())))
}

fn link_error(object: &str, errno: Errno) -> Error {
    let error = Error::os("symlink", object, errno);
    match errno {
        Errno::NOENT => error.with_remedy("the directory does not exist"),
        _ => error,
    }
}
