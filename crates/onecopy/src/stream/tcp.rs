//! Row 7, the Internet stream: [tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html).
//!
//! A connection between two hosts, or two processes of one, over IPv4 or IPv6. Small writes go at once: Nagle's algorithm is
//! always off (`TCP_NODELAY`). Whoever reaches the port can connect, and TCP tells nobody who that is.
//!
//! A socket that is closed, or whose process dies, with bytes that it has not read resets the connection: the other side gets
//! ECONNRESET, for which [`Error::is_peer_gone`](crate::Error::is_peer_gone) holds, and may lose what it had not read yet.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_nodelay};
use rustix::net::{SocketType, bind, getpeername, listen};

use super::duplex::duplex_stream;
use crate::address::HostPort;
use crate::io::inet::{Kind, bind_error, first_of, local_of, name_of, socket_for};
use crate::io::inet_connect::connect_by;
use crate::io::socket::{BACKLOG, Socket};
use crate::{Deadline, Error, Result};

/// A port that processes connect to.
///
/// ```
/// use onecopy::Deadline;
/// use onecopy::stream::tcp::{TcpListener, TcpStream};
/// use onecopy::stream::{ByteReader, ByteWriter};
///
/// let listener = TcpListener::bind(&"127.0.0.1:0".parse()?)?;
/// let mut client = TcpStream::connect(&listener.local_address()?, Deadline::Never)?;
/// let mut server = listener.accept_by(Deadline::Never)?;
/// client.write_all_by(b"hello", Deadline::Never)?;
/// let mut buffer = [0; 16];
/// assert_eq!(server.read_by(&mut buffer, Deadline::Never)?, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TcpListener {
    socket: Socket,
}

impl TcpListener {
    /// Listens at `address`; port 0 lets the kernel choose, and [`TcpListener::local_address`] says what it chose. A host name
    /// with several addresses stands for the first that can be bound. Connections of a listener before that are still being
    /// closed don't stand in the way (SO_REUSEADDR); `[::]` takes IPv4 connections too, unless
    /// `/proc/sys/net/ipv6/bindv6only` says otherwise.
    ///
    /// # Errors
    ///
    /// EADDRINUSE when a process listens there; EADDRNOTAVAIL for an address that this machine does not have; EACCES for a
    /// port below `/proc/sys/net/ipv4/ip_unprivileged_port_start` without CAP_NET_BIND_SERVICE.
    pub fn bind(address: &HostPort) -> Result<Self> {
        let object = format!("tcp:{address}");
        let fd = first_of(address, &object, |address| listening(address, &object))?;
        let mut listener = Self::from_fd(fd, object)?;
        if address.port() == 0 {
            let real = HostPort { port: listener.local_address()?.port(), host: address.host().into() };
            listener.socket.set_object(format!("tcp:{real}"));
        }
        Ok(listener)
    }

    /// Takes over a listening socket that this process inherited. `object` names it in errors.
    ///
    /// The socket becomes non-blocking, for all who share its open file description: accept(2) alone has no flag for that, and would
    /// wait beyond its deadline where another of them was faster. So who accepts there by other means has to expect EAGAIN.
    ///
    /// # Errors
    ///
    /// EBADF when `fd` is no descriptor.
    pub fn from_fd(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
        Ok(Self { socket: Socket::listener(fd, object)? })
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
    pub fn accept_by(&self, deadline: Deadline) -> Result<TcpStream> {
        let fd = self.socket.accept_by(deadline)?;
        TcpStream::from_fd(fd, self.socket.object())
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One side of a connection.
///
/// Both directions are used at once by two threads through [`TcpStream::try_clone`], or through `&TcpStream`, which reads
/// and writes too.
#[derive(Debug)]
pub struct TcpStream {
    socket: Socket,
}

impl TcpStream {
    /// Connects to the listener at `peer`, waiting until `deadline` for one to appear. Every address of a host name is tried.
    /// The look-up of a name may wait for the network, and no deadline ends that; an IP address needs none.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when nobody listened or answered in time. With [`Deadline::Now`] ECONNREFUSED where nobody listens,
    /// and [`Error::WouldBlock`] when the other side did not answer at once. ENETUNREACH and EHOSTUNREACH without a way
    /// there; ETIMEDOUT when the kernel gave up.
    pub fn connect(peer: &HostPort, deadline: Deadline) -> Result<Self> {
        let object = format!("tcp:{peer}");
        let fd = connect_by(peer, &object, deadline, |address| new_socket(address, &object))?;
        Self::from_fd(fd, object)
    }

    /// Takes over a connected socket that this process inherited or was passed. `object` names it in errors.
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP when it is no TCP socket.
    pub fn from_fd(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
        let socket = Socket::new(fd, object);
        set_tcp_nodelay(&socket, true).map_err(|errno| socket.error("setsockopt(TCP_NODELAY)", errno))?;
        Ok(Self { socket })
    }

    /// Another handle of the same socket, for a second thread.
    ///
    /// # Errors
    ///
    /// EMFILE when there are too many descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }

    /// Ends the direction towards the other side, which reads the end of file after what was sent. The other direction
    /// stays.
    ///
    /// # Errors
    ///
    /// ENOTCONN when the connection is gone.
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
    /// ENOTCONN when the connection is gone.
    pub fn peer_address(&self) -> Result<HostPort> {
        let error = |errno| self.socket.error("getpeername", errno);
        let peer = getpeername(&self.socket).map_err(error)?.ok_or_else(|| error(Errno::NOTCONN))?;
        SocketAddr::try_from(peer).map(name_of).map_err(error)
    }
}

duplex_stream!(socket: TcpStream, &TcpStream);

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn new_socket(address: SocketAddr, object: &str) -> Result<OwnedFd> {
    socket_for(address, Kind(SocketType::STREAM, None), object)
}

fn listening(address: SocketAddr, object: &str) -> Result<OwnedFd> {
    let fd = new_socket(address, object)?;
    set_socket_reuseaddr(&fd, true).map_err(|errno| Error::os("setsockopt(SO_REUSEADDR)", object, errno))?;
    bind(&fd, &address).map_err(|errno| bind_error(object, errno))?;
    listen(&fd, BACKLOG).map_err(|errno| bind_error(object, errno))?;
    Ok(fd)
}
