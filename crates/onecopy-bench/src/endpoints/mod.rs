//! The two ends of each transport: what both sides share, how the host creates it, how the guest reaches it.
//!
//! One table, [`host`] and [`guest`], with a row for each transport; the files beside this one hold what rows have in common.

mod plain;
mod streams;

use std::os::fd::OwnedFd;

use onecopy::stream::pipe::{self, PipeReader, PipeWriter};
use onecopy::{Error, Receiver, Result, Sender};

use crate::control::{Join, Layer, Link};
use crate::transport::Transport;

/// Both directions of one side.
pub(crate) struct Ends {
    pub(crate) sender: Box<dyn Sender>,
    pub(crate) receiver: Box<dyn Receiver>,
}

/// What the host does once the guest is on its way.
pub(crate) type Accept = Box<dyn FnOnce() -> Result<Ends>>;

/// What the measuring process makes before it starts the workers, because it must be inherited.
///
/// It also makes what has a name, so that the name is removed whatever happens to the workers.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) host: Vec<OwnedFd>,
    pub(crate) guest: Vec<OwnedFd>,
    /// Names that may go as soon as both sides have what they name.
    names: Vec<Leftover>,
}

impl Prepared {
    /// Descriptors for the host and for the guest, and nothing with a name.
    pub(crate) fn inherited(host: Vec<OwnedFd>, guest: Vec<OwnedFd>) -> Self {
        Self { host, guest, names: Vec::new() }
    }

    /// Both sides have what they need: closes the descriptors here and removes the names.
    pub(crate) fn joined(&mut self) {
        self.host.clear();
        self.guest.clear();
        self.names.clear();
    }
}

/// Something that stays behind unless it is removed: dropping this removes it.
struct Leftover(Option<Box<dyn FnOnce()>>);

impl Leftover {
    #[expect(dead_code, reason = "pipes have no names")]
    fn new(remove: impl FnOnce() + 'static) -> Self {
        Self(Some(Box::new(remove)))
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if let Some(remove) = self.0.take() {
            remove();
        }
    }
}

/// Makes what must be inherited, and what has a name.
pub(crate) fn prepare(transport: Transport, _link: &Link) -> Result<Prepared> {
    match transport {
        Transport::Pipe => prepare_pipes(),
    }
}

/// The host's side: what it announces to the guest, and how it takes the guest in.
pub(crate) fn host(transport: Transport, join: &Join, fds: Vec<OwnedFd>) -> Result<(String, Accept)> {
    let layer = join.layer;
    match transport {
        Transport::Pipe => Ok((String::new(), Box::new(move || pipe_ends(fds, layer)))),
    }
}

/// The guest's side.
pub(crate) fn guest(transport: Transport, join: &Join, fds: Vec<OwnedFd>) -> Result<Ends> {
    match transport {
        Transport::Pipe => pipe_ends(fds, join.layer),
    }
}

fn prepare_pipes() -> Result<Prepared> {
    let owned = |end: &dyn std::os::fd::AsFd| {
        end.as_fd().try_clone_to_owned().map_err(|source| os("fcntl(F_DUPFD_CLOEXEC)", "pipe", source))
    };
    let (forth_reader, forth_writer) = pipe::pair()?;
    let (back_reader, back_writer) = pipe::pair()?;
    let host = vec![owned(&forth_reader)?, owned(&back_writer)?];
    Ok(Prepared::inherited(host, vec![owned(&back_reader)?, owned(&forth_writer)?]))
}

/// A reader and a writer, in this order.
fn pipe_ends(fds: Vec<OwnedFd>, layer: Layer) -> Result<Ends> {
    let Ok([reader, writer]) = <[OwnedFd; 2]>::try_from(fds) else {
        return Err(missing("the two ends of pipes"));
    };
    let (reader, writer) = (PipeReader::from_fd(reader, "pipe")?, PipeWriter::from_fd(writer, "pipe")?);
    Ok(streams::ends(reader, writer, layer))
}

fn missing(what: &str) -> Error {
    Error::Invalid { object: "bench".into(), reason: format!("{what} did not come with the order to join") }
}

fn os(call: &'static str, object: &str, source: impl Into<std::io::Error>) -> Error {
    Error::Os { call, object: object.into(), source: source.into(), remedy: None }
}
