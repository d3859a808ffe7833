//! The address of any IPC object.

use std::ffi::OsString;
use std::path::PathBuf;

/// The name of a POSIX object: one leading slash, no other, at most 255 bytes in all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PosixName(String);

/// Where a UNIX socket is bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnixName {
    /// A socket file.
    Path(PathBuf),
    /// A name in the abstract namespace, without the leading NUL: `@name`.
    Abstract(OsString),
}

/// A host and a port: `host:port`, an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What names a System V object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SysvName {
    /// A key, as ftok(3) makes it or a program chose it.
    Key(i32),
    /// The key that ftok(3) makes of a file and a number: `path:/file?id=1`.
    Path {
        /// A file that exists.
        path: PathBuf,
        /// The project's number; ftok uses its low eight bits, which may not all be 0.
        id: u8,
    },
    /// The identifier of an object that exists: `id=N`.
    Id(i32),
}
