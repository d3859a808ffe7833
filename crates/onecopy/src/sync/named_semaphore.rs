//! Row 18, the POSIX named semaphore: [sem_overview(7)](https://man7.org/linux/man-pages/man7/sem_overview.7.html), sem_open(3).
//!
//! A counter with a name, the one of the C library: every program that calls sem_open with the same name, in any language, has
//! the same semaphore. With glibc it is the file `/dev/shm/sem.NAME`; musl lays it out differently, so programs of the two
//! cannot share one. It stays until it is unlinked or the machine goes down.
//!
//! **It has no owner.** Used as a lock, it stays taken when its holder is killed, and nobody is told; [`NamedSemaphore::post`]
//! once more repairs it. A waiter that is killed leaves the value right, but may have been the one that a post woke: the C
//! library's own sem_wait can then sleep beside a value above 0 until the next post. A wait of this library looks again every
//! second, so it goes on.
//!
//! **Whoever may write it** can post without end, take what others posted, put any value into it, and shorten its file, upon
//! which the next operation of any process on it raises SIGBUS. Give it a mode that lets in only whom you trust with that.
//!
//! Deadlines are of the monotonic clock where the C library can (sem_clockwait, glibc 2.30); elsewhere a change of the wall
//! clock can make a wait up to a second longer.

#[cfg(not(loom))]
mod contents;

use std::ffi::{CString, OsStr};
use std::fs::{self, Permissions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::{Acquired, Held, Lock, Mode, Notify, Wait, held_already, no_shared_mode, not_held};
use crate::io::mode::permissions;
use crate::process::Identity;
use crate::sys::posix_sem::{self, Named, VALUE_MAX};
use crate::sys::random;
use crate::{Deadline, Error, PosixName, Result};

#[cfg(not(loom))]
pub(crate) use contents::contents;

/// The longest name, in bytes after the slash: NAME_MAX less the `sem.` of its file.
const NAME_BYTES: usize = 251;
/// What begins the name that a semaphore has until it is as it shall be.
const NEW: &str = "onecopy-new-";
/// Where the C library makes the files of semaphores.
const DIRECTORY: &str = "/dev/shm";
/// Whether a semaphore is laid out as on most machines: glibc's `struct new_sem` of 64 bits, the low half of its first word first.
const IS_LAYOUT_KNOWN: bool = cfg!(all(target_env = "gnu", target_pointer_width = "64", target_endian = "little"));
/// glibc's word for futexes that processes share.
const LLL_SHARED: u32 = 128;
/// How long a wait sleeps before it looks whether a wake-up went to a process that died of it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A POSIX named semaphore.
///
/// ```
/// use onecopy::sync::named_semaphore::NamedSemaphore;
/// use onecopy::{Deadline, PosixName};
///
/// let name = PosixName::new(format!("/onecopy-doc-{}", std::process::id()))?;
/// let ours = NamedSemaphore::create(&name, 0, 0o600)?;
/// let theirs = NamedSemaphore::open(&name)?; // in another process
/// NamedSemaphore::unlink(&name)?;
/// theirs.post()?;
/// ours.wait_by(Deadline::Never)?;
/// assert_eq!(theirs.value()?, 0);
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct NamedSemaphore {
    semaphore: Named,
    object: String,
    /// Whether [`Lock`] has taken one.
    held: Held,
}

impl NamedSemaphore {
    /// Creates a semaphore that must not exist yet. It appears under its name with its value and with exactly the permissions
    /// `mode`, whatever the umask. A process that is killed in the middle of it may leave `/dev/shm/sem.onecopy-new-` and two numbers,
    /// which `onecopy rm --stale` removes.
    ///
    /// # Errors
    ///
    /// EEXIST when the name is taken; [`Error::Invalid`] for a value above 2147483647, a name longer than 251 bytes after the
    /// slash and a mode beyond 0777; ENOSPC when `/dev/shm` is full.
    pub fn create(name: &PosixName, value: u32, mode: u32) -> Result<Self> {
        let (object, _) = checked(name)?;
        if value > VALUE_MAX {
            let reason = format!("the value {value} is above the highest, which is {VALUE_MAX}");
            return Err(Error::Invalid { object, reason });
        }
        let mode = permissions(mode, &object)?.bits();
        // sem_open takes the umask off the mode, and once it has its name anybody may unlink it and make another one there: so it
        // begins under a name that nobody else uses.
        let unused = PosixName::new(new_name())?;
        let (_, c_unused) = checked(&unused)?;
        let semaphore = Named::create(&c_unused, mode, value).map_err(|errno| opening_error(&object, errno))?;
        let finished = finish(&file(&unused), &file(name), mode, &object);
        let _ = posix_sem::unlink(&c_unused);
        finished.map(|()| Self { semaphore, object, held: Held::default() })
    }

    /// Opens a semaphore that exists, for which one must be allowed to read and write it.
    ///
    /// # Errors
    ///
    /// ENOENT when there is none; EACCES; [`Error::Corrupt`] when its file is too short for one or holds something else; [`Error::Invalid`] for a name
    /// longer than 251 bytes after the slash.
    pub fn open(name: &PosixName) -> Result<Self> {
        let (object, c_name) = checked(name)?;
        check_contents(name, &object)?;
        let semaphore = Named::open(&c_name).map_err(|errno| opening_error(&object, errno))?;
        Ok(Self { semaphore, object, held: Held::default() })
    }

    /// Opens the semaphore if it exists, whatever its value, and creates it with `value` and `mode` otherwise. Any number of
    /// processes may do so at once; all get the same one.
    ///
    /// # Errors
    ///
    /// As [`NamedSemaphore::create`] and [`NamedSemaphore::open`].
    pub fn open_or_create(name: &PosixName, value: u32, mode: u32) -> Result<Self> {
        loop {
            // Between the two calls another process may unlink it or create it: then the turn starts again.
            match Self::open(name) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                result => return result,
            }
            match Self::create(name, value, mode) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                result => return result,
            }
        }
    }

    /// Removes the name. Who has the semaphore open goes on with it; it is gone when the last of them is.
    ///
    /// # Errors
    ///
    /// ENOENT when there is none; EACCES when it belongs to another user (the directory is sticky).
    pub fn unlink(name: &PosixName) -> Result<()> {
        let (object, c_name) = checked(name)?;
        posix_sem::unlink(&c_name).map_err(|errno| {
            let error = Error::os("sem_unlink", object, errno);
            match errno {
                Errno::NOENT => error.with_remedy("there is no such semaphore"),
                Errno::ACCESS | Errno::PERM => error.with_remedy("only its owner and root may remove a semaphore"),
                _ => error,
            }
        })
    }

    /// Adds 1, which lets one waiter through.
    ///
    /// # Errors
    ///
    /// EOVERFLOW at 2147483647.
    pub fn post(&self) -> Result<()> {
        self.semaphore.post().map_err(|errno| {
            let error = Error::os("sem_post", &self.object, errno);
            match errno {
                Errno::OVERFLOW => error.with_remedy(format!("its value is {VALUE_MAX}, the highest")),
                _ => error,
            }
        })
    }

    /// Takes 1, waiting until `deadline` while the value is 0.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`], with nothing taken.
    pub fn wait_by(&self, deadline: Deadline) -> Result<()> {
        let mut taken = self.semaphore.try_wait();
        loop {
            match taken {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::TIMEDOUT) if deadline.has_passed() => {
                    return Err(Error::out_of_time("wait", &self.object, deadline));
                }
                Err(Errno::AGAIN | Errno::TIMEDOUT) => {}
                Err(errno) => return Err(Error::os("sem_wait", &self.object, errno)),
            }
            taken = match deadline.at_most(LOOK_AGAIN).remaining() {
                Some(left) if !left.is_zero() => self.semaphore.wait_for(left),
                _ => self.semaphore.try_wait(),
            };
        }
    }

    /// The value. Others may change it at any time; 0 while somebody waits.
    ///
    /// # Errors
    ///
    /// None that the man page knows.
    pub fn value(&self) -> Result<u32> {
        let value = self.semaphore.value().map_err(|errno| Error::os("sem_getvalue", &self.object, errno))?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    /// The address of the semaphore.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }
}

/// Used as a lock, the semaphore begins with the value 1. Nothing is told of a holder that died: see the module. A child made by fork
/// does not hold what its parent holds.
impl Lock for NamedSemaphore {
    fn acquire_by(&mut self, mode: Mode, deadline: Deadline) -> Result<Acquired> {
        match mode {
            _ if self.held.is_held() => return Err(held_already(&self.object)),
            Mode::Shared => return Err(no_shared_mode(&self.object)),
            Mode::Exclusive => {}
        }
        NamedSemaphore::wait_by(self, deadline)?;
        self.held.take();
        Ok(Acquired::Clean)
    }

    fn release(&mut self) -> Result<()> {
        if !self.held.is_held() {
            return Err(not_held(&self.object));
        }
        self.post()?;
        self.held.give_up();
        Ok(())
    }

    fn object(&self) -> &str {
        &self.object
    }
}

impl Notify for NamedSemaphore {
    /// Posts `count` times, or not at all where that would be too many. Where others post meanwhile, some may have gone
    /// before one is too many.
    fn notify_by(&mut self, count: u32, _deadline: Deadline) -> Result<()> {
        let value = self.value()?;
        if count > VALUE_MAX - value.min(VALUE_MAX) {
            let remedy = format!("its value is {value}, and {count} more would be above {VALUE_MAX}");
            return Err(Error::os("sem_post", &self.object, Errno::OVERFLOW).with_remedy(remedy));
        }
        (0..count).try_for_each(|_| self.post())
    }

    fn object(&self) -> &str {
        &self.object
    }
}

impl Wait for NamedSemaphore {
    fn wait_by(&mut self, deadline: Deadline) -> Result<()> {
        NamedSemaphore::wait_by(self, deadline)
    }

    fn object(&self) -> &str {
        &self.object
    }
}

/// A name that nobody else uses, and that says whose it is: should this process be killed meanwhile, others can tell.
fn new_name() -> String {
    let maker = Identity::current().map_or(0, Identity::to_bits);
    format!("/{NEW}{maker:016x}-{:016x}", random::number())
}

/// Gives a semaphore its mode, and then its name.
fn finish(unused: &Path, name: &Path, mode: u32, object: &str) -> Result<()> {
    fs::set_permissions(unused, Permissions::from_mode(mode)).map_err(|error| Error::os("chmod", object, error))?;
    fs::hard_link(unused, name).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => opening_error(object, Errno::EXIST),
        _ => Error::os("link", object, error),
    })
}

/// The address of the semaphore, and its name as the C library takes it.
fn checked(name: &PosixName) -> Result<(String, CString)> {
    let object = format!("sem:{name}");
    let bytes = name.as_bytes().len() - 1;
    if bytes > NAME_BYTES {
        let reason = format!("the name has {bytes} bytes after the slash, and a semaphore's may have {NAME_BYTES}");
        return Err(Error::Invalid { object, reason });
    }
    // A checked name holds no NUL.
    Ok((object, CString::new(name.as_bytes()).unwrap_or_default()))
}

/// Where the C library keeps it.
fn file(name: &PosixName) -> PathBuf {
    let name = name.as_bytes();
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let prefix: &[u8] = if cfg!(target_env = "musl") { b"" } else { b"sem." };
    Path::new(DIRECTORY).join(OsStr::from_bytes(&[prefix, name].concat()))
}

/// A file of this name that no sem_open made would be mapped all the same, and SIGBUS would kill who uses one that is too short. Of
/// one that holds something else glibc would call futex(2) with what it finds, and abort.
fn check_contents(name: &PosixName, object: &str) -> Result<()> {
    let corrupt = |detail| Err(Error::Corrupt { object: object.into(), detail });
    let wanted = size_of::<libc::sem_t>();
    match fs::symlink_metadata(file(name)) {
        Ok(found) if found.is_file() && found.len() < wanted as u64 => {
            return corrupt(format!("its file has {} bytes, and a semaphore has {wanted}", found.len()));
        }
        Ok(found) if found.is_file() => {}
        _ => return Ok(()),
    }
    let mut bytes = [0; size_of::<libc::sem_t>()];
    let read = fs::File::open(file(name)).and_then(|mut file| file.read_exact(&mut bytes));
    match read.is_ok().then(|| oddity(&bytes)).flatten() {
        Some(detail) => corrupt(format!("its file is not that of a semaphore: {detail}")),
        None => Ok(()),
    }
}

/// What a semaphore of glibc's cannot hold: it has a value, the number of those who wait, and a word that tells how futex(2) is to be
/// called.
fn oddity(bytes: &[u8; size_of::<libc::sem_t>()]) -> Option<String> {
    if !IS_LAYOUT_KNOWN {
        return None;
    }
    let word = |index: usize| bytes.as_chunks().0.get(index).copied().map_or(0, u32::from_ne_bytes);
    match (word(0), word(2)) {
        (value, _) if value > VALUE_MAX => Some(format!("its value would be {value}, and the highest is {VALUE_MAX}")),
        (_, 0 | LLL_SHARED) => None,
        (_, other) => Some(format!("a word that is always 0 or {LLL_SHARED} is {other}")),
    }
}

fn opening_error(object: &str, errno: Errno) -> Error {
    let error = Error::os("sem_open", object, errno);
    match errno {
        Errno::EXIST => error.with_remedy("a semaphore of this name exists: open it, or remove it first"),
        Errno::NOENT if !Path::new(DIRECTORY).exists() => unsupported(object, &error),
        Errno::NOENT => error.with_remedy("there is no such semaphore: create it first"),
        Errno::NOSPC => error.with_remedy(format!("{DIRECTORY}, where semaphores lie, is full")),
        Errno::ACCESS => error.with_remedy("its mode does not let this user both read and write it, which it takes"),
        Errno::NOSYS => unsupported(object, &error),
        _ => error,
    }
}

fn unsupported(object: &str, error: &Error) -> Error {
    Error::Unsupported {
        object: object.into(),
        reason: format!("there is no {DIRECTORY}, where semaphores lie: {error}"),
    }
}
