//! Names of objects: POSIX names, paths, socket names, channel names.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::ParseAddressError;
use super::percent;
use crate::{Error, Result};

/// The longest POSIX name, in bytes after the slash: NAME_MAX, for it is that of a file.
const POSIX_NAME_BYTES: usize = 255;
/// The longest name of a UNIX socket, in bytes: `sun_path` less its NUL, or less the leading NUL of an abstract name.
const SOCKET_NAME_BYTES: usize = 107;
/// The longest path that the kernel takes, in bytes: PATH_MAX less its NUL.
const PATH_BYTES: usize = 4095;
/// The longest name of a channel, in bytes: what an abstract socket name leaves beside the user's id.
const CHANNEL_NAME_BYTES: usize = 80;

/// The name of a POSIX object (queue, shared memory, semaphore): one leading slash, no other, at most 255 bytes behind it.
///
/// ```
/// use onecopy::PosixName;
///
/// assert_eq!(PosixName::new("/jobs")?.to_string(), "/jobs");
/// assert!(PosixName::new("jobs").is_err());
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PosixName(OsString);

impl PosixName {
    /// The name `name`, with its slash.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name without a leading slash, with another slash or a NUL, empty, `/.`, `/..`, or with more
    /// than 255 bytes after the slash.
    pub fn new(name: impl AsRef<OsStr>) -> Result<Self> {
        let name = name.as_ref();
        Self::checked(name.as_bytes().to_vec()).map_err(|reason| invalid(name, reason))
    }

    pub(super) fn checked(name: Vec<u8>) -> Result<Self, String> {
        let Some(rest) = name.strip_prefix(b"/") else {
            return Err("the name begins with no slash".into());
        };
        if rest.is_empty() {
            return Err("nothing follows the slash".into());
        }
        if rest.contains(&b'/') {
            return Err("the name has a second slash".into());
        }
        if matches!(rest, b"." | b"..") {
            return Err("the name is that of a directory".into());
        }
        within(rest.len(), POSIX_NAME_BYTES, "after the slash")?;
        no_nul(rest)?;
        Ok(Self(OsString::from_vec(name)))
    }

    /// The name with its slash, as mq_open(3), shm_open(3) and sem_open(3) take it.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// The bytes of the name, with its slash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for PosixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        percent::encode(f, self.as_bytes())
    }
}

/// The path of a file: not empty, without a NUL, at most 4095 bytes. It may be relative.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FilePath(PathBuf);

impl FilePath {
    /// The path `path`, unchanged.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a path that is empty, too long or holds a NUL.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().as_os_str();
        Self::checked(path.as_bytes().to_vec()).map_err(|reason| invalid(path, reason))
    }

    pub(super) fn checked(path: Vec<u8>) -> Result<Self, String> {
        check_path(&path, PATH_BYTES)?;
        Ok(Self(PathBuf::from(OsString::from_vec(path))))
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for FilePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        percent::encode(f, self.0.as_os_str().as_bytes())
    }
}

/// Where a UNIX socket is bound ([unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)).
///
/// ```
/// use onecopy::UnixName;
///
/// assert_eq!(UnixName::path("/run/frames")?.to_string(), "/run/frames");
/// assert_eq!(UnixName::abstract_name("frames")?.to_string(), "@frames");
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnixName {
    /// A socket file, made with [`UnixName::path`].
    #[non_exhaustive]
    Path(PathBuf),
    /// A name in the abstract namespace, without the leading NUL, made with [`UnixName::abstract_name`].
    #[non_exhaustive]
    Abstract(OsString),
}

impl UnixName {
    /// A socket file.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a path that is empty, longer than 107 bytes or holds a NUL.
    pub fn path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().as_os_str();
        Self::checked_path(path.as_bytes().to_vec()).map_err(|reason| invalid(path, reason))
    }

    /// A name in the abstract namespace, without the leading NUL; any bytes may stand in it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name that is empty or longer than 107 bytes.
    pub fn abstract_name(name: impl AsRef<OsStr>) -> Result<Self> {
        let name = name.as_ref();
        Self::checked_abstract(name.as_bytes().to_vec()).map_err(|reason| invalid(name, reason))
    }

    /// The socket file; `None` for an abstract name.
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Abstract(_) => None,
        }
    }

    pub(super) fn checked_path(path: Vec<u8>) -> Result<Self, String> {
        check_path(&path, SOCKET_NAME_BYTES)?;
        Ok(Self::Path(PathBuf::from(OsString::from_vec(path))))
    }

    pub(super) fn checked_abstract(name: Vec<u8>) -> Result<Self, String> {
        if name.is_empty() {
            return Err("nothing follows the @".into());
        }
        within(name.len(), SOCKET_NAME_BYTES, "after the @")?;
        Ok(Self::Abstract(OsString::from_vec(name)))
    }
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abstract(name) => {
                f.write_str("@")?;
                percent::encode(f, name.as_bytes())
            }
            Self::Path(path) => match path.as_os_str().as_bytes() {
                [b'@', rest @ ..] => {
                    percent::encode_all(f, b"@")?;
                    percent::encode(f, rest)
                }
                bytes => percent::encode(f, bytes),
            },
        }
    }
}

/// What names a channel: a name of this user's, or a socket file.
///
/// It parses from what follows `channel:` in an address, and prints as that.
///
/// ```
/// use onecopy::address::ChannelName;
///
/// assert_eq!("frames".parse::<ChannelName>()?, ChannelName::name("frames")?);
/// assert_eq!("/run/frames".parse::<ChannelName>()?, ChannelName::path("/run/frames")?);
/// let error = "a/b".parse::<ChannelName>().unwrap_err();
/// assert!(error.to_string().contains("the name holds a slash"), "{error}");
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ChannelName {
    /// A name that belongs to the user: nothing of it is left after everybody died. Made with [`ChannelName::name`].
    #[non_exhaustive]
    Name(String),
    /// A socket file, for other users and for containers that share a directory. Made with [`ChannelName::path`].
    #[non_exhaustive]
    Path(PathBuf),
}

impl ChannelName {
    /// A name of this user's.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name that is empty, longer than 80 bytes or holds a slash or a NUL.
    pub fn name(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        Self::checked_name(name.clone().into_bytes()).map_err(|reason| invalid(OsStr::new(&name), reason))
    }

    /// A socket file.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a path that does not begin with a slash, is longer than 107 bytes or holds a NUL.
    pub fn path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().as_os_str();
        Self::checked_path(path.as_bytes().to_vec()).map_err(|reason| invalid(path, reason))
    }

    /// The socket file, if it is one.
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Name(_) => None,
        }
    }

    pub(super) fn checked_name(name: Vec<u8>) -> Result<Self, String> {
        if name.is_empty() {
            return Err("the name is empty".into());
        }
        if name.contains(&b'/') {
            return Err("the name holds a slash (a path begins with one)".into());
        }
        within(name.len(), CHANNEL_NAME_BYTES, "")?;
        no_nul(&name)?;
        String::from_utf8(name).map(Self::Name).map_err(|_| "the name is no UTF-8".into())
    }

    pub(super) fn checked_path(path: Vec<u8>) -> Result<Self, String> {
        if path.first() != Some(&b'/') {
            return Err("the path does not begin with a slash".into());
        }
        check_path(&path, SOCKET_NAME_BYTES)?;
        Ok(Self::Path(PathBuf::from(OsString::from_vec(path))))
    }
}

impl FromStr for ChannelName {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        super::parse::channel_name(text)
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => percent::encode(f, name.as_bytes()),
            Self::Path(path) => percent::encode(f, path.as_os_str().as_bytes()),
        }
    }
}

pub(super) fn check_path(path: &[u8], limit_bytes: usize) -> Result<(), String> {
    if path.is_empty() {
        return Err("the path is empty".into());
    }
    within(path.len(), limit_bytes, "")?;
    no_nul(path)
}

fn within(len: usize, limit_bytes: usize, place: &str) -> Result<(), String> {
    if len <= limit_bytes {
        return Ok(());
    }
    let gap = if place.is_empty() { "" } else { " " };
    Err(format!("{len} bytes{gap}{place} are more than the {limit_bytes} that fit"))
}

fn no_nul(bytes: &[u8]) -> Result<(), String> {
    if bytes.contains(&0) { Err("the name holds a NUL".into()) } else { Ok(()) }
}

pub(super) fn invalid(object: &OsStr, reason: String) -> Error {
    let mut shown = String::new();
    // Writing to a String does not fail.
    let _ = percent::encode(&mut shown, object.as_bytes());
    if shown.is_empty() {
        shown = "an empty name".into();
    }
    Error::Invalid { object: shown, reason }
}
