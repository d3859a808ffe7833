//! Streams for code that reads and writes by [`std::io`].

use std::io::{IoSlice, IoSliceMut, Read, Result, Write};

use super::{ByteReader, ByteWriter};
use crate::Deadline;

/// A stream as [`Read`] and [`Write`]: for [`std::io::copy`], for [`BufReader`](std::io::BufReader), and for whatever else takes one.
///
/// Each call waits until the deadline, which is [`Deadline::Never`] at first. The errors are those of the stream: `?` keeps their text,
/// and [`std::io::Error::kind`] tells what is out of time and what is gone. There is nothing to flush; what
/// [`ByteWriter::finish_by`] waits for is waited for on the stream itself ([`StdIo::into_inner`]).
///
/// ```
/// use std::io::{BufRead as _, BufReader, Write as _};
/// use onecopy::stream::{StdIo, unix::UnixStream};
///
/// let (ours, theirs) = UnixStream::pair()?;
/// let mut writer = StdIo::new(ours);
/// writeln!(writer, "one {}", "line")?;
/// drop(writer);
/// let lines: Vec<String> = BufReader::new(StdIo::new(theirs)).lines().collect::<Result<_, _>>()?;
/// assert_eq!(lines, ["one line"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StdIo<S> {
    stream: S,
    deadline: Deadline,
}

impl<S> StdIo<S> {
    /// The stream, whose calls wait for as long as it takes.
    pub fn new(stream: S) -> Self {
        Self { stream, deadline: Deadline::Never }
    }

    /// Lets all calls from now on wait until `deadline`, however many they are.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// The stream, for what is special to it.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: ByteReader> Read for StdIo<S> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        Ok(self.stream.read_by(buffer, self.deadline)?)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> Result<usize> {
        Ok(self.stream.read_vectored_by(buffers, self.deadline)?)
    }
}

impl<S: ByteWriter> Write for StdIo<S> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Ok(self.stream.write_by(bytes, self.deadline)?)
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> Result<usize> {
        Ok(self.stream.write_vectored_by(buffers, self.deadline)?)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
