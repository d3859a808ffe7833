//! What the dead have left, and how it is removed: after another look, immediately before.
//!
//! Between that look and the removal of a name somebody may put something new in its place. The look holds to the device, the inode
//! and the time of its last change, so that a file which replaced the old one is seen; it holds to the directory by a descriptor, so
//! that nobody leads it elsewhere by a link; and while it lasts the directory is locked, as this library's own processes lock it when
//! they replace such a file. What remains is a foreign program that replaces the file within the
//! microsecond between the last look and unlink(2), for which the kernel has no call that compares.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Statx, StatxFlags, flock, fstatfs, linkat, open, openat,
    readlinkat, statx, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::dev_shm::Memory;
use super::mounts::upper_directories;
use super::processes::Inode;
use super::ptys::Link;
use super::sysv_shm::Segment;
use crate::failure::plain;
use crate::io::LOCAL_FILE_SYSTEMS;

/// How `rm --stale` finds again what `ls` has found stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leftover {
    SocketFile(PathBuf, FileId),
    PtyLink(Link),
    Memory(Memory),
    Segment(Segment),
}

/// What came of a removal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Removed,
    /// It is gone already, or not stale any more.
    Alive,
    Failed(String),
}

impl Outcome {
    pub(super) fn of(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Removed)
    }
}

impl Leftover {
    /// Looks again, and removes it if it is stale still.
    pub(super) fn remove(&self) -> Outcome {
        match self {
            Self::SocketFile(path, id) => remove_socket(path, id),
            Self::PtyLink(link) => link.remove(),
            Self::Memory(memory) => memory.remove(),
            Self::Segment(segment) => segment.remove(),
        }
    }
}

/// A name in a directory that is held: whoever may rename the directories of a path cannot lead a removal astray by that.
pub(super) struct Spot {
    directory: OwnedFd,
    name: OsString,
}

impl Spot {
    /// The place of `path`, in which no component may be a link. `None` when there is no such directory any more.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut directory = open("/", flags, Mode::empty()).ok()?;
        for component in path.parent()?.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => directory = openat(&directory, name, flags, Mode::empty()).ok()?,
                _ => return None,
            }
        }
        Some(Self { directory, name: path.file_name()?.to_owned() })
    }

    fn id(&self) -> Option<FileId> {
        FileId::at(self.directory.as_fd(), &self.name)
    }

    /// Where a symbolic link leads.
    pub(super) fn target(&self) -> Option<PathBuf> {
        let target = readlinkat(&self.directory, &self.name, Vec::new()).ok()?;
        Some(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// A path to it through the descriptor, for calls that take nothing else.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd())).join(&self.name)
    }

    /// The lock that this library's processes hold on a directory while they replace a dead socket file or link in it. Where it cannot
    /// be had there is none: it is advice.
    pub(super) fn lock(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&self.directory, ".", flags, Mode::empty()).ok()?;
        let end = Instant::now() + PATIENCE;
        while flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(directory)
    }

    /// Removes the name if it is still that of the file `id`.
    pub(super) fn unlink(&self, id: &FileId) -> Outcome {
        if self.id() != Some(*id) {
            return Outcome::Alive;
        }
        match unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            Ok(()) => Outcome::Removed,
            Err(Errno::NOENT) => Outcome::Alive,
            Err(errno) => Outcome::Failed(plain(&errno.into())),
        }
    }
}

/// How long the lock of a directory is waited for. Its holder makes a few system calls.
const PATIENCE: Duration = Duration::from_secs(1);

/// A file with a name, so that another one in its place is not taken for it: inodes are used again, times are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) inode: Inode,
    changed: (i64, u32),
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) bytes: u64,
}

impl FileId {
    /// The file at `path` itself, not what a link leads to.
    pub(super) fn of(path: &Path) -> Option<Self> {
        Self::at(CWD, path.as_os_str())
    }

    fn at(directory: BorrowedFd<'_>, name: &OsStr) -> Option<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
        let found = statx(directory, name, flags, StatxFlags::BASIC_STATS).ok()?;
        Some(Self {
            inode: inode_of(&found),
            changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
            kind: FileType::from_raw_mode(found.stx_mode.into()),
            mode: u32::from(found.stx_mode) & 0o7777,
            uid: found.stx_uid,
            bytes: found.stx_size,
        })
    }

    pub(super) fn is_regular(&self) -> bool {
        self.kind == FileType::RegularFile
    }
}

/// Whether a socket is bound to the file at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Yes,
    /// For certain not, and never again: a file that exists cannot be bound.
    No,
    Unknown,
}

/// Whether a socket is bound to the socket file `id` at a place.
///
/// While bind(2) makes the file there is a moment in which it is there and the socket is not yet, but the kernel holds the directory's
/// own lock for as long. So who finds none waits for that lock and asks again: link(2) from a name to itself takes it and fails
/// (EEXIST).
pub(super) fn is_bound(spot: &Spot, id: &FileId, uppers: &Uppers) -> Bound {
    let is_the_same = || spot.id() == Some(*id);
    let wait_for_bind = || linkat(&spot.directory, &spot.name, &spot.directory, &spot.name, AtFlags::empty());
    match ask(&spot.path()) {
        Bound::No
            if is_local(spot) && !uppers.are_above(spot) && is_the_same() && wait_for_bind() == Err(Errno::EXIST) =>
        {
            let again = ask(&spot.path());
            if is_the_same() { again } else { Bound::Unknown }
        }
        Bound::No => Bound::Unknown,
        other => other,
    }
}

/// Asks the kernel, of which the socket's process sees nothing: a datagram socket that would connect is told ECONNREFUSED when no
/// socket is bound to the file, in whichever namespace of this machine; EPROTOTYPE when one of another type is.
fn ask(path: &Path) -> Bound {
    let Ok(address) = SocketAddrUnix::new(path) else { return Bound::Unknown };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let Ok(socket) = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None) else { return Bound::Unknown };
    match connect(&socket, &address) {
        Err(Errno::CONNREFUSED) => Bound::No,
        // EPERM is that of a datagram socket that is connected to another one.
        Ok(()) | Err(Errno::PROTOTYPE | Errno::PERM) => Bound::Yes,
        Err(_) => Bound::Unknown,
    }
}

/// Whether one machine alone has mounted the file system, so that nobody elsewhere can have bound the socket.
fn is_local(spot: &Spot) -> bool {
    const OVERLAYFS: i64 = 0x794c_7630;
    fstatfs(&spot.directory).is_ok_and(|found| found.f_type == OVERLAYFS || LOCAL_FILE_SYSTEMS.contains(&found.f_type))
}

/// The directories into which overlays write, as the file system of a container is one. Looked for once, by whoever asks first.
#[derive(Debug, Default)]
pub(super) struct Uppers(OnceCell<Vec<Inode>>);

impl Uppers {
    fn inodes(&self) -> &[Inode] {
        self.0.get_or_init(|| {
            let directories = upper_directories();
            let found = |upper: &PathBuf| statx(CWD, upper, AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS).ok();
            directories.iter().filter_map(found).map(|found| inode_of(&found)).collect()
        })
    }

    /// Whether the place is in one of them, or below. A socket that is bound through the overlay belongs to an inode of that, so that nobody
    /// is bound to the same file as it is seen here.
    fn are_above(&self, spot: &Spot) -> bool {
        let uppers = self.inodes();
        !uppers.is_empty() && is_below(spot, uppers)
    }
}

/// Whether a place is in one of these directories, or below; true where that cannot be seen.
fn is_below(spot: &Spot, uppers: &[Inode]) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut below = None;
    let mut name = ".";
    let mut directory = spot.directory.try_clone().ok();
    while let Some(open) = directory.take().and_then(|directory| openat(&directory, name, flags, Mode::empty()).ok()) {
        let Ok(found) = statx(&open, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS)
        else {
            return true;
        };
        let inode = inode_of(&found);
        if uppers.contains(&inode) {
            return true;
        }
        // Above the root is the root.
        if below.replace(inode) == Some(inode) {
            return false;
        }
        (directory, name) = (Some(open), "..");
    }
    true
}

fn inode_of(found: &Statx) -> Inode {
    (found.stx_dev_major, found.stx_dev_minor, found.stx_ino)
}

fn remove_socket(path: &Path, id: &FileId) -> Outcome {
    let Some(spot) = Spot::of(path) else { return Outcome::Alive };
    let _lock = spot.lock();
    if is_bound(&spot, id, &Uppers::default()) == Bound::No { spot.unlink(id) } else { Outcome::Alive }
}

/// Whether this process runs in the machine's first pid namespace (`PROC_PID_INIT_INO`), from which all processes can be seen.
pub(super) fn sees_all_namespaces() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
}
