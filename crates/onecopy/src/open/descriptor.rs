//! Descriptors that were inherited (`fd:N`) or belong to another process (`fd:PID:N`).

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FileType, fstat};
use rustix::net::{SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::{BoxedReader, BoxedWriter, Shape};
use crate::address::DescriptorName;
use crate::stream::pipe::{PipeReader, PipeWriter};
use crate::sys::inherited;
use crate::{Error, Result};

/// How data moves over the descriptor.
pub(super) fn shape(name: DescriptorName) -> Result<Shape> {
    let (fd, object) = duplicate(name)?;
    let stat = fstat(&fd).map_err(|errno| Error::os("fstat", &object, errno))?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo | FileType::CharacterDevice => Shape::Bytes,
        FileType::Socket => match sockopt::socket_type(&fd).map_err(|errno| Error::os("getsockopt", &object, errno))? {
            SocketType::STREAM => Shape::Bytes,
            _ => Shape::Messages,
        },
        FileType::RegularFile => Shape::Memory,
        _ => Shape::None,
    })
}

pub(super) fn writer(name: DescriptorName) -> Result<BoxedWriter> {
    let (fd, object) = duplicate(name)?;
    Ok(Box::new(PipeWriter::from_fd(fd, object)?))
}

pub(super) fn reader(name: DescriptorName) -> Result<BoxedReader> {
    let (fd, object) = duplicate(name)?;
    Ok(Box::new(PipeReader::from_fd(fd, object)?))
}

/// A descriptor of our own for it, and its address for messages.
pub(super) fn duplicate(name: DescriptorName) -> Result<(OwnedFd, String)> {
    let object = format!("fd:{name}");
    let number = i32::try_from(name.number()).unwrap_or(i32::MAX);
    let Some(owner) = name.owner() else {
        let fd = inherited::duplicate(number).map_err(|error| Error::os("fcntl(F_DUPFD_CLOEXEC)", &object, error))?;
        return Ok((fd, object));
    };
    let fd = take_from(owner.get(), number, &object)?;
    Ok((fd, object))
}

/// pidfd_getfd(2) of descriptor `number` of process `pid`.
fn take_from(pid: i32, number: i32, object: &str) -> Result<OwnedFd> {
    let pid =
        Pid::from_raw(pid).ok_or_else(|| Error::Invalid { object: object.into(), reason: "no process".into() })?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| Error::os("pidfd_open", object, errno))?;
    pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty()).map_err(|errno| {
        let error = Error::os("pidfd_getfd", object, errno);
        match errno {
            rustix::io::Errno::PERM => {
                error.with_remedy("the kernel asks for the right to trace that process (ptrace(2))")
            }
            _ => error,
        }
    })
}
