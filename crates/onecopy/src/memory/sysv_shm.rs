//! Row 13, System V shared memory: [sysvipc(7)](https://man7.org/linux/man-pages/man7/sysvipc.7.html), shmget, shmat, shmctl.
//!
//! A segment has a key or an identifier, counts who has it attached, and stays until it is removed, whoever was killed
//! meanwhile (`ipcs -m` lists all, `ipcrm` removes). Its length never changes, so copies from and to its [`Region`] are plain
//! ones. Removal takes effect when the last process detaches: until then it is used as before, also by those who attach by its
//! identifier, while its key is free for another segment at once.
//!
//! The kernel gives a segment its pages when they are first touched, not when it is created.

use std::io;

use rustix::io::Errno;

use super::allocate::{check_len, check_memory};
use super::region::{Access, Region, mapping_error};
use super::writers::Writers;
use crate::io::mode::permissions;
use crate::sys::sysv::{Ident, is_removed};
use crate::sys::sysv_shm::{ANY_SIZE, Attachment, get, remove, set_mode, stat};
use crate::{Error, Result, SysvName};

/// The right of the owner to read and to write.
const OWNER_MODE: u16 = 0o600;
/// Set in the mode of a segment that is marked for removal (shmctl(2)).
const SHM_DEST: u32 = 0o1000;

/// A System V shared memory segment, attached.
///
/// ```
/// use onecopy::SysvName;
/// use onecopy::memory::sysv_shm::SysvShm;
///
/// let name = SysvName::key(0x6f63_0000 | std::process::id() as i32 & 0xffff)?;
/// let ours = SysvShm::create(&name, 4096, 0o600)?;
/// let theirs = SysvShm::open(&name)?; // in another process
/// ours.remove()?; // vanishes once both are gone
/// ours.region().write_at(0, b"hello")?;
/// let mut buffer = [0; 5];
/// theirs.region().read_at(0, &mut buffer)?;
/// assert_eq!((&buffer, ours.attach_count()?), (b"hello", 2));
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct SysvShm {
    id: i32,
    region: Region,
}

impl SysvShm {
    /// Creates a segment of `len` zero bytes with exactly the permissions `mode`, and attaches it.
    ///
    /// # Errors
    ///
    /// EEXIST when the key is taken; EINVAL above `shmmax` and ENOSPC above `shmmni` or `shmall`, with the numbers; ENOMEM,
    /// also beyond the memory of this machine; [`Error::Invalid`] for a length of 0, and for the name of an identifier, which the
    /// kernel alone gives.
    pub fn create(name: &SysvName, len: usize, mode: u32) -> Result<Self> {
        let object = object(name);
        let key = new_key(name, &object)?;
        let mode = check_wish(len, mode, &object)?;
        Self::create_by(key, len, mode, object)
    }

    fn create_by(key: i32, len: usize, mode: u16, object: String) -> Result<Self> {
        // The kernel would refuse to attach a segment for writing that its own creator may not write.
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | i32::from(mode | OWNER_MODE);
        let id = get(key, len, flags).map_err(|error| explain_limit(&object, error, key, len))?;
        let attached = Self::attach(id, Access::ReadWrite, object).and_then(|segment| {
            if mode & OWNER_MODE != OWNER_MODE {
                set_mode(id, mode).map_err(|error| Error::os("shmctl(IPC_SET)", segment.region.object(), error))?;
            }
            Ok(segment)
        });
        attached.inspect_err(|_| {
            // It is of no use to us, and nobody else can have put anything into it.
            let _ = remove(id);
        })
    }

    /// Attaches a segment that exists, for reading and writing.
    ///
    /// # Errors
    ///
    /// ENOENT when no segment has the key, EINVAL when none has the identifier; EACCES with its owner and mode; EIDRM when it
    /// was removed meanwhile.
    pub fn open(name: &SysvName) -> Result<Self> {
        Self::open_as(name, Access::ReadWrite)
    }

    /// As [`SysvShm::open`], for reading only (SHM_RDONLY): a right to read is enough.
    ///
    /// # Errors
    ///
    /// As [`SysvShm::open`].
    pub fn open_read_only(name: &SysvName) -> Result<Self> {
        Self::open_as(name, Access::ReadOnly)
    }

    /// Attaches the segment if it exists, all of it, and creates it with `len` bytes and `mode` otherwise. Any number of
    /// processes may do so at once; all get the same segment.
    ///
    /// # Errors
    ///
    /// EINVAL with both lengths when it exists and is shorter than `len`; otherwise as [`SysvShm::create`] and
    /// [`SysvShm::open`].
    pub fn open_or_create(name: &SysvName, len: usize, mode: u32) -> Result<Self> {
        let object = object(name);
        let key = new_key(name, &object)?;
        let mode = check_wish(len, mode, &object)?;
        loop {
            // At any point somebody may remove it or create it: then the turn starts again.
            match Self::create_by(key, len, mode, object.clone()) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) || is_removed(&error) => {}
                result => return result,
            }
            match get(key, len, 0) {
                Ok(id) => match Self::attach(id, Access::ReadWrite, object.clone()) {
                    Err(error) if is_removed(&error) => {}
                    result => return result,
                },
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(explain_limit(&object, error, key, len)),
            }
        }
    }

    fn open_as(name: &SysvName, access: Access) -> Result<Self> {
        let object = object(name);
        let id = find(name, &object)?;
        Self::attach(id, access, object)
    }

    fn attach(id: i32, access: Access, object: String) -> Result<Self> {
        let flags = if access == Access::ReadOnly { libc::SHM_RDONLY } else { 0 };
        let attachment = Attachment::new(id, flags).map_err(|error| explain_access("shmat", &object, error, id))?;
        // While it is attached the segment lives, so this is the one that was attached.
        let found = stat(id).map_err(|error| Error::os("shmctl(IPC_STAT)", &object, error))?;
        let region = Region::attached(attachment, id, found.shm_segsz, access, object, writers(&found));
        Ok(Self { id, region })
    }

    /// Marks the segment for removal: who has it attached keeps it, its key is free, and it vanishes with the last one.
    ///
    /// # Errors
    ///
    /// EPERM when it belongs to another user; EIDRM and EINVAL when it was already gone.
    pub fn remove(&self) -> Result<()> {
        remove(self.id).map_err(|error| remove_error(self.region.object(), error))
    }

    /// Removes a segment without attaching it.
    ///
    /// # Errors
    ///
    /// As [`SysvShm::open`] and [`SysvShm::remove`].
    pub fn remove_named(name: &SysvName) -> Result<()> {
        let object = object(name);
        let id = find(name, &object)?;
        remove(id).map_err(|error| remove_error(&object, error))
    }

    /// The memory.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The memory alone.
    #[must_use]
    pub fn into_region(self) -> Region {
        self.region
    }

    /// The kernel's identifier, by which others can attach it: `sysv-shm:id=N`.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }

    /// How often the segment is attached (shm_nattch), by this process and all others. They may attach and detach at any time,
    /// so the number is one of the past; a killed process no longer counts.
    ///
    /// # Errors
    ///
    /// EACCES when this user may not read the segment.
    pub fn attach_count(&self) -> Result<u64> {
        Ok(self.stat()?.shm_nattch)
    }

    /// Whether somebody has marked the segment for removal (SHM_DEST).
    ///
    /// # Errors
    ///
    /// As [`SysvShm::attach_count`].
    #[allow(clippy::useless_conversion, reason = "the field has 16 bits on x86-64 and 32 on aarch64")]
    pub fn is_removed(&self) -> Result<bool> {
        Ok(u32::from(self.stat()?.shm_perm.mode) & SHM_DEST != 0)
    }

    fn stat(&self) -> Result<libc::shmid_ds> {
        stat(self.id).map_err(|error| Error::os("shmctl(IPC_STAT)", self.region.object(), error))
    }
}

/// Its owner and its creator both may change the mode, and pass it on.
#[allow(clippy::useless_conversion, reason = "the field has 16 bits on x86-64 and 32 on aarch64")]
fn writers(found: &libc::shmid_ds) -> Writers {
    let permissions = &found.shm_perm;
    Writers::Mode { owner: permissions.uid, creator: permissions.cuid, mode: u32::from(permissions.mode) & 0o777 }
}

fn object(name: &SysvName) -> String {
    format!("sysv-shm:{name}")
}

/// The key under which a segment is made.
fn new_key(name: &SysvName, object: &str) -> Result<i32> {
    let reason = match name.resolve(object)? {
        Ident::Key(libc::IPC_PRIVATE) => "key 0 is IPC_PRIVATE, which names no segment: choose another key",
        Ident::Key(key) => return Ok(key),
        Ident::Id(_) => "the kernel gives identifiers: create a segment by a key",
    };
    Err(Error::Invalid { object: object.to_owned(), reason: reason.to_owned() })
}

fn remove_error(object: &str, error: io::Error) -> Error {
    let not_permitted = error.raw_os_error() == Some(libc::EPERM);
    let error = Error::os("shmctl(IPC_RMID)", object, error);
    if not_permitted { error.with_remedy("only its owner, its creator and root may remove a segment") } else { error }
}

/// The identifier of a segment that exists.
fn find(name: &SysvName, object: &str) -> Result<i32> {
    match name.resolve(object)? {
        Ident::Id(id) => Ok(id),
        Ident::Key(_) => {
            let key = new_key(name, object)?;
            get(key, ANY_SIZE, 0).map_err(|error| {
                let missing = error.raw_os_error() == Some(libc::ENOENT);
                let error = Error::os("shmget", object, error);
                if missing { error.with_remedy("create it first; `ipcs -m` lists what exists") } else { error }
            })
        }
    }
}

/// Refuses lengths and modes that no segment can have, and returns the mode as the kernel takes it.
fn check_wish(len: usize, mode: u32, object: &str) -> Result<u16> {
    check_len(len, object)?;
    check_memory(len, object)?;
    Ok(permissions(mode, object)?.bits() as u16)
}

/// shmget(2) with its numbers: the limits in force, or the segment that is in the way.
fn explain_limit(object: &str, error: io::Error, key: i32, len: usize) -> Error {
    let code = error.raw_os_error();
    let existing = get(key, ANY_SIZE, 0).and_then(stat).ok();
    let error = Error::os("shmget", object, error);
    match (code, existing) {
        (Some(libc::EEXIST), _) => error.with_remedy("the key is taken: open what exists, or remove it first"),
        (Some(libc::EINVAL), Some(found)) => error
            .with_remedy(format!("the segment exists with {} bytes, and {len} were asked for: remove it first", found.shm_segsz)),
        (Some(libc::EINVAL), None) => {
            error.with_remedy(format!("{len} bytes were asked for, and /proc/sys/kernel/shmmax allows {}", limit("shmmax")))
        }
        (Some(libc::ENOSPC), _) => error.with_remedy(format!(
            "{len} bytes were asked for; /proc/sys/kernel/shmmni allows {} segments and shmall {} pages in all: remove some \
             (`ipcs -m` lists them) or raise the limit",
            limit("shmmni"),
            limit("shmall")
        )),
        (Some(libc::EACCES), Some(found)) => error.with_remedy(owner(&found)),
        _ => error,
    }
}

fn limit(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/kernel/{name}"))
        .map_or_else(|_| "an unknown number of".to_owned(), |text| text.trim().to_owned())
}

fn explain_access(call: &'static str, object: &str, error: io::Error, id: i32) -> Error {
    let code = error.raw_os_error();
    let error = Error::os(call, object, error);
    match (code, stat(id)) {
        (Some(libc::EACCES), Ok(found)) => error.with_remedy(owner(&found)),
        (Some(libc::ENOMEM), Ok(found)) => mapping_error(call, object, Errno::NOMEM, found.shm_segsz),
        (Some(libc::EACCES), Err(_)) => error.with_remedy("`ipcs -m` shows its owner and mode"),
        (Some(libc::EINVAL | libc::EIDRM), _) => error.with_remedy("no such segment: `ipcs -m` lists what exists"),
        _ => error,
    }
}

fn owner(found: &libc::shmid_ds) -> String {
    format!(
        "it belongs to user {} and group {} with mode {:o}; this process is user {} of group {}",
        found.shm_perm.uid,
        found.shm_perm.gid,
        found.shm_perm.mode & 0o777,
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw()
    )
}
