//! What names a System V object.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::name::{check_path, invalid};
use super::percent;
use crate::Result;

/// The longest path that the kernel takes, in bytes: PATH_MAX less its NUL.
const PATH_BYTES: usize = 4095;

/// What names a System V object ([sysvipc(7)](https://man7.org/linux/man-pages/man7/sysvipc.7.html)).
///
/// ```
/// use onecopy::SysvName;
///
/// assert_eq!(SysvName::key(1234)?.to_string(), "0x4d2");
/// assert_eq!(SysvName::path("/etc/hosts", 1)?.to_string(), "path:/etc/hosts?id=1");
/// assert_eq!(SysvName::id(7)?.to_string(), "id=7");
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SysvName {
    /// A key, as ftok(3) makes it or a program chose it. Made with [`SysvName::key`].
    #[non_exhaustive]
    Key(i32),
    /// The key that ftok(3) makes of a file and a number: `path:/file?id=1`. Made with [`SysvName::path`].
    #[non_exhaustive]
    Path {
        /// A file that exists when the name is used.
        path: PathBuf,
        /// The project's number; ftok uses its low eight bits, which may not all be 0.
        id: u8,
    },
    /// The identifier of an object that exists: `id=N`. Made with [`SysvName::id`].
    #[non_exhaustive]
    Id(i32),
}

impl SysvName {
    /// The object with this key.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for 0, which is IPC_PRIVATE and names no object.
    pub fn key(key: i32) -> Result<Self> {
        Self::checked_key(key).map_err(|reason| invalid(OsStr::new(&format!("key {key}")), reason))
    }

    /// The object whose key [ftok(3)](https://man7.org/linux/man-pages/man3/ftok.3.html) makes of `path` and `id`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for an id of 0, and for a path that is empty, too long or holds a NUL.
    pub fn path(path: impl AsRef<Path>, id: u8) -> Result<Self> {
        let path = path.as_ref().as_os_str();
        Self::checked_path(path.as_bytes().to_vec(), id).map_err(|reason| invalid(path, reason))
    }

    /// The object with this identifier, as msgget(2), shmget(2) and semget(2) return it and ipcs(1) shows it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for a negative number.
    pub fn id(id: i32) -> Result<Self> {
        Self::checked_id(id).map_err(|reason| invalid(OsStr::new(&format!("id={id}")), reason))
    }

    pub(super) fn checked_key(key: i32) -> Result<Self, String> {
        if key == 0 { Err("key 0 is IPC_PRIVATE, which names no object".into()) } else { Ok(Self::Key(key)) }
    }

    pub(super) fn checked_path(path: Vec<u8>, id: u8) -> Result<Self, String> {
        check_path(&path, PATH_BYTES)?;
        if id == 0 {
            return Err("the id is 0, and ftok demands 1 to 255".into());
        }
        Ok(Self::Path { path: PathBuf::from(OsString::from_vec(path)), id })
    }

    pub(super) fn checked_id(id: i32) -> Result<Self, String> {
        if id < 0 { Err("identifiers are not negative".into()) } else { Ok(Self::Id(id)) }
    }
}

impl fmt::Display for SysvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "{key:#x}"),
            Self::Id(id) => write!(f, "id={id}"),
            Self::Path { path, id } => {
                f.write_str("path:")?;
                percent::encode(f, path.as_os_str().as_bytes())?;
                write!(f, "?id={id}")
            }
        }
    }
}
