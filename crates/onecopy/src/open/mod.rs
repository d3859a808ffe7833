//! Endpoints by address: a program changes its mechanism by changing a text.
//!
//! [`open_sender`] and [`open_receiver`] give messages over any mechanism that moves data: natively where the kernel keeps
//! boundaries, in frames on a byte stream, which on pipes and FIFOs are safe with any number of senders, through a ring in shared
//! memory. [`open_writer`] and [`open_reader`] give the
//! raw bytes of a stream, since programs on the other side may not frame. What is special to a mechanism (priorities, types,
//! credentials) is on its own type.

mod channel;
mod descriptor;
mod memory;
mod shared;
mod sync;

use std::fmt;

pub use channel::channel;
pub use memory::{open_region, open_region_read_only};
pub use sync::{BoxedLock, BoxedNotify, BoxedWait, open_lock, open_notify, open_wait};

use crate::address::FilePath;
use crate::message::posix_mq::{Access, PosixQueue, QueueAttributes};
use crate::message::sctp::{SctpListener, SctpSocket};
use crate::message::sysv_mq::SysvQueue;
use crate::message::udp::UdpSocket;
use crate::message::unix_dgram::UnixDatagram;
use crate::message::unix_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
use crate::stream::framed::{FramedReceiver, FramedSender};
use crate::stream::pipe::{MessageReader, MessageWriter};
use crate::stream::pty::{PtyMaster, PtySlave};
use crate::stream::tcp::{TcpListener, TcpStream};
use crate::stream::unix::{UnixListener, UnixStream};
use crate::stream::{ByteReader, ByteWriter, fifo};
use crate::{Address, Deadline, Error, HostPort, PosixName, Receiver, Result, Sender, SysvName, UnixName};

/// A sender over whichever mechanism.
pub type BoxedSender = Box<dyn Sender + Send>;
/// A receiver over whichever mechanism.
pub type BoxedReceiver = Box<dyn Receiver + Send>;
/// A stream to write to.
pub type BoxedWriter = Box<dyn ByteWriter + Send>;
/// A stream to read from.
pub type BoxedReader = Box<dyn ByteReader + Send>;

/// How an endpoint is opened. Give the fields that matter and take the others from [`OpenOptions::default`], as here: there may be more
/// some day.
///
/// ```
/// use onecopy::open::{OpenOptions, open_receiver, open_sender};
/// use onecopy::{Address, Receiver, Sender};
///
/// let address: Address = format!("unix:@onecopy-open-{}", std::process::id()).parse()?;
/// let listening = OpenOptions { listen: true, ..OpenOptions::default() };
/// let receiving = std::thread::spawn({
///     let address = address.clone();
///     move || open_receiver(&address, &listening)?.recv()
/// });
/// open_sender(&address, &OpenOptions::default())?.send(b"hello")?;
/// assert_eq!(receiving.join().unwrap()?.as_deref(), Some(&b"hello"[..]));
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct OpenOptions {
    /// How long to wait for the other side. With [`Deadline::Now`] a missing one is an error at once.
    pub deadline: Deadline,
    /// On sockets, channels and pseudoterminals: whether this side makes the name that the other one connects to. Elsewhere both
    /// sides name the same object, and this says nothing.
    pub listen: bool,
    /// Whether a missing FIFO, queue or region is created.
    pub create: bool,
    /// The permission bits of what is created.
    pub mode: u32,
    /// Called once this side listens, with the address that it listens at: the port is the one that the kernel chose.
    pub on_listening: fn(&Address),
}

impl Default for OpenOptions {
    /// Wait for as long as it takes, connect, create what is missing for this user alone.
    fn default() -> Self {
        Self { deadline: Deadline::Never, listen: false, create: true, mode: 0o600, on_listening: |_| {} }
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deadline, listen, create, mode, on_listening: _ } = self;
        f.debug_struct("OpenOptions")
            .field("deadline", deadline)
            .field("listen", listen)
            .field("create", create)
            .field("mode", &format_args!("{mode:#o}"))
            .finish_non_exhaustive()
    }
}

/// How data moves over the object of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// Bytes in order, without boundaries.
    Bytes,
    /// Messages with boundaries.
    Messages,
    /// Shared memory, over which messages move through a ring.
    Memory,
    /// The memory of another process, which is read and written at an offset.
    Remote,
    /// No data: it wakes, locks or signals.
    None,
}

/// How data moves over the object of `address`. What a descriptor is, the kernel is asked.
///
/// # Errors
///
/// EBADF when a descriptor is not open.
pub fn shape(address: &Address) -> Result<Shape> {
    Ok(match address {
        Address::Fifo(_) | Address::Pty(_) | Address::UnixStream(_) | Address::Tcp(_) => Shape::Bytes,
        Address::UnixDgram(_) | Address::UnixSeqpacket(_) | Address::Udp(_) | Address::Sctp(_) => Shape::Messages,
        Address::PosixMq(_) | Address::SysvMq(_) | Address::Channel(_) => Shape::Messages,
        Address::PosixShm(_) | Address::SysvShm(_) | Address::FileMapping(_) => Shape::Memory,
        Address::Memory(_) => Shape::Remote,
        Address::Descriptor(name) => descriptor::shape(*name)?,
        _ => Shape::None,
    })
}

/// Whether the object of `address` is a pipe or a FIFO, whose messages [`open_sender`] makes safe with any number of senders. What
/// a descriptor is, the kernel is asked.
///
/// # Errors
///
/// EBADF when a descriptor is not open.
pub fn is_pipe(address: &Address) -> Result<bool> {
    match address {
        Address::Fifo(_) => Ok(true),
        Address::Descriptor(name) => descriptor::is_pipe(*name),
        _ => Ok(false),
    }
}

/// Opens `address` to write raw bytes to it.
///
/// # Errors
///
/// [`Error::Invalid`] when it is no stream; [`Error::TimedOut`] when the other side did not appear in time; what the open
/// of its mechanism reports.
pub fn open_writer(address: &Address, options: &OpenOptions) -> Result<BoxedWriter> {
    match address {
        Address::Descriptor(name) => descriptor::writer(*name),
        Address::Fifo(path) => {
            create_missing(options, || fifo::create(path.as_path(), options.mode))?;
            Ok(Box::new(fifo::open_writer(path.as_path(), options.deadline)?))
        }
        Address::Pty(link) if options.listen => {
            let master = pty_master(link, address, options)?;
            // What goes to a terminal that nobody ever opens would wait for ever.
            master.wait_for_slave_by(options.deadline)?;
            Ok(Box::new(master))
        }
        Address::Pty(link) => Ok(Box::new(PtySlave::open(link.as_path(), options.deadline)?)),
        Address::UnixStream(name) => Ok(Box::new(unix_stream(name, address, options)?)),
        Address::Tcp(name) => Ok(Box::new(tcp(name, options)?)),
        _ => Err(no_stream(address)),
    }
}

/// Opens `address` to read raw bytes from it.
///
/// # Errors
///
/// As [`open_writer`].
pub fn open_reader(address: &Address, options: &OpenOptions) -> Result<BoxedReader> {
    match address {
        Address::Descriptor(name) => descriptor::reader(*name),
        Address::Fifo(path) => {
            create_missing(options, || fifo::create(path.as_path(), options.mode))?;
            Ok(Box::new(fifo::open_reader(path.as_path(), options.deadline)?))
        }
        Address::Pty(link) if options.listen => Ok(Box::new(pty_master(link, address, options)?)),
        Address::Pty(link) => Ok(Box::new(PtySlave::open(link.as_path(), options.deadline)?)),
        Address::UnixStream(name) => Ok(Box::new(unix_stream(name, address, options)?)),
        Address::Tcp(name) => Ok(Box::new(tcp(name, options)?)),
        _ => Err(no_stream(address)),
    }
}

/// Opens `address` to send messages over it.
///
/// # Errors
///
/// [`Error::Invalid`] when it moves no data; [`Error::TimedOut`] when the other side did not appear in time; what the open
/// of its mechanism reports.
pub fn open_sender(address: &Address, options: &OpenOptions) -> Result<BoxedSender> {
    match address {
        Address::UnixDgram(name) => Ok(Box::new(unix_datagram(name, options)?)),
        Address::UnixSeqpacket(name) => Ok(Box::new(unix_seqpacket(name, address, options)?)),
        Address::Udp(name) => Ok(Box::new(udp(name, options)?)),
        Address::Sctp(name) => Ok(Box::new(sctp(name, options)?)),
        Address::PosixMq(name) => Ok(Box::new(posix_queue(name, Access::Send, options)?)),
        Address::SysvMq(name) => Ok(Box::new(sysv_queue(name, options)?)),
        Address::Channel(name) => Ok(Box::new(channel::Whole(channel(name, options)?))),
        _ => match shape(address)? {
            Shape::Bytes if is_pipe(address)? => Ok(Box::new(MessageWriter::new(open_writer(address, options)?))),
            Shape::Bytes => Ok(Box::new(FramedSender::new(open_writer(address, options)?))),
            Shape::Memory => Ok(Box::new(memory::ring_sender(address, options)?)),
            Shape::Messages => match address {
                Address::Descriptor(name) => descriptor::sender(*name),
                _ => Err(no_transfer(address)),
            },
            Shape::Remote | Shape::None => Err(no_transfer(address)),
        },
    }
}

/// Opens `address` to receive messages over it.
///
/// # Errors
///
/// As [`open_sender`].
pub fn open_receiver(address: &Address, options: &OpenOptions) -> Result<BoxedReceiver> {
    match address {
        Address::UnixDgram(name) => Ok(Box::new(unix_datagram(name, options)?)),
        Address::UnixSeqpacket(name) => Ok(Box::new(unix_seqpacket(name, address, options)?)),
        Address::Udp(name) => Ok(Box::new(udp(name, options)?)),
        Address::Sctp(name) => Ok(Box::new(sctp(name, options)?)),
        Address::PosixMq(name) => Ok(Box::new(posix_queue(name, Access::Receive, options)?)),
        Address::SysvMq(name) => Ok(Box::new(sysv_queue(name, options)?)),
        Address::Channel(name) => Ok(Box::new(channel::Whole(channel(name, options)?))),
        _ => match shape(address)? {
            Shape::Bytes if is_pipe(address)? => Ok(Box::new(MessageReader::new(open_reader(address, options)?))),
            Shape::Bytes => Ok(Box::new(FramedReceiver::new(open_reader(address, options)?))),
            Shape::Memory => Ok(Box::new(memory::ring_receiver(address, options)?)),
            Shape::Messages => match address {
                Address::Descriptor(name) => descriptor::receiver(*name),
                _ => Err(no_transfer(address)),
            },
            Shape::Remote | Shape::None => Err(no_transfer(address)),
        },
    }
}

/// Creates an object, unless the options forbid it or it is there already.
fn create_missing(options: &OpenOptions, create: impl FnOnce() -> Result<()>) -> Result<()> {
    if !options.create {
        return Ok(());
    }
    match create() {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

fn unix_stream(name: &UnixName, address: &Address, options: &OpenOptions) -> Result<UnixStream> {
    if !options.listen {
        return UnixStream::connect(name, options.deadline);
    }
    let listener = UnixListener::bind(name)?;
    (options.on_listening)(address);
    listener.accept_by(options.deadline)
}

fn pty_master(link: &FilePath, address: &Address, options: &OpenOptions) -> Result<PtyMaster> {
    let master = PtyMaster::create(link.as_path())?;
    (options.on_listening)(address);
    Ok(master)
}

fn tcp(name: &HostPort, options: &OpenOptions) -> Result<TcpStream> {
    if !options.listen {
        return TcpStream::connect(name, options.deadline);
    }
    let listener = TcpListener::bind(name)?;
    (options.on_listening)(&Address::Tcp(listener.local_address()?));
    listener.accept_by(options.deadline)
}

/// A UNIX datagram socket: bound by the side that listens.
///
/// # Errors
///
/// Those of [`UnixDatagram::bind`] and [`UnixDatagram::connect`].
pub fn unix_datagram(name: &UnixName, options: &OpenOptions) -> Result<UnixDatagram> {
    if !options.listen {
        return UnixDatagram::connect(name, options.deadline);
    }
    let socket = UnixDatagram::bind(name)?;
    (options.on_listening)(&Address::UnixDgram(name.clone()));
    Ok(socket)
}

fn unix_seqpacket(name: &UnixName, address: &Address, options: &OpenOptions) -> Result<UnixSeqpacket> {
    if !options.listen {
        return UnixSeqpacket::connect(name, options.deadline);
    }
    let listener = UnixSeqpacketListener::bind(name)?;
    (options.on_listening)(address);
    listener.accept_by(options.deadline)
}

/// A UDP socket: bound by the side that listens.
///
/// # Errors
///
/// Those of [`UdpSocket::bind`] and [`UdpSocket::connect`].
pub fn udp(name: &HostPort, options: &OpenOptions) -> Result<UdpSocket> {
    if !options.listen {
        return UdpSocket::connect(name);
    }
    let socket = UdpSocket::bind(name)?;
    (options.on_listening)(&Address::Udp(socket.local_address()?));
    Ok(socket)
}

fn sctp(name: &HostPort, options: &OpenOptions) -> Result<SctpSocket> {
    if !options.listen {
        return SctpSocket::connect(name, options.deadline);
    }
    let listener = SctpListener::bind(name)?;
    (options.on_listening)(&Address::Sctp(listener.local_address()?));
    listener.accept_by(options.deadline)
}

/// A POSIX queue: opened for what `access` says, or created, with the attributes that the system gives by default.
///
/// # Errors
///
/// Those of [`PosixQueue::open_for`] and [`PosixQueue::create`].
pub fn posix_queue(name: &PosixName, access: Access, options: &OpenOptions) -> Result<PosixQueue> {
    loop {
        // Between the two calls another process may unlink the queue or create it: then the turn starts again.
        match PosixQueue::open_for(name, access) {
            Err(error) if options.create && error.raw_os_error() == Some(libc::ENOENT) => {}
            result => return result,
        }
        match PosixQueue::create(name, &QueueAttributes::system_default(), options.mode) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            result => return result,
        }
    }
}

/// A System V queue: opened, or created when it has a key.
///
/// # Errors
///
/// Those of [`SysvQueue::open`] and [`SysvQueue::create`].
pub fn sysv_queue(name: &SysvName, options: &OpenOptions) -> Result<SysvQueue> {
    loop {
        // Not msgget(2) with IPC_CREAT, which refuses a queue that exists to whoever lacks one of the rights in the mode.
        match SysvQueue::open(name) {
            Err(error) if options.create && error.raw_os_error() == Some(libc::ENOENT) => {}
            result => return result,
        }
        match SysvQueue::create(name, options.mode) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            result => return result,
        }
    }
}

fn no_stream(address: &Address) -> Error {
    Error::Invalid { object: address.to_string(), reason: "is no stream of bytes".into() }
}

fn no_transfer(address: &Address) -> Error {
    Error::Invalid { object: address.to_string(), reason: "moves no messages".into() }
}
