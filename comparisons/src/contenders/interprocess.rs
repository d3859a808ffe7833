//! interprocess: a local socket, and a pair of unnamed pipes. Both are streams; the length of a message is known to both
//! sides, so no frame is sent or read.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;

use interprocess::local_socket::{GenericNamespaced, ListenerOptions, Name, Stream, prelude::*};
use interprocess::os::unix::unnamed_pipe::UnnamedPipeExt as _;
use interprocess::unnamed_pipe::{self, Recver, Sender};

use crate::endpoint::{Endpoint, Guest, failed};
use crate::order::{Order, Wait};
use crate::payload::{Room, Source};

/// A stream for each direction. They do not block when this side is to spin.
pub(crate) struct Streams<W, R> {
    writer: W,
    reader: R,
}

pub(crate) type Socket = Streams<Stream, Stream>;
pub(crate) type Pipe = Streams<Sender, Recver>;

/// Both directions of a socket: one descriptor, two handles.
impl Socket {
    pub(crate) fn host(order: &Order) -> Result<(Self, Guest), String> {
        let listener = ListenerOptions::new().name(name(order)?).create_sync().map_err(failed("listen"))?;
        let guest = Guest::start(order)?;
        let stream = listener.accept().map_err(failed("accept"))?;
        Ok((Self::over(stream, order)?, guest))
    }

    pub(crate) fn guest(order: &Order) -> Result<Self, String> {
        Self::over(Stream::connect(name(order)?).map_err(failed("connect"))?, order)
    }

    fn over(stream: Stream, order: &Order) -> Result<Self, String> {
        stream.set_nonblocking(order.wait == Wait::Spin).map_err(failed("set_nonblocking"))?;
        let Stream::UdSocket(socket) = &stream;
        let copy = socket.as_fd().try_clone_to_owned().map_err(failed("dup"))?;
        let writer = Stream::UdSocket(copy.into());
        Ok(Self { writer, reader: stream })
    }
}

impl Pipe {
    pub(crate) fn host(order: &Order) -> Result<(Self, Guest), String> {
        let (writer, theirs_to_read) = unnamed_pipe::pipe().map_err(failed("pipe"))?;
        let (theirs_to_write, reader) = unnamed_pipe::pipe().map_err(failed("pipe"))?;
        let (input, output) = (OwnedFd::from(theirs_to_read), OwnedFd::from(theirs_to_write));
        let guest = Guest::start_with(order, Stdio::from(input), Stdio::from(output))?;
        Ok((Self::over(writer, reader, order)?, guest))
    }

    pub(crate) fn guest(order: &Order) -> Result<Self, String> {
        let reader = io::stdin().as_fd().try_clone_to_owned().map_err(failed("dup"))?;
        let writer = io::stdout().as_fd().try_clone_to_owned().map_err(failed("dup"))?;
        Self::over(Sender::from(writer), Recver::from(reader), order)
    }

    fn over(writer: Sender, reader: Recver, order: &Order) -> Result<Self, String> {
        writer.set_nonblocking(order.wait == Wait::Spin).map_err(failed("set_nonblocking"))?;
        reader.set_nonblocking(order.wait == Wait::Spin).map_err(failed("set_nonblocking"))?;
        Ok(Self { writer, reader })
    }
}

fn name(order: &Order) -> Result<Name<'_>, String> {
    order.tag.as_str().to_ns_name::<GenericNamespaced>().map_err(failed("name"))
}

impl<W: Write, R: Read> Endpoint for Streams<W, R> {
    #[inline]
    fn send(&mut self, source: &Source, sequence: u64) -> Result<(), String> {
        let mut rest = source.bytes(sequence);
        while !rest.is_empty() {
            match self.writer.write(rest) {
                Ok(bytes) => rest = &rest[bytes..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("write: {error}")),
            }
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, room: &mut Room, sequence: u64) -> Result<(), String> {
        let buffer = room.buffer(sequence);
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => return Err("the stream has ended".into()),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("read: {error}")),
            }
        }
        Ok(())
    }
}
