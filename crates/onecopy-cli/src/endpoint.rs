//! The two ends of a transfer, from what the command line says.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use onecopy::address::ChannelName;
use onecopy::message::fragment::FragmentReceiver;
use onecopy::open::{self, OpenOptions, Shape};
use onecopy::stream::framed::{FramedReceiver, FramedSender};
use onecopy::stream::pipe::{MessageReader, MessageWriter};
use onecopy::{Address, Channel, Deadline, Error, Receiver, Sender};

use crate::failure::{Failure, tell};
use crate::interrupt;
use crate::parts::{PartReceiver, PartSender};
use crate::queue::{self, Note, Outgoing, Wanted};

/// How an address is read from the command line, where a path may hold any bytes.
pub(crate) fn address_parser() -> impl clap::builder::TypedValueParser<Value = Address> {
    OsStringValueParser::new().try_map(|text: OsString| Address::from_os_str(&text))
}

/// How data moves over `address`; a verb that moves data refuses an object that carries none.
pub(crate) fn shape(address: &Address, verb: &str) -> Result<Shape, Failure> {
    let refuse =
        |what: &str, verbs: &str| Err(Failure::usage(format!("{verb} does not fit {address}, which {what}: {verbs}")));
    match open::shape(address)? {
        Shape::Memory => match file_behind(address) {
            Some(path) => refuse(
                &format!("is the file {}", path.display()),
                "a descriptor moves data if it is a pipe, a socket, a terminal or a memfd, and a file as mmap:PATH",
            ),
            None => Ok(Shape::Memory),
        },
        Shape::Remote => refuse("is the memory of a process", "use `onecopy read` or `onecopy write`"),
        Shape::None => refuse("moves no data", &remedy(address)),
        shape => Ok(shape),
    }
}

/// The file of a descriptor that is one, and no memfd.
fn file_behind(address: &Address) -> Option<PathBuf> {
    let Address::Descriptor(name) = address else { return None };
    let process = name.owner().map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let file = std::fs::read_link(format!("/proc/{process}/fd/{}", name.number())).ok()?;
    Some(file).filter(|file| !file.as_os_str().as_bytes().starts_with(b"/memfd:"))
}

/// Refuses an object that `verb` can do nothing with, which `what` says.
pub(crate) fn refused(address: &Address, verb: &str, what: &str) -> Failure {
    Failure::usage(format!("{verb} does not fit {address}, {what}: {}", remedy(address)))
}

/// What an object is good for that a verb does not fit.
pub(crate) fn remedy(address: &Address) -> String {
    let verbs = match address {
        Address::NamedSemaphore(_) | Address::Semaphore(_) | Address::SysvSemaphore(_) => "s are post, wait and lock",
        Address::Futex(_) | Address::Condvar(_) => "s are post and wait",
        Address::Barrier(_) => " is wait",
        Address::Signal(_) => "s are signal and wait",
        Address::RecordLock(_)
        | Address::OfdLock(_)
        | Address::FileLock(_)
        | Address::Mutex(_)
        | Address::Rwlock(_) => " is lock",
        Address::PosixShm(_) | Address::SysvShm(_) | Address::FileMapping(_) => "s are read, write, send and recv",
        Address::Memory(_) => "s are read and write",
        Address::Descriptor(_) => return "an eventfd has the verbs post and wait; see `onecopy explain`".into(),
        _ => "s are send and recv",
    };
    format!("its verb{verbs}")
}

/// Whether the two sides of `address` are a listener and whoever connects to it.
fn has_listener(address: &Address) -> bool {
    matches!(
        address,
        Address::Pty(_)
            | Address::UnixStream(_)
            | Address::UnixDgram(_)
            | Address::UnixSeqpacket(_)
            | Address::Tcp(_)
            | Address::Udp(_)
            | Address::Sctp(_)
            | Address::Channel(_)
    )
}

/// Whether messages go to whoever is bound, so that the receiver is the side that listens, whatever the verb.
pub(crate) fn is_datagram(address: &Address) -> bool {
    matches!(address, Address::UnixDgram(_) | Address::Udp(_))
}

/// Whether the receiver learns from the mechanism itself that no more messages come.
pub(crate) fn tells_end(address: &Address) -> bool {
    !matches!(address, Address::PosixMq(_) | Address::SysvMq(_) | Address::UnixDgram(_) | Address::Udp(_))
}

/// Refuses `flag`, which turns listener and connector round, where there are none, and where the kernel has no such thing.
pub(crate) fn check_turned(address: &Address, turned: bool, flag: &str) -> Result<(), Failure> {
    if !turned {
        return Ok(());
    }
    match address {
        _ if is_datagram(address) => Err(Failure::usage(format!(
            "{flag} does not fit {address}: a datagram goes to whoever is bound, so the receiver is the side that listens"
        ))),
        _ if has_listener(address) => Ok(()),
        _ => Err(Failure::usage(format!(
            "{flag} does not fit {address}: nobody listens there, both sides open the same object"
        ))),
    }
}

/// What is needed to open one end.
pub(crate) struct Opening<'a> {
    address: &'a Address,
    shape: Shape,
    options: OpenOptions,
}

impl<'a> Opening<'a> {
    pub(crate) fn new(address: &'a Address, shape: Shape, deadline: Deadline) -> Self {
        let options = OpenOptions { deadline, on_listening: remember, ..OpenOptions::default() };
        Self { address, shape, options }
    }

    /// Whether this end listens.
    pub(crate) fn listen(mut self, listen: bool) -> Self {
        self.options.listen = listen;
        self
    }

    /// Whether a missing object is created.
    pub(crate) fn create(mut self, create: bool) -> Self {
        self.options.create = create;
        self
    }

    /// Whether the address at which this end listens is told on stderr.
    pub(crate) fn tell(mut self, tell: bool) -> Self {
        self.options.on_listening = if tell { tell_and_remember } else { remember };
        self
    }

    /// Opens it by `open`, which has a file remembered that this end listens at.
    fn open<T>(&self, open: impl FnOnce(&OpenOptions) -> T) -> T {
        match self.options.listen {
            true => interrupt::making(|| open(&self.options)),
            false => open(&self.options),
        }
    }

    /// Raw bytes out.
    pub(crate) fn writer(&self) -> Result<open::BoxedWriter, Failure> {
        self.open(|options| open::open_writer(self.address, options)).map_err(|error| self.explain(error))
    }

    /// Raw bytes in.
    pub(crate) fn reader(&self) -> Result<open::BoxedReader, Failure> {
        self.open(|options| open::open_reader(self.address, options)).map_err(|error| self.explain(error))
    }

    /// Messages out.
    pub(crate) fn sender(&self, outgoing: Outgoing) -> Result<Box<dyn Sender>, Failure> {
        self.open(|options| queue::sender(self.address, outgoing, options)).map_err(|error| self.explain(error))
    }

    /// A channel, both ways.
    pub(crate) fn channel(&self, name: &ChannelName) -> Result<Channel, Failure> {
        Ok(self.open(|options| open::channel(name, options))?)
    }

    /// Messages in. `note` tells of each what its mechanism knows.
    pub(crate) fn receiver(&self, wanted: Wanted, note: &Note) -> Result<Box<dyn Receiver>, Failure> {
        self.open(|options| queue::receiver(self.address, wanted, note, options)).map_err(|error| self.explain(error))
    }

    /// Messages out, whole or in parts.
    pub(crate) fn part_sender(&self, outgoing: Outgoing) -> Result<Box<dyn PartSender>, Failure> {
        Ok(match self.shape {
            Shape::Bytes if open::is_pipe(self.address)? => Box::new(MessageWriter::new(self.writer()?)),
            Shape::Bytes => Box::new(FramedSender::new(self.writer()?)),
            _ => queue::fragment_sender(self.address, outgoing, &self.options).map_err(|error| self.explain(error))?,
        })
    }

    /// Messages in, whole or in parts.
    pub(crate) fn part_receiver(&self, wanted: Wanted, note: &Note) -> Result<Box<dyn PartReceiver>, Failure> {
        Ok(match self.shape {
            Shape::Bytes if open::is_pipe(self.address)? => Box::new(MessageReader::new(self.reader()?)),
            Shape::Bytes => Box::new(FramedReceiver::new(self.reader()?)),
            _ => Box::new(FragmentReceiver::new(self.receiver(wanted, note)?)),
        })
    }

    /// A missing object that was not to be created gets the flag named.
    fn explain(&self, error: Error) -> Failure {
        let missing = error.raw_os_error() == Some(rustix::io::Errno::NOENT.raw_os_error());
        match Failure::from(error) {
            Failure::Failed(text) if missing && !self.options.create => {
                Failure::Failed(format!("{text} (--no-create forbids creating it)"))
            }
            failure => failure,
        }
    }
}

/// This end listens at `address`, without an [`Opening`]: a file that it made for that goes with it. `tell` says so on stderr.
pub(crate) fn listening(address: &Address, tell: bool) {
    if tell { tell_and_remember(address) } else { remember(address) }
}

/// This end listens at `address`: a file that it made for that goes with it.
fn remember(address: &Address) {
    if let Some(path) = file_of(address) {
        interrupt::remember(path);
    }
}

fn tell_and_remember(address: &Address) {
    remember(address);
    tell(&format!("listening at {address}"));
}

fn file_of(address: &Address) -> Option<&Path> {
    match address {
        Address::Pty(path) => Some(path.as_path()),
        Address::UnixStream(name) | Address::UnixDgram(name) | Address::UnixSeqpacket(name) => name.as_path(),
        Address::Channel(name) => name.as_path(),
        _ => None,
    }
}
