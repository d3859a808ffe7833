//! Row 15, shared anonymous memory: [memfd_create(2)](https://man7.org/linux/man-pages/man2/memfd_create.2.html).
//!
//! The memory has no name in any file system. A descriptor names it, which a child inherits or a UNIX socket passes, and when
//! the last descriptor and mapping are gone, by SIGKILL too, nothing is left.
//!
//! The classic form of this row, `mmap` with `MAP_SHARED | MAP_ANONYMOUS`, reaches nobody but children made by a bare fork
//! ([`for_children`]): it has no descriptor, and exec drops it. The kernel keeps both in the same kind of file; a memfd is the
//! form of it that unrelated processes can share, and the only one that can be sealed.
//!
//! # Seals
//!
//! A mapping of a file that somebody else shortens is a SIGBUS at the next access. So every memfd is sealed against shrinking
//! before it is mapped, and one that came from elsewhere is refused without that seal. See [fcntl(2)], "File sealing".
//!
//! | Way to create | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | Can be frozen |
//! |---|---|---|---|---|
//! | [`Sealing::Size`], usual | yes | yes | | yes |
//! | [`Sealing::Shrink`] | yes | | | yes |
//! | [`Sealing::Final`] | yes | yes | yes | no, and nobody can add a seal |
//!
//! [fcntl(2)]: https://man7.org/linux/man-pages/man2/fcntl.2.html
//!
//! # Safety
//!
//! A [`Frozen`] mapping is read-only memory of this process over a file with F_SEAL_WRITE, which the kernel grants only when
//! no writable mapping is left and which can never be taken back. So its bytes do not change, and references to them may be
//! formed.
#![expect(unsafe_code, reason = "forms the slice of a mapping that is sealed against writing")]

pub(crate) mod exclusive;
pub(crate) mod registered;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fcntl_getfl, fstat, fstatfs, ftruncate,
    memfd_create,
};
use rustix::io::Errno;

use super::allocate::{Use, allocate, check_len, check_limit, check_memory};
use super::region::{Access, Region};
use crate::address::path_text;
use crate::sys::inherited::duplicate;
use crate::{Error, Result};

/// The longest name of a memfd, in bytes. The name is shown in `/proc/PID/maps` and need not be unique.
pub const NAME_BYTES: usize = 249;

/// `HUGETLBFS_MAGIC` of linux/magic.h.
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// New memory of `len` zero bytes that this process shares with the children that it forks, and with nobody else
/// (`MAP_SHARED | MAP_ANONYMOUS`). A program that a child executes does not have it.
///
/// ```
/// let region = onecopy::memory::anonymous::for_children(4096)?;
/// region.write_at(0, b"for a child")?;
/// # Ok::<(), onecopy::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Invalid`] for a length of 0; ENOMEM, and for one beyond the memory of this machine with its free bytes.
pub fn for_children(len: usize) -> Result<Region> {
    let object = "anonymous memory";
    check_len(len, object)?;
    check_memory(len, object)?;
    Region::map_for_children(len, object.to_owned())
}

/// What nobody may do any more with a new memfd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sealing {
    /// Shrink it or grow it. It can still be frozen with [`AnonymousMapping::seal_against_writing`].
    #[default]
    Size,
    /// Shrink it. Whoever holds a writable descriptor may grow it.
    Shrink,
    /// Shrink it, grow it, or add another seal: it can never be frozen, by a peer that holds the descriptor either.
    Final,
}

impl Sealing {
    fn flags(self) -> SealFlags {
        match self {
            Self::Size => SealFlags::SHRINK | SealFlags::GROW,
            Self::Shrink => SealFlags::SHRINK,
            Self::Final => SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
        }
    }
}

/// Shared memory without a name, and the descriptor to pass it on.
#[derive(Debug)]
pub struct AnonymousMapping {
    fd: OwnedFd,
    region: Region,
}

impl AnonymousMapping {
    /// New memory of `len` zero bytes, of a size that is sealed for good. `name` serves debugging only.
    ///
    /// ```
    /// use onecopy::memory::anonymous::AnonymousMapping;
    ///
    /// let mapping = AnonymousMapping::create("frames", 65_536)?;
    /// mapping.region().write_at(0, b"first")?;
    /// let child_stdin = std::process::Stdio::from(mapping.try_clone_fd()?); // the child maps it as fd:0
    /// # Ok::<(), onecopy::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a length of 0, and a name of more than [`NAME_BYTES`] bytes or with a NUL; EMFILE and ENFILE when there
    /// are too many descriptors; EFBIG beyond `ulimit -f`; ENOMEM, and for a length beyond the memory of this machine with its free bytes.
    pub fn create(name: &str, len: usize) -> Result<Self> {
        Self::create_sealed(name, len, Sealing::default())
    }

    /// As [`AnonymousMapping::create`], with a choice of seals.
    ///
    /// # Errors
    ///
    /// As [`AnonymousMapping::create`].
    pub fn create_sealed(name: &str, len: usize, sealing: Sealing) -> Result<Self> {
        Self::create_by(name, len, sealing, |fd, object| allocate(fd, 0, len, Use::Fresh, object))
    }

    /// As [`AnonymousMapping::create_sealed`], with pages that are taken when they are warmed ([`Region::warm`]) or touched.
    pub(crate) fn create_sparse(name: &str, len: usize, sealing: Sealing) -> Result<Self> {
        Self::create_by(name, len, sealing, |fd, object| {
            check_limit(len, object)?;
            ftruncate(fd, len as u64).map_err(|errno| Error::os("ftruncate", object, errno))
        })
    }

    fn create_by(
        name: &str,
        len: usize,
        sealing: Sealing,
        extend: impl FnOnce(BorrowedFd<'_>, &str) -> Result<()>,
    ) -> Result<Self> {
        let object = format!("memfd:{name}");
        check_name(name, &object)?;
        check_len(len, &object)?;
        check_memory(len, &object)?;
        let fd = new_memfd(name, &object)?;
        extend(fd.as_fd(), &object)?;
        add_seals(fd.as_fd(), sealing.flags(), &object)?;
        let region = Region::map(fd.as_fd(), len, Access::ReadWrite, object)?;
        Ok(Self { fd, region })
    }

    /// Maps a memfd that this process inherited or was passed: read-only where the descriptor or a seal forbids writing,
    /// and writable otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with what was found when `fd` is no memfd, is not sealed against shrinking, or is empty.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let object = format!("fd:{}", fd.as_raw_fd());
        Self::adopt(fd, object)
    }

    /// As [`AnonymousMapping::from_fd`], from the number of an inherited descriptor, which stays open: `fd:N`.
    ///
    /// # Errors
    ///
    /// EBADF when no such descriptor is open; otherwise as [`AnonymousMapping::from_fd`].
    pub fn from_inherited(number: i32) -> Result<Self> {
        let object = format!("fd:{number}");
        let fd = duplicate(number).map_err(|error| Error::os("fcntl(F_DUPFD_CLOEXEC)", &object, error))?;
        Self::adopt(fd, object)
    }

    pub(crate) fn adopt(fd: OwnedFd, object: String) -> Result<Self> {
        let seals = shrink_sealed(fd.as_fd(), &object)?;
        let len = length(fd.as_fd(), &object)?;
        let flags = fcntl_getfl(&fd).map_err(|errno| Error::os("fcntl(F_GETFL)", &object, errno))?;
        let writable = flags & OFlags::RWMODE == OFlags::RDWR && !seals.intersects(no_new_writers());
        let access = if writable { Access::ReadWrite } else { Access::ReadOnly };
        let region = Region::map(fd.as_fd(), len, access, object)?;
        Ok(Self { fd, region })
    }

    /// The memory.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The memory alone: the descriptor is closed, so it can be passed on no more, and does not count against the limit.
    #[must_use]
    pub fn into_region(self) -> Region {
        self.region
    }

    /// Another mapping of the same memory.
    pub(crate) fn map_again(&self) -> Result<Region> {
        let Self { fd, region } = self;
        Region::map(fd.as_fd(), region.len(), region.access(), region.object().to_owned())
    }

    /// The descriptor to pass on, or to give to a child.
    ///
    /// # Errors
    ///
    /// EMFILE when there are too many descriptors.
    pub fn try_clone_fd(&self) -> Result<OwnedFd> {
        rustix::io::fcntl_dupfd_cloexec(&self.fd, 3)
            .map_err(|errno| Error::os("fcntl(F_DUPFD_CLOEXEC)", self.region.object(), errno))
    }

    /// Ends all writing for good, by every process (F_SEAL_WRITE), and gives memory that is safe to borrow from.
    ///
    /// Every other writable mapping has to be gone, this process's other ones included; its own is unmapped here.
    ///
    /// # Errors
    ///
    /// [`FreezeError`] with EBUSY while somebody else maps it writable, and with EPERM when a seal forbids further seals.
    /// The mapping comes back with it, perhaps at another address.
    pub fn seal_against_writing(self) -> Result<Frozen, FreezeError> {
        let Self { fd, region } = self;
        let (len, access, object) = (region.len(), region.access(), region.object().to_owned());
        drop(region);
        match add_seals(fd.as_fd(), SealFlags::WRITE, &object).map_err(explain_busy) {
            Ok(()) => Frozen::map(fd, len, object).map_err(|error| FreezeError { error, mapping: None }),
            Err(error) => {
                let region = Region::map(fd.as_fd(), len, access, object).ok();
                Err(FreezeError { error, mapping: region.map(|region| Box::new(Self { fd, region })) })
            }
        }
    }
}

impl AsFd for AnonymousMapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why memory could not be sealed against writing, and the memory.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct FreezeError {
    /// What the kernel answered.
    pub error: Error,
    /// The mapping as it was; `None` only when it could not be mapped again, for lack of memory.
    pub mapping: Option<Box<AnonymousMapping>>,
}

/// Memory that nobody can write any more: the kernel keeps every byte as it is.
///
/// ```
/// use onecopy::memory::anonymous::AnonymousMapping;
///
/// let mapping = AnonymousMapping::create("table", 4)?;
/// mapping.region().write_at(0, b"1234")?;
/// let frozen = mapping.seal_against_writing().map_err(|refused| refused.error)?;
/// assert_eq!(frozen.as_slice(), b"1234");
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct Frozen {
    fd: OwnedFd,
    region: Region,
}

impl Frozen {
    /// Maps a memfd that somebody else froze.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with what was found when `fd` is no memfd, is not sealed against shrinking and against writing, or
    /// is empty.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let object = format!("fd:{}", fd.as_raw_fd());
        let seals = shrink_sealed(fd.as_fd(), &object)?;
        if !seals.contains(SealFlags::WRITE) {
            let reason = format!("not sealed against writing: F_SEAL_WRITE is missing, its seals are {}", list(seals));
            return Err(Error::Invalid { object, reason });
        }
        let len = length(fd.as_fd(), &object)?;
        Self::map(fd, len, object)
    }

    fn map(fd: OwnedFd, len: usize, object: String) -> Result<Self> {
        let region = Region::map_frozen(fd.as_fd(), len, object)?;
        Ok(Self { fd, region })
    }

    /// The bytes, which never change.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: mapped for `len` bytes while `self` lives. F_SEAL_WRITE was set or checked before it was mapped, so no
        // process has a writable mapping or can write it in any other way, now or later; F_SEAL_SHRINK keeps the pages.
        unsafe { std::slice::from_raw_parts(self.region.base().as_ptr(), self.region.len()) }
    }

    /// The descriptor to pass on, or to give to a child.
    ///
    /// # Errors
    ///
    /// EMFILE when there are too many descriptors.
    pub fn try_clone_fd(&self) -> Result<OwnedFd> {
        rustix::io::fcntl_dupfd_cloexec(&self.fd, 3)
            .map_err(|errno| Error::os("fcntl(F_DUPFD_CLOEXEC)", self.region.object(), errno))
    }
}

impl AsFd for Frozen {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A memfd that can be sealed and that nobody can make executable, where the kernel (6.3) knows that.
fn new_memfd(name: &str, object: &str) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        result => result,
    }
    .map_err(|errno| Error::os("memfd_create", object, errno))
}

fn check_name(name: &str, object: &str) -> Result<()> {
    let reason = match name.len() {
        _ if name.contains('\0') => "the name contains a NUL".to_owned(),
        0..=NAME_BYTES => return Ok(()),
        len => format!("the name has {len} bytes, and the limit is {NAME_BYTES}"),
    };
    Err(Error::Invalid { object: object.replace('\0', "\\0"), reason })
}

fn add_seals(fd: BorrowedFd<'_>, seals: SealFlags, object: &str) -> Result<()> {
    fcntl_add_seals(fd, seals).map_err(|errno| {
        let error = Error::os("fcntl(F_ADD_SEALS)", object, errno);
        match (errno, fcntl_get_seals(fd)) {
            (Errno::PERM, Ok(found)) => error.with_remedy(format!("its seals are {}", list(found))),
            (Errno::INVAL, _) if seals.contains(SealFlags::FUTURE_WRITE) => Error::Unsupported {
                object: object.into(),
                reason: "memory that only one side may write needs F_SEAL_FUTURE_WRITE, which Linux 5.1 has".into(),
            },
            _ => error,
        }
    })
}

fn explain_busy(error: Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EBUSY) => error.with_remedy("another mapping can still write to it: unmap it everywhere first"),
        _ => error,
    }
}

/// The seals of a memfd, which must hold its size at least from below.
fn shrink_sealed(fd: BorrowedFd<'_>, object: &str) -> Result<SealFlags> {
    let seals = fcntl_get_seals(fd).map_err(|errno| match errno {
        // The second is that of a path, opened by O_PATH.
        Errno::INVAL | Errno::BADF => {
            let reason = format!("no memfd but {}: only a memfd can be sealed against shrinking", what_is(fd));
            Error::Invalid { object: object.to_owned(), reason }
        }
        _ => Error::os("fcntl(F_GET_SEALS)", object, errno),
    })?;
    if seals.contains(SealFlags::SHRINK) {
        return check_pages(fd, object).map(|()| seals);
    }
    let reason = format!(
        "not sealed against shrinking, so its other holders could end this process by SIGBUS: F_SEAL_SHRINK is missing, \
         its seals are {}",
        list(seals)
    );
    Err(Error::Invalid { object: object.to_owned(), reason })
}

/// Refuses huge pages of hugetlbfs. Their number is limited, and a peer that punches a hole gives them back: the next access is
/// a SIGBUS in spite of the seal. (Transparent huge pages are as good as any.)
fn check_pages(fd: BorrowedFd<'_>, object: &str) -> Result<()> {
    let fs = fstatfs(fd).map_err(|errno| Error::os("fstatfs", object, errno))?;
    if fs.f_type != HUGETLBFS_MAGIC {
        return Ok(());
    }
    let reason =
        "made with MFD_HUGETLB, so its other holders could end this process by SIGBUS, whatever its seals: make it \
                  without"
            .to_owned();
    Err(Error::Invalid { object: object.to_owned(), reason })
}

/// The size of what is about to be mapped. The seal against shrinking keeps it true.
fn length(fd: BorrowedFd<'_>, object: &str) -> Result<usize> {
    let stat = fstat(fd).map_err(|errno| Error::os("fstat", object, errno))?;
    let len = usize::try_from(stat.st_size).unwrap_or(0);
    check_len(len, object)?;
    Ok(len)
}

/// The seals with which a new writable mapping is refused.
fn no_new_writers() -> SealFlags {
    SealFlags::WRITE | SealFlags::FUTURE_WRITE
}

/// What a descriptor leads to, as the kernel shows it.
fn what_is(fd: BorrowedFd<'_>) -> String {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map_or_else(|_| "something else".to_owned(), |target| path_text(&target))
}

fn list(seals: SealFlags) -> String {
    const NAMES: [(SealFlags, &str); 6] = [
        (SealFlags::SEAL, "F_SEAL_SEAL"),
        (SealFlags::SHRINK, "F_SEAL_SHRINK"),
        (SealFlags::GROW, "F_SEAL_GROW"),
        (SealFlags::WRITE, "F_SEAL_WRITE"),
        (SealFlags::FUTURE_WRITE, "F_SEAL_FUTURE_WRITE"),
        (SealFlags::EXEC, "F_SEAL_EXEC"),
    ];
    let names: Vec<&str> = NAMES.iter().filter(|(seal, _)| seals.contains(*seal)).map(|&(_, name)| name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
