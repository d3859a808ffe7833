//! Mapped files that have a name: what POSIX shared memory objects, which are files below `/dev/shm`, and mappings of other
//! files have in common.
//!
//! A new file gets its length, its room and its mode, and is mapped, before it gets its name (O_TMPFILE and linkat), so nobody
//! ever sees it unfinished, and a creator that fails or is killed leaves nothing. Programs that use `shm_open` and `ftruncate`
//! do show an empty file for a moment: so whoever opens one waits until it has a length.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{
    Access as FileAccess, AtFlags, CWD, FileType, Mode, OFlags, access, fchmod, fstat, linkat, lstat, open, stat,
    unlink,
};
use rustix::io::Errno;

use super::allocate::{Use, allocate, check_len};
use super::region::{Access, Region};
use crate::io::mode::permissions;
use crate::{Deadline, Error, Result};

/// How long an empty file may take to get its length before it counts as abandoned.
const SETTLE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// A name in the file system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) path: &'a Path,
    /// The address, for errors.
    pub(super) object: &'a str,
    /// NOFOLLOW where a symbolic link is none of ours.
    pub(super) flags: OFlags,
}

/// What was found under a name.
enum Found {
    Nothing,
    Empty(OwnedFd),
    File(OwnedFd, usize),
}

impl Place<'_> {
    /// A new file of `len` zero bytes with exactly the permissions `mode`; EEXIST when the name is taken.
    pub(super) fn create(&self, len: usize, mode: u32) -> Result<Region> {
        check_len(len, self.object)?;
        let mode = permissions(mode, self.object)?;
        // linkat below is what decides; this only spares the work.
        if access(self.path, FileAccess::EXISTS).is_ok() {
            return Err(self.exists());
        }
        match self.create_unnamed(len, mode) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) => {
                self.create_named(len, mode)
            }
            result => result,
        }
    }

    fn create_unnamed(&self, len: usize, mode: Mode) -> Result<Region> {
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd =
            open(directory, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| self.error("open(O_TMPFILE)", errno))?;
        self.fill(&fd, len, mode)?;
        // AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH before Linux 6.10.
        let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
        // Before it has its name: what cannot be mapped leaves nothing behind.
        let region = self.map(fd, len)?;
        linkat(CWD, source, CWD, self.path, AtFlags::SYMLINK_FOLLOW).map_err(|errno| match errno {
            Errno::EXIST => self.exists(),
            _ => self.error("linkat", errno),
        })?;
        Ok(self.reopened(region))
    }

    fn map(&self, fd: OwnedFd, len: usize) -> Result<Region> {
        Region::map_file(fd, len, Access::ReadWrite, self.object.to_owned())
    }

    /// The same file opened by its name, which /proc/PID/maps and fuser(1) then show; without it they say "deleted". Where
    /// the name does not lead there (its mode forbids it, or somebody was quick), and where it cannot be mapped a second time,
    /// the region stays as it was.
    fn reopened(&self, region: Region) -> Region {
        let named =
            open(self.path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW, Mode::empty());
        let same = |named: &OwnedFd| -> Result<bool, Errno> {
            let ours = region.file().expect("a region with a name is one of a file");
            let (ours, found) = (fstat(ours)?, fstat(named)?);
            Ok((ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino))
        };
        match named {
            Ok(named) if same(&named) == Ok(true) => self.map(named, region.len()).unwrap_or(region),
            _ => region,
        }
    }

    /// For file systems without O_TMPFILE: others may see the file before it has its length, and wait.
    fn create_named(&self, len: usize, mode: Mode) -> Result<Region> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = open(self.path, flags, mode).map_err(|errno| match errno {
            Errno::EXIST => self.exists(),
            _ => self.error("open(O_CREAT)", errno),
        })?;
        self.fill(&fd, len, mode).and_then(|()| self.map(fd, len)).inspect_err(|_| {
            let _ = unlink(self.path);
        })
    }

    fn fill(&self, fd: &OwnedFd, len: usize, mode: Mode) -> Result<()> {
        allocate(fd.as_fd(), 0, len, Use::Fresh, self.object)?;
        // Past the umask.
        fchmod(fd, mode).map_err(|errno| self.error("fchmod", errno))
    }

    /// Maps a file that exists, all of it.
    pub(super) fn open(&self, access: Access) -> Result<Region> {
        self.open_waiting(access, Deadline::Now, Deadline::after(SETTLE))
    }

    /// As [`Place::open`], waiting until `deadline` for the file to appear.
    pub(super) fn open_by(&self, access: Access, deadline: Deadline) -> Result<Region> {
        self.open_waiting(access, deadline, deadline)
    }

    fn open_waiting(&self, access: Access, appear: Deadline, settle: Deadline) -> Result<Region> {
        loop {
            let (deadline, missing) = match self.find(access)? {
                Found::File(fd, len) => return Region::map_file(fd, len, access, self.object.to_owned()),
                Found::Nothing => (appear, self.absent()),
                Found::Empty(_) => (settle, self.empty()),
            };
            if !pause(deadline) {
                let waited = matches!(appear, Deadline::At(_));
                return Err(if waited { Error::out_of_time("open", self.object, deadline) } else { missing });
            }
        }
    }

    /// Maps the file if it exists, and creates it otherwise. Any number of processes may do so at once: they get the same one.
    pub(super) fn open_or_create(&self, len: usize, mode: u32) -> Result<Region> {
        check_len(len, self.object)?;
        let settle = Deadline::after(SETTLE);
        loop {
            match self.find(Access::ReadWrite)? {
                Found::Nothing => match self.create(len, mode) {
                    Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                    result => return result,
                },
                Found::File(fd, found) => return self.map_at_least(fd, found, len),
                Found::Empty(fd) if !pause(settle) => {
                    allocate(fd.as_fd(), 0, len, Use::Shared, self.object)?;
                    return self.map_at_least(fd, len, len);
                }
                Found::Empty(_) => {}
            }
        }
    }

    fn map_at_least(&self, fd: OwnedFd, found: usize, len: usize) -> Result<Region> {
        if found < len {
            let reason = format!("it exists and has {found} bytes, and {len} were asked for: open it and grow it");
            return Err(Error::Invalid { object: self.object.to_owned(), reason });
        }
        self.map(fd, found)
    }

    fn find(&self, access: Access) -> Result<Found> {
        let mode = if access == Access::ReadOnly { OFlags::RDONLY } else { OFlags::RDWR };
        // Without O_NONBLOCK the open of a FIFO would wait for its other end.
        let flags = mode | self.flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match open(self.path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(Errno::INTR) => return self.find(access),
            Err(errno) => return Err(self.refused(errno)),
        };
        let stat = fstat(&fd).map_err(|errno| self.error("fstat", errno))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::RegularFile {
            return Err(self.not_a_file(kind));
        }
        let len = usize::try_from(stat.st_size).map_err(|_| self.empty())?;
        Ok(if len == 0 { Found::Empty(fd) } else { Found::File(fd, len) })
    }

    /// Removes the name. Mappings stay.
    pub(super) fn remove(&self, call: &'static str) -> Result<()> {
        unlink(self.path).map_err(|errno| match errno {
            Errno::NOENT => Error::os(call, self.object, errno).with_remedy("nothing has that name"),
            Errno::PERM => {
                self.error(call, errno).with_remedy("only its owner, the directory's owner and root may remove it")
            }
            _ => self.error(call, errno),
        })
    }

    fn error(&self, call: &'static str, errno: Errno) -> Error {
        Error::os(call, self.object, errno)
    }

    fn exists(&self) -> Error {
        self.error("linkat", Errno::EXIST).with_remedy("the name is taken: open what exists, or remove it first")
    }

    fn absent(&self) -> Error {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        self.error("open", Errno::NOENT)
            .with_remedy(format!("create it first; {} has what exists", directory.display()))
    }

    fn empty(&self) -> Error {
        let reason = "its length is 0: whoever created it has not given it one, and may have died".to_owned();
        Error::Invalid { object: self.object.to_owned(), reason }
    }

    fn refused(&self, errno: Errno) -> Error {
        let found = if self.flags.contains(OFlags::NOFOLLOW) { lstat(self.path) } else { stat(self.path) };
        match (errno, found) {
            (Errno::ISDIR | Errno::NXIO | Errno::LOOP | Errno::NODEV, Ok(stat)) => {
                self.not_a_file(FileType::from_raw_mode(stat.st_mode))
            }
            (Errno::ACCESS, Ok(stat)) => self.error("open", errno).with_remedy(format!(
                "it belongs to user {} and group {} with mode {:o}; this process is user {} of group {}",
                stat.st_uid,
                stat.st_gid,
                stat.st_mode & 0o7777,
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw()
            )),
            _ => self.error("open", errno),
        }
    }

    fn not_a_file(&self, kind: FileType) -> Error {
        let what = match kind {
            FileType::Directory => "a directory",
            FileType::Fifo => "a FIFO",
            FileType::Socket => "a socket",
            FileType::Symlink => "a symbolic link",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            _ => "something else",
        };
        let reason = format!("{what} and no regular file: it cannot be shared as memory");
        Error::Invalid { object: self.object.to_owned(), reason }
    }
}

/// The length that the object has now, which others may change at any time.
pub(super) fn current_len(region: &Region) -> Result<usize> {
    let fd = region.file().expect("a region with a name is one of a file");
    let stat = fstat(fd).map_err(|errno| Error::os("fstat", region.object(), errno))?;
    Ok(usize::try_from(stat.st_size).unwrap_or(0))
}

/// Extends the object to `len` bytes, unless it already has them, and maps that much.
pub(super) fn grow(region: &mut Region, len: usize) -> Result<()> {
    check_len(len, region.object())?;
    if len < region.len() {
        let reason = format!("{} bytes are mapped, and {len} were asked for: it grows only", region.len());
        return Err(Error::Invalid { object: region.object().to_owned(), reason });
    }
    let current = current_len(region)?;
    if current < len {
        let fd = region.file().expect("a region with a name is one of a file");
        allocate(fd, current, len, Use::Shared, region.object())?;
    }
    region.remap(len)
}

/// Maps as much as the object has now, after somebody else made it grow.
pub(super) fn refresh(region: &mut Region) -> Result<usize> {
    let current = current_len(region)?;
    if current < region.len() {
        return Err(region.shortened("refresh", 0, region.len()));
    }
    if current > region.len() {
        region.remap(current)?;
    }
    Ok(current)
}

/// Sleeps a little, unless `deadline` has passed.
fn pause(deadline: Deadline) -> bool {
    if deadline.has_passed() {
        return false;
    }
    std::thread::sleep(deadline.remaining().map_or(PAUSE, |left| left.min(PAUSE)));
    true
}
