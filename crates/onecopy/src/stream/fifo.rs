//! Row 2, the FIFO: [fifo(7)](https://man7.org/linux/man-pages/man7/fifo.7.html), a pipe with a name in the file system.
//!
//! Both ends are opened by path and meet there, whichever comes first; what they are then is a [`PipeReader`] and a
//! [`PipeWriter`]. The reader sees the end of file when the last writer has closed, and not before the first one came. A writer
//! that comes later makes the stream go on after the end of file.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::PollFlags;
use rustix::fs::{CWD, FileType, Mode, OFlags, chmod, fstat, lstat, mknodat, open, stat, unlink};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};

use super::pipe::{PipeReader, PipeWriter};
use crate::address::path_text;
use crate::io::descriptor::Descriptor;
use crate::io::mode::{create_exact, permissions};
use crate::io::socket::set_nonblocking;
use crate::io::wait::{Backoff, wait_for};
use crate::{Deadline, Error, Result};

/// Creates a FIFO at `path` with the permissions `mode`, exactly: the umask takes nothing away. Under a seccomp
/// filter, as in a container, and without /proc the FIFO begins with what the umask leaves and gets the rest a moment later.
///
/// ```
/// use onecopy::Deadline;
/// use onecopy::stream::{ByteReader, ByteWriter, fifo};
///
/// let path = std::env::temp_dir().join(format!("onecopy-example-{}", std::process::id()));
/// fifo::create(&path, 0o600)?;
/// let writer = std::thread::spawn({
///     let path = path.clone();
///     move || fifo::open_writer(&path, Deadline::Never)?.write_all_by(b"hello", Deadline::Never)
/// });
/// let mut reader = fifo::open_reader(&path, Deadline::Never)?;
/// let mut buffer = [0; 16];
/// assert_eq!(reader.read_by(&mut buffer, Deadline::Never)?, 5);
/// assert_eq!(reader.read_by(&mut buffer, Deadline::Never)?, 0);
/// writer.join().unwrap()?;
/// fifo::remove(&path)?;
/// # Ok::<(), onecopy::Error>(())
/// ```
///
/// # Errors
///
/// EEXIST when anything has this path; [`Error::Invalid`] for a mode beyond 0777; ENOENT and EACCES for the directory.
pub fn create(path: &Path, mode: u32) -> Result<()> {
    let object = object_of(path);
    let mode = permissions(mode, &object)?;
    create_exact(mode, || mknodat(CWD, path, FileType::Fifo, mode, 0)).map_err(|errno| create_error(&object, errno))?;
    set_mode(path, mode, &object).inspect_err(|_| {
        let _ = unlink(path);
    })
}

/// Removes the FIFO at `path`. Processes that have it open go on with it; nobody can open it any more.
///
/// # Errors
///
/// [`Error::Invalid`] when the file is no FIFO, and it stays; ENOENT when there is none; EACCES and EPERM without permission to
/// write the directory.
pub fn remove(path: &Path) -> Result<()> {
    let object = object_of(path);
    let found = lstat(path).map_err(|errno| Error::os("lstat", &object, errno))?;
    check_type(found.st_mode, &object)?;
    unlink(path).map_err(|errno| Error::os("unlink", &object, errno))
}

/// Opens the FIFO at `path` to read, waiting until `deadline` for a process that has it open to write.
///
/// # Errors
///
/// [`Error::WouldBlock`] and [`Error::TimedOut`] when no writer came; [`Error::Invalid`] when the file is no FIFO; ENOENT when
/// there is none; EACCES without permission to read it.
pub fn open_reader(path: &Path, deadline: Deadline) -> Result<PipeReader> {
    let object = object_of(path);
    if deadline == Deadline::Never {
        return Ok(PipeReader(Descriptor::new(open_once(path, OFlags::RDONLY, &object)?, object)?));
    }
    let fd = open_once(path, OFlags::RDONLY | OFlags::NONBLOCK, &object)?;
    wait_for_writer(&fd, deadline, &object)?;
    // With it the FIFO was opened so as not to wait without end.
    set_nonblocking(&fd, false, &object)?;
    Ok(PipeReader(Descriptor::new(fd, object)?))
}

/// Opens the FIFO at `path` to write, waiting until `deadline` for a process that has it open to read.
///
/// # Errors
///
/// [`Error::TimedOut`] when no reader came, and with [`Deadline::Now`] ENXIO, as open(2) says it; [`Error::Invalid`] when
/// the file is no FIFO; ENOENT when there is none; EACCES without permission to write it.
pub fn open_writer(path: &Path, deadline: Deadline) -> Result<PipeWriter> {
    let object = object_of(path);
    if deadline == Deadline::Never {
        return Ok(PipeWriter(Descriptor::new(open_once(path, OFlags::WRONLY, &object)?, object)?));
    }
    let mut backoff = Backoff::new();
    let fd = loop {
        match open_once(path, OFlags::WRONLY | OFlags::NONBLOCK, &object) {
            Ok(fd) => break fd,
            Err(error) if error.raw_os_error() != Some(libc::ENXIO) => return Err(error),
            Err(error) if deadline == Deadline::Now => {
                return Err(error.with_remedy("no process has it open to read: open it there first, or wait for one"));
            }
            Err(_) => backoff.pause_for("no process has it open to read", deadline, "open", &object)?,
        }
    };
    // With it the FIFO was opened so as not to wait without end.
    set_nonblocking(&fd, false, &object)?;
    Ok(PipeWriter(Descriptor::new(fd, object)?))
}

fn object_of(path: &Path) -> String {
    format!("fifo:{}", path_text(path))
}

fn create_error(object: &str, errno: Errno) -> Error {
    let error = Error::os("mkfifo", object, errno);
    match errno {
        Errno::EXIST => error.with_remedy("a file has this path: remove it, or choose another path"),
        Errno::NOENT => error.with_remedy("the directory does not exist"),
        _ => error,
    }
}

/// Gives the new FIFO the bits that the umask took. A FIFO of mode 0200 can't be opened to read, so it is reached by a
/// descriptor that only names it: by path another file could have taken its place.
fn set_mode(path: &Path, mode: Mode, object: &str) -> Result<()> {
    use std::os::fd::AsRawFd;
    let fd = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os("open", object, errno))?;
    let found = fstat(&fd).map_err(|errno| Error::os("fstat", object, errno))?;
    check_type(found.st_mode, object)?;
    if Mode::from_raw_mode(found.st_mode) == mode {
        return Ok(());
    }
    chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode).map_err(|errno| Error::os("chmod", object, errno))
}

/// Opens `path`, and refuses it before and after when it is no FIFO: opening a device could do something, and the file could be
/// exchanged meanwhile.
fn open_once(path: &Path, flags: OFlags, object: &str) -> Result<OwnedFd> {
    let found = stat(path).map_err(|errno| open_error(object, errno))?;
    check_type(found.st_mode, object)?;
    let fd = loop {
        match open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()) {
            Ok(fd) => break fd,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(open_error(object, errno)),
        }
    };
    let found = fstat(&fd).map_err(|errno| Error::os("fstat", object, errno))?;
    check_type(found.st_mode, object)?;
    Ok(fd)
}

fn open_error(object: &str, errno: Errno) -> Error {
    let error = Error::os("open", object, errno);
    match errno {
        Errno::NOENT => error.with_remedy("create it first, with mkfifo(1) for instance"),
        _ => error,
    }
}

fn check_type(mode: u32, object: &str) -> Result<()> {
    let reason = match FileType::from_raw_mode(mode) {
        FileType::Fifo => return Ok(()),
        FileType::RegularFile => "a regular file has this path, and no FIFO",
        FileType::Directory => "a directory has this path, and no FIFO",
        FileType::Socket => "a socket has this path, and no FIFO",
        FileType::Symlink => "a symbolic link has this path, and no FIFO",
        _ => "a file that is no FIFO has this path",
    };
    Err(Error::Invalid { object: object.into(), reason: reason.into() })
}

/// Waits until a writer came. Nothing reports the open itself: poll(2) wakes for the first byte and for the hang-up of a writer
/// that has come and gone, and in between the presence of a silent writer is asked for.
fn wait_for_writer(reader: &OwnedFd, deadline: Deadline, object: &str) -> Result<()> {
    let (_probe_reader, probe) =
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|errno| Error::os("pipe2", object, errno))?;
    let mut backoff = Backoff::new();
    while !writer_came(reader, &probe, object)? {
        backoff.pause_polling(reader.as_fd(), deadline, "open", object).map_err(|error| {
            match error.is_out_of_time() {
                true => Error::out_of_time("open", format!("{object} (no process has it open to write)"), deadline),
                false => error,
            }
        })?;
    }
    Ok(())
}

/// Whether a writer has the FIFO open or had it since `reader` was opened. tee(2) tells, and takes no byte away: EAGAIN for a FIFO
/// that is empty and has writers, 0 for one without.
fn writer_came(reader: &OwnedFd, probe: &OwnedFd, object: &str) -> Result<bool> {
    match tee(reader, probe, 1, SpliceFlags::NONBLOCK) {
        Ok(0) => match wait_for(reader.as_fd(), PollFlags::IN, Deadline::Now, "open", object) {
            Ok(()) => Ok(true),
            Err(error) if error.is_out_of_time() => Ok(false),
            Err(error) => Err(error),
        },
        Ok(_) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(Error::os("tee", object, errno)),
    }
}
