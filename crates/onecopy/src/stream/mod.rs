//! Byte streams: bytes in order, without boundaries.
//!
//! Every stream here implements [`ByteReader`], [`ByteWriter`] or both: raw bytes, since the program on the other side may
//! frame its messages otherwise or not at all. [`framed`] puts messages over any of them, and [`StdIo`] makes one of them a
//! [`std::io::Read`] and [`std::io::Write`].

mod duplex;
pub mod fifo;
pub mod framed;
pub mod pipe;
pub mod pty;
mod std_io;
pub mod tcp;
pub mod unix;

use std::io::{IoSlice, IoSliceMut};

pub use std_io::StdIo;

use crate::{Deadline, Error, Result};

/// Reads raw bytes from a stream.
pub trait ByteReader {
    /// Reads what is there into `buffers`, waiting until `deadline` for the first byte, and returns how many bytes it were; 0
    /// is the end of file.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when nothing came.
    fn read_vectored_by(&mut self, buffers: &mut [IoSliceMut<'_>], deadline: Deadline) -> Result<usize>;

    /// The address of the stream, for messages.
    fn object(&self) -> &str;

    /// How many bytes wait to be read, where the stream can tell. Writers may add to them at any time.
    fn queued_bytes(&self) -> Option<u64> {
        None
    }

    /// [`ByteReader::read_vectored_by`] into one buffer.
    ///
    /// # Errors
    ///
    /// As [`ByteReader::read_vectored_by`].
    fn read_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
        self.read_vectored_by(&mut [IoSliceMut::new(buffer)], deadline)
    }
}

/// Writes raw bytes to a stream.
pub trait ByteWriter {
    /// Writes as much of `buffers` as there is room for, waiting until `deadline` for room for the first byte, and returns
    /// how many bytes it were.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when there was no room; an error for which [`Error::is_peer_gone`]
    /// holds, and never a SIGPIPE, when nobody can read any more.
    fn write_vectored_by(&mut self, buffers: &[IoSlice<'_>], deadline: Deadline) -> Result<usize>;

    /// The address of the stream, for messages.
    fn object(&self) -> &str;

    /// Waits until what was written will reach the reader even though this side closes: a pseudoterminal throws away what
    /// its other side has not read yet. Elsewhere the kernel keeps it, and there is nothing to wait for.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when the reader was too slow; an error for which
    /// [`Error::is_peer_gone`] holds when it went.
    fn finish_by(&mut self, _deadline: Deadline) -> Result<()> {
        Ok(())
    }

    /// Whether a write of several times [`pipe::PIPE_BUF`] bytes goes in pieces of that length, a part of a write in whole ones,
    /// and nobody's bytes come in between the bytes of a piece.
    fn keeps_pages_whole(&self) -> bool {
        false
    }

    /// [`ByteWriter::write_vectored_by`] of one buffer.
    ///
    /// # Errors
    ///
    /// As [`ByteWriter::write_vectored_by`].
    fn write_by(&mut self, bytes: &[u8], deadline: Deadline) -> Result<usize> {
        self.write_vectored_by(&[IoSlice::new(bytes)], deadline)
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// As [`ByteWriter::write_vectored_by`], but an [`Error::PartialWrite`] with the number of bytes that went before, if
    /// some did.
    fn write_all_by(&mut self, bytes: &[u8], deadline: Deadline) -> Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match self.write_by(&bytes[written..], deadline) {
                Ok(count) => written += count,
                Err(error) if written == 0 => return Err(error),
                Err(error) => {
                    return Err(Error::PartialWrite {
                        written_bytes: written,
                        total_bytes: bytes.len(),
                        source: Box::new(error),
                    });
                }
            }
        }
        Ok(())
    }
}

impl<R: ByteReader + ?Sized> ByteReader for Box<R> {
    fn read_vectored_by(&mut self, buffers: &mut [IoSliceMut<'_>], deadline: Deadline) -> Result<usize> {
        (**self).read_vectored_by(buffers, deadline)
    }

    fn object(&self) -> &str {
        (**self).object()
    }

    fn queued_bytes(&self) -> Option<u64> {
        (**self).queued_bytes()
    }
}

impl<W: ByteWriter + ?Sized> ByteWriter for Box<W> {
    fn write_vectored_by(&mut self, buffers: &[IoSlice<'_>], deadline: Deadline) -> Result<usize> {
        (**self).write_vectored_by(buffers, deadline)
    }

    fn finish_by(&mut self, deadline: Deadline) -> Result<()> {
        (**self).finish_by(deadline)
    }

    fn keeps_pages_whole(&self) -> bool {
        (**self).keeps_pages_whole()
    }

    fn object(&self) -> &str {
        (**self).object()
    }
}
