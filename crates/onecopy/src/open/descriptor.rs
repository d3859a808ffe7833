//! Descriptors that were inherited (`fd:N`) or belong to another process (`fd:PID:N`).

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::{BoxedReader, BoxedReceiver, BoxedSender, BoxedWriter, Shape};
use crate::address::DescriptorName;
use crate::message::unix_dgram::UnixDatagram;
use crate::message::unix_seqpacket::UnixSeqpacket;
use crate::stream::pipe::{PipeReader, PipeWriter};
use crate::stream::tcp::TcpStream;
use crate::stream::unix::UnixStream;
use crate::sys::inherited;
use crate::{Error, Result};

/// What the kernel says of a descriptor.
enum Kind {
    /// A pipe or a FIFO.
    Pipe,
    /// A terminal.
    Terminal,
    /// A socket, by its family and its type.
    Socket(AddressFamily, SocketType),
    /// A file, of which a memfd is memory.
    File,
    /// Anything else.
    Other,
}

fn kind(fd: &OwnedFd, object: &str) -> Result<Kind> {
    let stat = fstat(fd).map_err(|errno| Error::os("fstat", object, errno))?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => Kind::Pipe,
        FileType::CharacterDevice => Kind::Terminal,
        FileType::Socket => {
            let error = |errno| Error::os("getsockopt", object, errno);
            Kind::Socket(sockopt::socket_domain(fd).map_err(error)?, sockopt::socket_type(fd).map_err(error)?)
        }
        FileType::RegularFile => Kind::File,
        _ => Kind::Other,
    })
}

/// How data moves over the descriptor.
pub(super) fn shape(name: DescriptorName) -> Result<Shape> {
    let (fd, object) = duplicate(name)?;
    Ok(match kind(&fd, &object)? {
        Kind::Pipe | Kind::Terminal | Kind::Socket(_, SocketType::STREAM) => Shape::Bytes,
        Kind::Socket(..) => Shape::Messages,
        Kind::File => Shape::Memory,
        Kind::Other => Shape::None,
    })
}

/// Whether the descriptor is an end of a pipe or a FIFO.
pub(super) fn is_pipe(name: DescriptorName) -> Result<bool> {
    let (fd, object) = duplicate(name)?;
    Ok(matches!(kind(&fd, &object)?, Kind::Pipe))
}

pub(super) fn writer(name: DescriptorName) -> Result<BoxedWriter> {
    let (fd, object) = duplicate(name)?;
    Ok(match kind(&fd, &object)? {
        Kind::Socket(AddressFamily::UNIX, SocketType::STREAM) => Box::new(UnixStream::from_fd(fd, object)),
        Kind::Socket(_, SocketType::STREAM) => Box::new(TcpStream::from_fd(fd, object)?),
        _ => Box::new(PipeWriter::from_fd(fd, object)?),
    })
}

pub(super) fn reader(name: DescriptorName) -> Result<BoxedReader> {
    let (fd, object) = duplicate(name)?;
    Ok(match kind(&fd, &object)? {
        Kind::Socket(AddressFamily::UNIX, SocketType::STREAM) => Box::new(UnixStream::from_fd(fd, object)),
        Kind::Socket(_, SocketType::STREAM) => Box::new(TcpStream::from_fd(fd, object)?),
        _ => Box::new(PipeReader::from_fd(fd, object)?),
    })
}

pub(super) fn sender(name: DescriptorName) -> Result<BoxedSender> {
    let (fd, object) = duplicate(name)?;
    Ok(match kind(&fd, &object)? {
        Kind::Socket(AddressFamily::UNIX, SocketType::DGRAM) => Box::new(UnixDatagram::from_fd(fd, object)?),
        Kind::Socket(AddressFamily::UNIX, SocketType::SEQPACKET) => Box::new(UnixSeqpacket::from_fd(fd, object)?),
        _ => return Err(strange_socket(object)),
    })
}

pub(super) fn receiver(name: DescriptorName) -> Result<BoxedReceiver> {
    let (fd, object) = duplicate(name)?;
    Ok(match kind(&fd, &object)? {
        Kind::Socket(AddressFamily::UNIX, SocketType::DGRAM) => Box::new(UnixDatagram::from_fd(fd, object)?),
        Kind::Socket(AddressFamily::UNIX, SocketType::SEQPACKET) => Box::new(UnixSeqpacket::from_fd(fd, object)?),
        _ => return Err(strange_socket(object)),
    })
}

fn strange_socket(object: String) -> Error {
    let reason = "of sockets that keep boundaries, only UNIX ones are taken over by their descriptor".into();
    Error::Invalid { object, reason }
}

/// A descriptor of our own for it, and its address for messages.
pub(super) fn duplicate(name: DescriptorName) -> Result<(OwnedFd, String)> {
    let object = format!("fd:{name}");
    let number = i32::try_from(name.number()).unwrap_or(i32::MAX);
    let Some(owner) = name.owner() else {
        let fd = inherited::duplicate(number).map_err(|error| {
            let error = Error::os("fcntl(F_DUPFD_CLOEXEC)", &object, error);
            error.with_remedy(
                "this process has inherited no such descriptor: `ls -l /proc/self/fd` in its place shows those it has",
            )
        })?;
        return Ok((fd, object));
    };
    let fd = take_from(owner.get(), number, &object)?;
    Ok((fd, object))
}

/// pidfd_getfd(2) of descriptor `number` of process `pid`.
fn take_from(pid: i32, number: i32, object: &str) -> Result<OwnedFd> {
    let pid =
        Pid::from_raw(pid).ok_or_else(|| Error::Invalid { object: object.into(), reason: "no process".into() })?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| {
        Error::os("pidfd_open", object, errno).with_remedy(match errno {
            Errno::SRCH => "no process has this number, or it has exited",
            _ => "it is a thread: name its process",
        })
    })?;
    pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty()).map_err(|errno| {
        let error = Error::os("pidfd_getfd", object, errno);
        match errno {
            Errno::PERM => error.with_remedy("the kernel asks for the right to trace that process (ptrace(2))"),
            Errno::BADF => error
                .with_remedy(format!("that process has no such descriptor: `ls -l /proc/{pid}/fd` shows those it has")),
            Errno::NOSYS => {
                error.with_remedy("another process's descriptor needs Linux 5.6: have it pass that over a UNIX socket")
            }
            _ => error,
        }
    })
}
