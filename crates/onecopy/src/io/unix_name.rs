//! The names of UNIX sockets: [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html). Bind, replace what a dead process
//! left, connect, wait for the other side.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, chmod, fstat, lstat, open, stat, unlink};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

use crate::io::directory_lock::DirectoryLock;
use crate::io::socket::{BACKLOG, set_nonblocking};
use crate::io::wait::Backoff;
use crate::{Deadline, Error, Result, UnixName};

/// The socket address of `name`, whose length and bytes were checked when it was made.
pub(crate) fn socket_address(name: &UnixName, object: &str) -> Result<SocketAddrUnix> {
    match name {
        UnixName::Path(path) => SocketAddrUnix::new(path),
        UnixName::Abstract(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
    }
    .map_err(|errno| Error::os("bind", object, errno))
}

/// The file of a bound socket, removed on drop unless another one has taken its place. Dropped before the socket: nobody replaces the
/// file while that is bound, so none comes between the look and the removal.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// The process that bound it. A child made by fork has a copy of this value, and the file is not the child's.
    owner: u32,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path, object: &str) -> Result<Self> {
        // Absolute, so that a change of the working directory cannot aim the removal elsewhere.
        let path = std::path::absolute(path).map_err(|error| Error::os("getcwd", object, error))?;
        let found = lstat(&path).map_err(|errno| Error::os("lstat", object, errno))?;
        Ok(Self { path, owner: std::process::id(), device: found.st_dev, inode: found.st_ino })
    }

    /// Sets the mode of the file, and never that of another one: who may write the directory can put anything in its place, a link to a file
    /// of this user for instance, which chmod(2) would follow.
    ///
    /// # Errors
    ///
    /// EADDRINUSE when another file has taken its place.
    pub(crate) fn set_mode(&self, mode: Mode, object: &str) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = open(&self.path, flags, Mode::empty()).map_err(|errno| Error::os("open", object, errno))?;
        let found = fstat(&fd).map_err(|errno| Error::os("fstat", object, errno))?;
        if !is_socket(&found) || (found.st_dev, found.st_ino) != (self.device, self.inode) {
            return Err(Error::os("bind", object, Errno::ADDRINUSE).with_remedy(
                "another file has taken the place of its own: choose a directory that strangers may not write",
            ));
        }
        // By the number: the path may lead elsewhere by now.
        chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode).map_err(|errno| Error::os("chmod", object, errno))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.owner == std::process::id()
            && lstat(&self.path).is_ok_and(|found| (found.st_dev, found.st_ino) == (self.device, self.inode))
        {
            let _ = unlink(&self.path);
        }
    }
}

/// A new socket bound to `name`, and the file that goes when it is dropped; a type with connections listens too.
///
/// A socket file that no process holds any more is replaced. Two processes that find the same dead file are ordered by a
/// lock on its directory, so that none removes the file of the other.
///
/// # Errors
///
/// EADDRINUSE when the name is in use or the file is no socket.
pub(crate) fn bind_socket(kind: SocketType, name: &UnixName, object: &str) -> Result<(OwnedFd, Option<SocketFile>)> {
    let socket = new_socket(kind, object)?;
    let file = bind_to(&socket, name, object)?;
    if kind != SocketType::DGRAM {
        listen(&socket, BACKLOG).map_err(|errno| Error::os("listen", object, errno))?;
    }
    Ok((socket, file))
}

/// As [`bind_socket`], for a socket whose options had to be set before anything can arrive.
pub(crate) fn bind_to(socket: &OwnedFd, name: &UnixName, object: &str) -> Result<Option<SocketFile>> {
    let address = socket_address(name, object)?;
    match name {
        UnixName::Path(path) => {
            let _lock = DirectoryLock::of_parent(path);
            bind_path(socket, &address, path, object)?;
            SocketFile::of(path, object).map(Some)
        }
        UnixName::Abstract(_) => {
            bind(socket, &address).map_err(|errno| bind_error(object, errno))?;
            Ok(None)
        }
    }
}

fn bind_path(socket: &OwnedFd, address: &SocketAddrUnix, path: &Path, object: &str) -> Result<()> {
    match bind(socket, address) {
        Ok(()) => return Ok(()),
        Err(Errno::ADDRINUSE) => {}
        Err(errno) => return Err(bind_error(object, errno)),
    }
    check_dead(path, address, object)?;
    match unlink(path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => {
            return Err(Error::os("unlink", object, errno)
                .with_remedy("no process holds this socket file, but it could not be removed"));
        }
    }
    bind(socket, address).map_err(|errno| bind_error(object, errno))
}

fn bind_error(object: &str, errno: Errno) -> Error {
    let error = Error::os("bind", object, errno);
    match errno {
        Errno::ADDRINUSE => error.with_remedy("a process holds this name: end it, or choose another name"),
        Errno::NOENT => error.with_remedy("the directory does not exist"),
        _ => error,
    }
}

/// Refuses unless `path` is a socket file that no process holds.
fn check_dead(path: &Path, address: &SocketAddrUnix, object: &str) -> Result<()> {
    let found = match lstat(path) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(Error::os("lstat", object, errno)),
    };
    let in_use = |text: &str| Error::os("bind", object, Errno::ADDRINUSE).with_remedy(text);
    if !is_socket(&found) {
        return Err(in_use("a file that is no socket has this path: remove it, or choose another path"));
    }
    match probe(address, object)? {
        Errno::CONNREFUSED | Errno::NOENT => Ok(()),
        Errno::ACCESS => Err(in_use("another user's socket file has this path, and may not be connected to")),
        _ => Err(in_use("a process holds this socket: end it, or choose another path")),
    }
}

/// How the kernel answers a datagram socket that would connect, which a server of any type sees nothing of: ECONNREFUSED when
/// no process holds the socket, EPROTOTYPE when one with another type does, success or EPERM for a datagram socket.
fn probe(address: &SocketAddrUnix, object: &str) -> Result<Errno> {
    let socket = new_socket(SocketType::DGRAM, object)?;
    Ok(connect(&socket, address).err().unwrap_or(Errno::ISCONN))
}

const UNBOUND: &str = "no process has bound this name";

/// A new socket connected to `name`; waits until `deadline` for a process that binds the name and, where the type has
/// connections, for room in its queue of them.
///
/// # Errors
///
/// ENOENT and ECONNREFUSED when nobody has bound the name, for [`Deadline::Now`] at once;
/// EPROTOTYPE for a socket of another type; EACCES without permission to write the socket file.
pub(crate) fn connect_socket(kind: SocketType, name: &UnixName, object: &str, deadline: Deadline) -> Result<OwnedFd> {
    let socket = new_socket(kind, object)?;
    connect_to(&socket, name, object, deadline)?;
    Ok(socket)
}

/// As [`connect_socket`], for a socket that has a name of its own.
pub(crate) fn connect_to(socket: &OwnedFd, name: &UnixName, object: &str, deadline: Deadline) -> Result<()> {
    let address = socket_address(name, object)?;
    set_nonblocking(socket, true, object)?;
    let mut backoff = Backoff::new();
    loop {
        match connect(socket, &address) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(errno @ (Errno::NOENT | Errno::CONNREFUSED)) => {
                check_hope(name, object, errno)?;
                if deadline == Deadline::Now {
                    return Err(Error::os("connect", object, errno).with_remedy(UNBOUND));
                }
                backoff.pause_for(UNBOUND, deadline, "connect", object)?;
            }
            Err(Errno::AGAIN) => {
                backoff.pause_for("its listener has not accepted those before", deadline, "connect", object)?;
            }
            Err(errno) => return Err(connect_error(object, errno)),
        }
    }
    set_nonblocking(socket, false, object)
}

/// Refuses to wait for what no bind can bring: a file that is no socket has the path.
pub(crate) fn check_hope(name: &UnixName, object: &str, errno: Errno) -> Result<()> {
    let UnixName::Path(path) = name else { return Ok(()) };
    match stat(path) {
        Ok(found) if !is_socket(&found) => {
            Err(Error::os("connect", object, errno).with_remedy("a file that is no socket has this path"))
        }
        _ => Ok(()),
    }
}

fn connect_error(object: &str, errno: Errno) -> Error {
    let error = Error::os("connect", object, errno);
    match errno {
        Errno::PROTOTYPE => {
            error.with_remedy("the socket on the other side has another type: unix, unix-dgram or unix-seqpacket")
        }
        Errno::ACCESS => error.with_remedy("connecting needs permission to write the socket file"),
        _ => error,
    }
}

/// A UNIX socket without a name.
pub(crate) fn new_socket(kind: SocketType, object: &str) -> Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::os("socket", object, errno))
}

fn is_socket(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Socket
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, metadata, remove_dir_all, rename, write};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn the_mode_of_a_socket_file_is_set_and_not_that_of_what_has_taken_its_place() {
        let directory = std::env::temp_dir().join(format!("onecopy-socket-file-{}", std::process::id()));
        create_dir(&directory).unwrap();
        let [path, aside, secret] = ["socket", "aside", "secret"].map(|name| directory.join(name));
        let (_socket, file) = bind_socket(SocketType::SEQPACKET, &UnixName::path(&path).unwrap(), "channel:x").unwrap();
        let file = file.unwrap();
        let mode = |path: &Path| metadata(path).unwrap().permissions().mode() & 0o777;
        file.set_mode(Mode::from_raw_mode(0o666), "channel:x").unwrap();
        assert_eq!(mode(&path), 0o666);

        write(&secret, b"of this user alone").unwrap();
        chmod(&secret, Mode::RUSR).unwrap();
        rename(&path, &aside).unwrap();
        symlink(&secret, &path).unwrap();
        let refused = |file: &SocketFile| {
            let error = file.set_mode(Mode::from_raw_mode(0o777), "channel:x").unwrap_err();
            assert!(error.to_string().contains("has taken the place"), "{error}");
            assert_eq!((mode(&secret), mode(&aside)), (0o400, 0o666));
        };
        refused(&file);
        // One that took its place before this process looked what it had bound.
        refused(&SocketFile::of(&path, "channel:x").unwrap());
        drop(file);
        remove_dir_all(&directory).unwrap();
    }
}
