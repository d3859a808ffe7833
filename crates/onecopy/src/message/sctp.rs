//! Row 9, the Internet sequenced packet: [sctp(7)](https://man7.org/linux/man-pages/man7/sctp.7.html), with the sockets of
//! [RFC 6458](https://www.rfc-editor.org/rfc/rfc6458).
//!
//! An association carries messages in order, each whole, and its end is seen. These are one-to-one sockets (RFC 6458, 4), which
//! are connected, listened on and accepted as TCP's are, and keep boundaries all the same: MSG_EOR marks the last piece of a
//! message. A message has at least one byte. Small ones go at once (SCTP_NODELAY).
//!
//! Many kernels are built without SCTP, or leave it in a module that is not installed: [`is_available`] tells.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SocketFlags, SocketType, bind, getpeername, ipproto,
    listen, socket_with,
};

use super::assembly::{Assembly, Piece};
use crate::address::HostPort;
use crate::io::inet::{bind_error, first_of, local_of, name_of};
use crate::io::inet_connect::connect_by;
use crate::io::socket::{BACKLOG, Socket};
use crate::sys::socket_options::set_sctp_nodelay;
use crate::{Deadline, Error, Receiver, Result, Sender};

/// The smallest send buffer that the kernel lets a socket have is larger than this (`SOCK_MIN_SNDBUF`), so that the limit
/// need not be asked for when a message is no longer.
const ALWAYS_FITS_BYTES: usize = 4096;

/// Whether this kernel has SCTP. Asking loads the module where it is installed.
///
/// ```
/// match onecopy::message::sctp::is_available() {
///     Ok(()) => println!("this kernel has SCTP"),
///     Err(error) => println!("{error}"),
/// }
/// ```
///
/// # Errors
///
/// [`Error::Unsupported`] with what the kernel said.
pub fn is_available() -> Result<()> {
    socket_of(AddressFamily::INET, "sctp").map(drop)
}

/// A port that processes connect to.
///
/// ```no_run
/// use onecopy::message::sctp::{SctpListener, SctpSocket};
/// use onecopy::{Deadline, Receiver, Sender};
///
/// let listener = SctpListener::bind(&"127.0.0.1:0".parse()?)?;
/// let mut client = SctpSocket::connect(&listener.local_address()?, Deadline::Never)?;
/// let mut server = listener.accept_by(Deadline::Never)?;
/// client.send(b"one message")?;
/// drop(client);
/// assert_eq!(server.recv()?.as_deref(), Some(&b"one message"[..]));
/// assert_eq!(server.recv()?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SctpListener {
    socket: Socket,
}

impl SctpListener {
    /// Listens at `address`; port 0 lets the kernel choose, and [`SctpListener::local_address`] says what it chose. A host name
    /// with several addresses stands for the first that can be bound.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the kernel has no SCTP; EADDRINUSE when a process listens there; EADDRNOTAVAIL for an
    /// address that this machine does not have.
    pub fn bind(address: &HostPort) -> Result<Self> {
        let object = format!("sctp:{address}");
        let fd = first_of(address, &object, |address| {
            let fd = new_socket(address, &object)?;
            bind(&fd, &address).map_err(|errno| bind_error(&object, errno))?;
            listen(&fd, BACKLOG).map_err(|errno| Error::os("listen", &object, errno))?;
            Ok(fd)
        })?;
        let mut listener = Self { socket: Socket::listener(fd, object)? };
        if address.port() == 0 {
            let real = HostPort { port: listener.local_address()?.port(), host: address.host().into() };
            listener.socket.set_object(format!("sctp:{real}"));
        }
        Ok(listener)
    }

    /// The address at which this socket listens, with its real port.
    ///
    /// # Errors
    ///
    /// None that can be foreseen.
    pub fn local_address(&self) -> Result<HostPort> {
        local_of(&self.socket).map(name_of)
    }

    /// Waits until `deadline` for a process that connects.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when none came; EMFILE when there are too many descriptors.
    pub fn accept_by(&self, deadline: Deadline) -> Result<SctpSocket> {
        SctpSocket::from_fd(self.socket.accept_by(deadline)?, self.socket.object())
    }
}

impl AsFd for SctpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One side of an association.
#[derive(Debug)]
pub struct SctpSocket {
    socket: Socket,
    assembly: Assembly,
}

impl SctpSocket {
    /// Connects to the listener at `peer`, waiting until `deadline` for one to appear. Every address of a host name is tried.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the kernel has no SCTP; [`Error::TimedOut`] when nobody listened or answered in time; with
    /// [`Deadline::Now`] ECONNREFUSED where nobody listens, and [`Error::WouldBlock`] when the other side did not answer at
    /// once.
    pub fn connect(peer: &HostPort, deadline: Deadline) -> Result<Self> {
        let object = format!("sctp:{peer}");
        let fd = connect_by(peer, &object, deadline, |address| new_socket(address, &object))?;
        Self::from_fd(fd, object)
    }

    /// Takes over a connected one-to-one socket that this process inherited. `object` names it in errors.
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP or ENOPROTOOPT when it is no SCTP socket.
    pub fn from_fd(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
        let socket = Socket::new(fd, object);
        set_sctp_nodelay(socket.as_fd()).map_err(|errno| socket.error("setsockopt(SCTP_NODELAY)", errno))?;
        Ok(Self { socket, assembly: Assembly::default() })
    }

    /// Another handle of the same socket, so that one thread can send while another receives. Receive with one of them only:
    /// a message that has not come completely waits in the handle that began it.
    ///
    /// # Errors
    ///
    /// EMFILE when there are too many descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, assembly: Assembly::default() })
    }

    /// Ends the association: the other side receives the end after what was sent. SCTP has no half-closed state, so nothing
    /// can be sent to this side either once the other one has seen it.
    ///
    /// # Errors
    ///
    /// ENOTCONN when the association is gone.
    pub fn shutdown_write(&self) -> Result<()> {
        self.socket.shutdown_write()
    }

    /// The address of this side.
    ///
    /// # Errors
    ///
    /// None that can be foreseen.
    pub fn local_address(&self) -> Result<HostPort> {
        local_of(&self.socket).map(name_of)
    }

    /// The address of the other side.
    ///
    /// # Errors
    ///
    /// ENOTCONN when the association is gone.
    pub fn peer_address(&self) -> Result<HostPort> {
        let error = |errno| self.socket.error("getpeername", errno);
        let peer = getpeername(&self.socket).map_err(error)?.ok_or_else(|| error(Errno::NOTCONN))?;
        SocketAddr::try_from(peer).map(name_of).map_err(error)
    }

    /// Asks for a send buffer of `bytes` (SO_SNDBUF) and returns the size in force: the kernel doubles the number for its
    /// administration, after it lowered it to `/proc/sys/net/core/wmem_max`. The longest message, [`Sender::limit_bytes`],
    /// follows it.
    ///
    /// # Errors
    ///
    /// None that can be foreseen.
    pub fn set_send_buffer_bytes(&self, bytes: usize) -> Result<usize> {
        set_socket_send_buffer_size(&self.socket, bytes)
            .map_err(|errno| self.socket.error("setsockopt(SO_SNDBUF)", errno))?;
        self.send_buffer_bytes()
    }

    fn send_buffer_bytes(&self) -> Result<usize> {
        socket_send_buffer_size(&self.socket).map_err(|errno| self.socket.error("getsockopt(SO_SNDBUF)", errno))
    }

    /// Refuses what SCTP does not carry, and what the send buffer never has room for: there RFC 6458 asks for EMSGSIZE, and
    /// not every version of the kernel agrees.
    fn check_length(&self, message_bytes: usize) -> Result<()> {
        let object = self.socket.object();
        if message_bytes == 0 {
            return Err(Error::Invalid {
                object: object.into(),
                reason: "a message of 0 bytes cannot be sent: one of SCTP has at least one byte".into(),
            });
        }
        if message_bytes <= ALWAYS_FITS_BYTES {
            return Ok(());
        }
        let limit_bytes = self.send_buffer_bytes()?;
        if message_bytes <= limit_bytes {
            return Ok(());
        }
        let remedy = "enlarge the send buffer, up to /proc/sys/net/core/wmem_max, or send it in fragments";
        Err(Error::TooLong { object: object.into(), message_bytes, limit_bytes, remedy: Some(remedy.into()) })
    }
}

impl Sender for SctpSocket {
    /// Sends one message, waiting while the send buffer is full.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] above [`Sender::limit_bytes`]; [`Error::Invalid`] for a message of length zero; EPIPE or ECONNRESET,
    /// and never a SIGPIPE, when the other side is gone.
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.check_length(message.len())?;
        self.socket.send_one_by(message, deadline).map(drop)
    }

    /// The size of the send buffer (SO_SNDBUF).
    fn limit_bytes(&self) -> Option<usize> {
        self.send_buffer_bytes().ok()
    }

    fn object(&self) -> &str {
        self.socket.object()
    }
}

impl Receiver for SctpSocket {
    /// Receives one message; `None` when the other side closed or died.
    ///
    /// # Errors
    ///
    /// As the trait says; ECONNRESET when the other side aborted the association.
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        let socket = &self.socket;
        self.assembly.recv(buffer, socket.object(), |slices| {
            match socket.recv_by(slices, &mut RecvAncillaryBuffer::default(), RecvFlags::empty(), deadline) {
                Ok(got) => Ok(Piece { bytes: got.bytes, completes: got.flags.contains(ReturnFlags::EOR) }),
                // The association is gone, and everything that had arrived was received before.
                Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Ok(Piece { bytes: 0, completes: false }),
                Err(error) => Err(error),
            }
        })
    }

    fn object(&self) -> &str {
        self.socket.object()
    }
}

impl AsFd for SctpSocket {
    /// The socket, for poll(2). A message that a too small buffer left waiting is in this process and does not show there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn new_socket(address: SocketAddr, object: &str) -> Result<OwnedFd> {
    socket_of(if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }, object)
}

fn socket_of(family: AddressFamily, object: &str) -> Result<OwnedFd> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::SCTP)).map_err(|errno| {
        let said = match errno {
            Errno::PROTONOSUPPORT => "EPROTONOSUPPORT",
            Errno::SOCKTNOSUPPORT => "ESOCKTNOSUPPORT",
            _ => return Error::os("socket", object, errno),
        };
        let reason =
            format!("this kernel has no SCTP ({said}): `modprobe sctp` loads it where the module is installed");
        Error::Unsupported { object: object.into(), reason }
    })
}
