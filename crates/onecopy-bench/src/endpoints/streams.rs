//! Byte streams, with messages in frames.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use onecopy::stream::framed::{FramedReceiver, FramedSender};
use onecopy::stream::pipe::{self, PipeReader, PipeWriter};
use onecopy::stream::pty::{PtyMaster, PtySlave};
use onecopy::stream::tcp::{TcpListener, TcpStream};
use onecopy::stream::unix::{UnixListener, UnixStream};
use onecopy::stream::{ByteReader, ByteWriter, fifo};
use onecopy::{Deadline, HostPort, Result, UnixName};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{Accept, Ends, Prepared, Way, missing, os, plain, shared};
use crate::control::{Layer, Link, Side};
use crate::janitor::Janitor;

/// Where loopback sockets listen: the kernel chooses the port.
pub(super) const LOOPBACK: &str = "127.0.0.1";

/// Both directions over streams of their own.
fn ends<R, W>(reader: R, writer: W, layer: Layer) -> Ends
where
    R: ByteReader + AsFd + 'static,
    W: ByteWriter + AsFd + 'static,
{
    match layer {
        Layer::Ours => Ends::new(FramedSender::new(writer), FramedReceiver::new(reader)),
        Layer::Plain => Ends::new(plain::Stream(writer), plain::Stream(reader)),
    }
}

pub(super) fn prepare_pipes() -> Result<Prepared> {
    let owned = |end: &dyn AsFd| {
        end.as_fd().try_clone_to_owned().map_err(|source| os("fcntl(F_DUPFD_CLOEXEC)", "pipe", source))
    };
    let (forth_reader, forth_writer) = pipe::pair()?;
    let (back_reader, back_writer) = pipe::pair()?;
    let host = vec![owned(&forth_reader)?, owned(&back_writer)?];
    Ok(Prepared::inherited(host, vec![owned(&back_reader)?, owned(&forth_writer)?]))
}

/// A reader and a writer, in this order.
pub(super) fn pipes(fds: Vec<OwnedFd>, layer: Layer) -> Result<Ends> {
    let Ok([reader, writer]) = <[OwnedFd; 2]>::try_from(fds) else {
        return Err(missing("the two ends of pipes"));
    };
    let (reader, writer) = (PipeReader::from_fd(reader, "pipe")?, PipeWriter::from_fd(writer, "pipe")?);
    Ok(ends(reader, writer, layer))
}

pub(super) fn prepare_fifos(link: &Link, janitor: &Rc<Janitor>) -> Result<Prepared> {
    let prepared = Prepared::with_directory(link, janitor)?;
    for way in Way::BOTH {
        fifo::create(&path(link, way), 0o600)?;
    }
    Ok(prepared)
}

/// Each side opens the way forth first, since an open waits for the other side.
pub(super) fn fifos(link: &Link, side: Side, layer: Layer) -> Result<Ends> {
    let read = |way| fifo::open_reader(&path(link, way), Deadline::Never);
    let write = |way| fifo::open_writer(&path(link, way), Deadline::Never);
    let (reader, writer) = match side {
        Side::Host => {
            let reader = read(Way::Forth)?;
            (reader, write(Way::Back)?)
        }
        Side::Guest => {
            let writer = write(Way::Forth)?;
            (read(Way::Back)?, writer)
        }
    };
    Ok(ends(reader, writer, layer))
}

fn path(link: &Link, way: Way) -> PathBuf {
    link.directory.join(way.name())
}

pub(super) fn host_pty(link: &Link, layer: Layer) -> Result<(String, Accept)> {
    let master = PtyMaster::create(&link.directory.join("pty"))?;
    let accept = move || {
        master.wait_for_slave_by(Deadline::Never)?;
        shared_ends(master, layer)
    };
    Ok((String::new(), Box::new(accept)))
}

pub(super) fn guest_pty(link: &Link, layer: Layer) -> Result<Ends> {
    shared_ends(PtySlave::open(&link.directory.join("pty"), Deadline::Never)?, layer)
}

/// Both directions over one stream that cannot be cloned.
fn shared_ends<T: ByteReader + ByteWriter + AsFd + 'static>(both: T, layer: Layer) -> Result<Ends> {
    if layer == Layer::Ours {
        let (reader, writer) = shared::halves(both);
        return Ok(Ends::new(FramedSender::new(writer), FramedReceiver::new(reader)));
    }
    let own = || both.as_fd().try_clone_to_owned().map_err(|error| os("fcntl(F_DUPFD_CLOEXEC)", "pty", error));
    let flags = fcntl_getfl(&both).map_err(|errno| os("fcntl(F_GETFL)", "pty", errno))?;
    fcntl_setfl(&both, flags - OFlags::NONBLOCK).map_err(|errno| os("fcntl(F_SETFL)", "pty", errno))?;
    Ok(Ends::new(plain::Stream(own()?), plain::Stream(own()?)))
}

pub(super) fn host_unix(link: &Link, layer: Layer) -> Result<(String, Accept)> {
    let listener = UnixListener::bind(&UnixName::abstract_name(&link.stem)?)?;
    let accept = move || {
        let stream = listener.accept_by(Deadline::Never)?;
        Ok(ends(stream.try_clone()?, stream, layer))
    };
    Ok((String::new(), Box::new(accept)))
}

pub(super) fn guest_unix(link: &Link, layer: Layer) -> Result<Ends> {
    let stream = UnixStream::connect(&UnixName::abstract_name(&link.stem)?, Deadline::Never)?;
    Ok(ends(stream.try_clone()?, stream, layer))
}

pub(super) fn host_tcp(layer: Layer) -> Result<(String, Accept)> {
    let listener = TcpListener::bind(&HostPort::new(LOOPBACK, 0)?)?;
    let address = listener.local_address()?.to_string();
    let accept = move || {
        let stream = listener.accept_by(Deadline::Never)?;
        Ok(ends(stream.try_clone()?, stream, layer))
    };
    Ok((address, Box::new(accept)))
}

pub(super) fn guest_tcp(address: &str, layer: Layer) -> Result<Ends> {
    let stream = TcpStream::connect(&host_port(address)?, Deadline::Never)?;
    Ok(ends(stream.try_clone()?, stream, layer))
}

/// An address that the host announced.
pub(super) fn host_port(announced: &str) -> Result<HostPort> {
    announced.parse().map_err(|_| missing("the host's address"))
}
