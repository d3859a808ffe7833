//! Row 1, the pipe: [pipe(7)](https://man7.org/linux/man-pages/man7/pipe.7.html).
//!
//! A pipe has a read end and a write end, each of which any number of processes can hold. Writes of at most
//! [`PIPE_BUF`] bytes are atomic; longer ones may be torn by other writers' bytes.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use super::{ByteReader, ByteWriter};
use crate::io::descriptor::Descriptor;
use crate::{Deadline, Error, Result};

/// The longest write that is atomic, in bytes.
pub const PIPE_BUF: usize = rustix::pipe::PIPE_BUF;

/// The end of a pipe or FIFO that is read.
#[derive(Debug)]
pub struct PipeReader(pub(super) Descriptor);

/// The end of a pipe or FIFO that is written.
#[derive(Debug)]
pub struct PipeWriter(pub(super) Descriptor);

/// A new pipe. Both ends are closed on exec; a child that shall have one gets it by
/// [`Stdio::from`](std::process::Stdio) or by a duplicate.
///
/// ```
/// use onecopy::Deadline;
/// use onecopy::stream::{ByteReader, ByteWriter, pipe};
///
/// let (mut reader, mut writer) = pipe::pair()?;
/// writer.write_all_by(b"hello", Deadline::Never)?;
/// let mut buffer = [0; 16];
/// assert_eq!(reader.read_by(&mut buffer, Deadline::Never)?, 5);
/// # Ok::<(), onecopy::Error>(())
/// ```
///
/// # Errors
///
/// EMFILE and ENFILE when there are too many descriptors.
pub fn pair() -> Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Error::os("pipe2", "a new pipe", errno))?;
    Ok((PipeReader(Descriptor::new(reader, "pipe")?), PipeWriter(Descriptor::new(writer, "pipe")?)))
}

macro_rules! pipe_end {
    ($end:ident) => {
        impl $end {
            /// Takes over one end of a pipe that this process inherited or was passed. `object` names it in errors.
            ///
            /// The pipe is opened anew where that is allowed, so that non-blocking operations do not change the descriptor
            /// of other processes that hold the same end.
            ///
            /// # Errors
            ///
            /// EBADF when `fd` is no descriptor.
            pub fn from_fd(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
                Descriptor::adopt(fd, object).map(Self)
            }

            /// The capacity in bytes (F_GETPIPE_SZ). Any process that holds an end may change it at any time.
            ///
            /// # Errors
            ///
            /// EBADF when the descriptor is no pipe.
            pub fn capacity_bytes(&self) -> Result<usize> {
                fcntl_getpipe_size(&self.0).map_err(|errno| Error::os("fcntl(F_GETPIPE_SZ)", self.0.object(), errno))
            }

            /// Asks for a capacity of at least `bytes` (F_SETPIPE_SZ) and returns the one that the kernel chose: a power
            /// of two of pages.
            ///
            /// # Errors
            ///
            /// EBUSY when the pipe holds more than that; EPERM above `/proc/sys/fs/pipe-max-size` without
            /// CAP_SYS_RESOURCE, or beyond `/proc/sys/fs/pipe-user-pages-soft`.
            pub fn set_capacity_bytes(&self, bytes: usize) -> Result<usize> {
                fcntl_setpipe_size(&self.0, bytes).map_err(|errno| capacity_error(self.0.object(), bytes, errno))?;
                self.capacity_bytes()
            }
        }

        impl AsFd for $end {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
    };
}

pipe_end!(PipeReader);
pipe_end!(PipeWriter);

impl PipeReader {
    /// How many bytes wait to be read (FIONREAD). Writers may add to them, and other readers take them, at any time.
    ///
    /// # Errors
    ///
    /// EBADF when the descriptor is no pipe.
    pub fn available_bytes(&self) -> Result<u64> {
        rustix::io::ioctl_fionread(&self.0).map_err(|errno| Error::os("ioctl(FIONREAD)", self.0.object(), errno))
    }

    /// Waits until a read would not wait: data, or the end of file.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when nothing came.
    pub fn wait_readable(&self, deadline: Deadline) -> Result<()> {
        self.0.wait_readable(deadline)
    }
}

impl ByteReader for PipeReader {
    fn read_vectored_by(&mut self, buffers: &mut [IoSliceMut<'_>], deadline: Deadline) -> Result<usize> {
        self.0.read_vectored_by(buffers, deadline)
    }

    fn object(&self) -> &str {
        self.0.object()
    }
}

impl ByteWriter for PipeWriter {
    fn write_vectored_by(&mut self, buffers: &[IoSlice<'_>], deadline: Deadline) -> Result<usize> {
        self.0.write_vectored_by(buffers, deadline)
    }

    fn object(&self) -> &str {
        self.0.object()
    }
}

fn capacity_error(object: &str, bytes: usize, errno: rustix::io::Errno) -> Error {
    let error = Error::os("fcntl(F_SETPIPE_SZ)", object, errno);
    match errno {
        rustix::io::Errno::PERM => error.with_remedy(format!(
            "{bytes} bytes are above the limit for users: raise /proc/sys/fs/pipe-max-size or pipe-user-pages-soft"
        )),
        rustix::io::Errno::BUSY => {
            error.with_remedy(format!("the pipe holds more than {bytes} bytes: read some first"))
        }
        _ => error,
    }
}
