//! Row 1, the pipe: [pipe(7)](https://man7.org/linux/man-pages/man7/pipe.7.html).
//!
//! A pipe has a read end and a write end, each of which any number of processes can hold. Whether a write is safe when several
//! processes write depends on its length and on whether it may wait:
//!
//! | State | Length | Waits | What the kernel does |
//! |---|---|---|---|
//! | 1 | up to [`PIPE_BUF`] | yes | writes all of it, with nobody's bytes in between |
//! | 2 | up to [`PIPE_BUF`] | no | writes all of it likewise, or nothing (EAGAIN) |
//! | 3 | more | yes | writes all of it in the end, with others' bytes in between |
//! | 4 | more | no | writes what there is room for, with others' bytes in between, or nothing (EAGAIN) |
//!
//! [`PipeWriter::write_atomic`] keeps to the first two, and [`MessageWriter`] and [`MessageReader`] make messages of any length of
//! them, safe with any number of writers. `onecopy pipe-safety` shows all four on the machine that it runs on.

mod assembly;
mod frame;
mod intake;
mod pages;
mod reader;
mod unfinished;
mod writer;

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use super::{ByteReader, ByteWriter};
use crate::io::descriptor::Descriptor;
use crate::{Deadline, Error, Result};

pub use assembly::{DEFAULT_LIMIT_BYTES, DEFAULT_TOTAL_LIMIT_BYTES};
pub use frame::{HEADER_BYTES, PAYLOAD_BYTES};
pub use reader::MessageReader;
pub use writer::MessageWriter;

/// The longest write that is atomic, in bytes.
pub const PIPE_BUF: usize = rustix::pipe::PIPE_BUF;

/// The end of a pipe or FIFO that is read.
#[derive(Debug)]
pub struct PipeReader(pub(super) Descriptor);

/// The end of a pipe or FIFO that is written.
#[derive(Debug)]
pub struct PipeWriter(pub(super) Descriptor);

/// How much of some bytes one write has put into a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of them.
    Whole,
    /// The first of them, because there was no room for more or a signal came. Other writers' bytes may come before the rest, and
    /// may lie between those that went.
    Part {
        /// How many bytes went, at least 1.
        written_bytes: usize,
        /// How many there were.
        total_bytes: usize,
    },
}

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
            /// The pipe, or the terminal, is opened anew where that is allowed, so that non-blocking operations do not change the descriptor
            /// of other processes that hold the same end.
            ///
            /// # Errors
            ///
            /// EBADF when `fd` is no descriptor.
            pub fn from_fd(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
                Descriptor::adopt(fd, object).map(Self)
            }

            /// Another handle of the same end, opened anew like [`Self::from_fd`]'s.
            ///
            /// # Errors
            ///
            /// EMFILE and ENFILE when there are too many descriptors.
            pub fn try_clone(&self) -> Result<Self> {
                let fd = rustix::io::fcntl_dupfd_cloexec(&self.0, 3)
                    .map_err(|errno| Error::os("fcntl(F_DUPFD_CLOEXEC)", self.0.object(), errno))?;
                Self::from_fd(fd, self.0.object())
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

            /// How many bytes wait to be read (FIONREAD). Writers may add to them, and readers take them, at any time.
            ///
            /// # Errors
            ///
            /// EBADF when the descriptor is no pipe.
            pub fn available_bytes(&self) -> Result<u64> {
                rustix::io::ioctl_fionread(&self.0)
                    .map_err(|errno| Error::os("ioctl(FIONREAD)", self.0.object(), errno))
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
    /// Waits until a read would not wait: data, or the end of file.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when nothing came.
    pub fn wait_readable(&self, deadline: Deadline) -> Result<()> {
        self.0.wait_readable(deadline)
    }
}

impl PipeWriter {
    /// Writes all of `bytes`, with nobody's bytes in between, waiting for room: state 1.
    ///
    /// ```
    /// use onecopy::Error;
    /// use onecopy::stream::pipe::{self, PIPE_BUF};
    ///
    /// let (_reader, mut writer) = pipe::pair()?;
    /// writer.write_atomic(&[1; PIPE_BUF])?;
    /// let error = writer.write_atomic(&[1; PIPE_BUF + 1]).unwrap_err();
    /// assert!(matches!(error, Error::TooLong { message_bytes: 4097, limit_bytes: 4096, .. }));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`], with both numbers, beyond [`PIPE_BUF`]; EPIPE, and no signal, when nobody reads any more.
    pub fn write_atomic(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_atomic_by(bytes, Deadline::Never)
    }

    /// As [`PipeWriter::write_atomic`], waiting for room until `deadline`. With [`Deadline::Now`] that is state 2.
    ///
    /// # Errors
    ///
    /// As [`PipeWriter::write_atomic`]; [`Error::WouldBlock`] and [`Error::TimedOut`], with nothing written, when there was no
    /// room.
    pub fn write_atomic_by(&mut self, bytes: &[u8], deadline: Deadline) -> Result<()> {
        if bytes.len() > PIPE_BUF {
            return Err(self.too_long(bytes.len()));
        }
        match self.write_once_by(bytes, deadline)? {
            Written::Whole => Ok(()),
            Written::Part { written_bytes, total_bytes } => Err(Error::PartialWrite {
                written_bytes,
                total_bytes,
                source: Box::new(Error::Invalid {
                    object: self.0.object().into(),
                    reason: format!("{total_bytes} bytes are up to PIPE_BUF and went in part, so it is no pipe"),
                }),
            }),
        }
    }

    /// One write of any length: states 3 and 4. What went of it is told, and what did not go is for the caller to write or to leave.
    /// With [`Deadline::Now`] as much goes as there is room for.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`], with nothing written, when there was no room; EPIPE, and no signal, when
    /// nobody reads any more.
    pub fn write_once_by(&mut self, bytes: &[u8], deadline: Deadline) -> Result<Written> {
        let written_bytes = self.write_by(bytes, deadline)?;
        let total_bytes = bytes.len();
        Ok(if written_bytes == total_bytes { Written::Whole } else { Written::Part { written_bytes, total_bytes } })
    }

    /// How many bytes fit beside those that wait to be read: the capacity less [`PipeWriter::available_bytes`].
    ///
    /// No promise: other writers may take it at any time, and the kernel counts pages, of which a write that is not as long leaves
    /// a rest that only some later writes can use. After 16 writes of 2049 bytes into a pipe of 64 KiB this says 32752, and a
    /// write of 4096 bytes would have to wait. The write itself is the test.
    ///
    /// # Errors
    ///
    /// EBADF when the descriptor is no pipe.
    pub fn room_bytes(&self) -> Result<usize> {
        let available = usize::try_from(self.available_bytes()?).unwrap_or(usize::MAX);
        Ok(self.capacity_bytes()?.saturating_sub(available))
    }

    fn too_long(&self, message_bytes: usize) -> Error {
        Error::TooLong {
            object: self.0.object().into(),
            message_bytes,
            limit_bytes: PIPE_BUF,
            remedy: Some("a longer write can be torn by other writers' bytes; a MessageWriter sends any length".into()),
        }
    }
}

impl ByteReader for PipeReader {
    fn read_vectored_by(&mut self, buffers: &mut [IoSliceMut<'_>], deadline: Deadline) -> Result<usize> {
        self.0.read_vectored_by(buffers, deadline)
    }

    fn object(&self) -> &str {
        self.0.object()
    }
    fn queued_bytes(&self) -> Option<u64> {
        self.available_bytes().ok()
    }
}

impl ByteWriter for PipeWriter {
    fn write_vectored_by(&mut self, buffers: &[IoSlice<'_>], deadline: Deadline) -> Result<usize> {
        self.0.write_vectored_by(buffers, deadline)
    }

    fn keeps_pages_whole(&self) -> bool {
        // Another file than a pipe has no capacity.
        self.capacity_bytes().is_ok() && pages::are_kept_whole()
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
