//! Row 8, the Internet datagram: [udp(7)](https://man7.org/linux/man-pages/man7/udp.7.html).
//!
//! A datagram arrives whole or not at all. **UDP loses datagrams**, on one machine too: one that finds the receive buffer
//! full is discarded, and the sender is told nothing. [`UdpSocket::dropped`] counts those on the receiving side; datagrams
//! that a network lost are in no count. Who must not lose any numbers them, or uses another mechanism.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_send_buffer_size, socket_recv_buffer_size, socket_send_buffer_size,
};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SocketType, bind, connect, getpeername};

use super::inbox::Inbox;
use crate::address::HostPort;
use crate::io::inet::{
    INTERFACE_MISSING, Kind, bind_error, check_peer, first_of, local_of, name_of, resolve, socket_for,
};
use crate::io::socket::Socket;
use crate::sys::socket_options::dropped_datagrams;
use crate::{Deadline, Error, Receiver, Result, Sender};

/// The longest datagram over IPv4, in bytes: 65535 less the headers of IP and UDP.
pub const IPV4_LIMIT_BYTES: usize = 65_507;
/// The longest datagram over IPv6, in bytes: 65535 less the header of UDP.
pub const IPV6_LIMIT_BYTES: usize = 65_527;

/// A UDP socket: it receives at the address that it is bound to, and sends to the one that it is connected to or to any.
///
/// ```
/// use onecopy::message::udp::UdpSocket;
/// use onecopy::{HostPort, Receiver, Sender};
///
/// let mut receiver = UdpSocket::bind(&"127.0.0.1:0".parse()?)?;
/// let mut sender = UdpSocket::connect(&receiver.local_address()?)?;
/// sender.send(b"one datagram")?;
/// assert_eq!(receiver.recv()?.as_deref(), Some(&b"one datagram"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    inbox: Inbox<Option<SocketAddr>>,
    limit_bytes: usize,
}

impl UdpSocket {
    /// A socket that receives what is sent to `address`; port 0 lets the kernel choose, and [`UdpSocket::local_address`]
    /// says what it chose. A host name with several addresses stands for the first that can be bound.
    ///
    /// # Errors
    ///
    /// EADDRINUSE when the port is taken; EADDRNOTAVAIL for an address that this machine does not have; EACCES for a port
    /// below `/proc/sys/net/ipv4/ip_unprivileged_port_start` without CAP_NET_BIND_SERVICE.
    pub fn bind(address: &HostPort) -> Result<Self> {
        let object = format!("udp:{address}");
        let socket = first_of(address, &object, |address| {
            let fd = new_socket(address, &object)?;
            bind(&fd, &address).map_err(|errno| bind_error(&object, errno))?;
            Ok(Socket::new(fd, &object))
        })?;
        let local = local_of(&socket)?;
        Ok(Self::new(socket, local))
    }

    /// A socket that sends to `peer` and receives only from there, at an address that the kernel chooses.
    ///
    /// This does not wait, and says nothing of whether anybody receives there: UDP has no connections. Datagrams that are
    /// sent before the receiver is bound are lost; on one machine the next call after such a loss fails with ECONNREFUSED,
    /// for which [`Error::is_peer_gone`] holds, and the socket can still be used. A host name with several addresses stands
    /// for the first that has a route.
    ///
    /// # Errors
    ///
    /// ENETUNREACH without a route to `peer`; EACCES for a broadcast address; [`Error::Invalid`] for port 0.
    pub fn connect(peer: &HostPort) -> Result<Self> {
        let object = format!("udp:{peer}");
        check_peer(peer, &object)?;
        first_of(peer, &object, |address| {
            let fd = new_socket(address, &object)?;
            connect(&fd, &address).map_err(|errno| connect_error(&object, errno))?;
            Ok(Self::new(Socket::new(fd, &object), address))
        })
    }

    fn new(socket: Socket, address: SocketAddr) -> Self {
        Self { socket, inbox: Inbox::new(IPV6_LIMIT_BYTES), limit_bytes: limit_of(address) }
    }

    /// The address at which this socket receives, with its real port.
    ///
    /// # Errors
    ///
    /// None that can be foreseen.
    pub fn local_address(&self) -> Result<HostPort> {
        local_of(&self.socket).map(name_of)
    }

    /// The address to which this socket is connected.
    ///
    /// # Errors
    ///
    /// ENOTCONN when it is not.
    pub fn peer_address(&self) -> Result<HostPort> {
        let error = |errno| self.socket.error("getpeername", errno);
        let peer = getpeername(&self.socket).map_err(error)?.ok_or_else(|| error(Errno::NOTCONN))?;
        SocketAddr::try_from(peer).map(name_of).map_err(error)
    }

    /// Sends one datagram to `to`, whatever this socket is connected to: the way to answer [`UdpSocket::recv_from_by`].
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`]; EAFNOSUPPORT for an IPv6 address on a socket that is bound to an IPv4 one; [`Error::Invalid`]
    /// for port 0.
    pub fn send_to_by(&mut self, message: &[u8], to: &HostPort, deadline: Deadline) -> Result<()> {
        let object = format!("udp:{to}");
        check_peer(to, &object)?;
        let Some(&address) = resolve(to, &object)?.first() else {
            return Err(Error::Invalid { object, reason: "the host has no address".into() });
        };
        let sent = self.socket.send_to_by(message, &address, &object, deadline);
        sent.map(drop).map_err(|error| explain_send(error, &object, message.len(), limit_of(address)))
    }

    /// As [`Receiver::recv_into_by`], with the address of the sender.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`].
    pub fn recv_from_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<(usize, HostPort)> {
        let (len, from) = self.receive(buffer, deadline)?;
        let from = from.ok_or_else(|| self.socket.error("recvmsg", Errno::AFNOSUPPORT))?;
        Ok((len, name_of(from)))
    }

    fn receive(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<(usize, Option<SocketAddr>)> {
        let socket = &self.socket;
        let mut from = None;
        let received = self.inbox.recv(buffer, &mut from, socket.object(), |slices, from| {
            let got = socket.recv_by(slices, &mut RecvAncillaryBuffer::default(), RecvFlags::empty(), deadline)?;
            *from = got.address.and_then(|address| address.try_into().ok());
            Ok(Some(got.bytes))
        });
        received.map(|len| (len.unwrap_or_default(), from)).map_err(explain_refusal)
    }

    /// How many datagrams the kernel discarded because this socket's receive buffer was full, since the socket was made,
    /// modulo 2^32 (SO_MEMINFO, Linux 4.12). More may be discarded at any time.
    ///
    /// # Errors
    ///
    /// ENOPROTOOPT before Linux 4.12.
    pub fn dropped(&self) -> Result<u32> {
        dropped_datagrams(self.as_fd()).map_err(|errno| self.socket.error("getsockopt(SO_MEMINFO)", errno))
    }

    /// The size of the receive buffer in bytes, as the kernel counts: each datagram takes its length and a few hundred bytes
    /// for its administration.
    ///
    /// # Errors
    ///
    /// None that can be foreseen.
    pub fn receive_buffer_bytes(&self) -> Result<usize> {
        socket_recv_buffer_size(&self.socket).map_err(|errno| self.socket.error("getsockopt(SO_RCVBUF)", errno))
    }

    /// Asks for a receive buffer of `bytes` (SO_RCVBUF) and returns the size in force: the kernel doubles the number for its
    /// administration, after it lowered it to `/proc/sys/net/core/rmem_max`.
    ///
    /// # Errors
    ///
    /// None that can be foreseen.
    pub fn set_receive_buffer_bytes(&self, bytes: usize) -> Result<usize> {
        set_socket_recv_buffer_size(&self.socket, bytes)
            .map_err(|errno| self.socket.error("setsockopt(SO_RCVBUF)", errno))?;
        self.receive_buffer_bytes()
    }

    /// Asks for a send buffer of `bytes` (SO_SNDBUF) and returns the size in force: the kernel doubles the number for its
    /// administration, after it lowered it to `/proc/sys/net/core/wmem_max`.
    ///
    /// # Errors
    ///
    /// None that can be foreseen.
    pub fn set_send_buffer_bytes(&self, bytes: usize) -> Result<usize> {
        set_socket_send_buffer_size(&self.socket, bytes)
            .map_err(|errno| self.socket.error("setsockopt(SO_SNDBUF)", errno))?;
        socket_send_buffer_size(&self.socket).map_err(|errno| self.socket.error("getsockopt(SO_SNDBUF)", errno))
    }
}

impl Sender for UdpSocket {
    /// Sends one datagram to the peer that this socket is connected to. Success means that the kernel took it, and not that
    /// it will arrive.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] above [`Sender::limit_bytes`]; ECONNREFUSED when a datagram before this one found no receiver (this
    /// one was not sent); EDESTADDRREQ on a socket that is not connected; ENOBUFS when the send buffer is too small for the
    /// parts of a long datagram.
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        let sent = self.socket.send_one_by(message, deadline).map(drop);
        sent.map_err(|error| explain_send(error, self.socket.object(), message.len(), self.limit_bytes))
    }

    /// [`IPV4_LIMIT_BYTES`] or [`IPV6_LIMIT_BYTES`], by the address of the peer.
    fn limit_bytes(&self) -> Option<usize> {
        Some(self.limit_bytes)
    }

    fn object(&self) -> &str {
        self.socket.object()
    }
}

impl Receiver for UdpSocket {
    /// Receives one datagram. Never `None`: UDP has no end, and a sender that dies leaves no sign.
    ///
    /// # Errors
    ///
    /// As the trait says; on a connected socket ECONNREFUSED when a datagram sent before found no receiver.
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        if buffer.len() < IPV6_LIMIT_BYTES || self.inbox.has_one_waiting() {
            return self.receive(buffer, deadline).map(|(len, _)| Some(len));
        }
        self.socket.recv_one_by(buffer, deadline).map(Some).map_err(explain_refusal)
    }

    fn object(&self) -> &str {
        self.socket.object()
    }
}

impl AsFd for UdpSocket {
    /// The socket, for poll(2). A message that a too small buffer left waiting is in this process and does not show there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn new_socket(address: SocketAddr, object: &str) -> Result<OwnedFd> {
    socket_for(address, Kind(SocketType::DGRAM, None), object)
}

fn limit_of(address: SocketAddr) -> usize {
    if address.ip().to_canonical().is_ipv4() { IPV4_LIMIT_BYTES } else { IPV6_LIMIT_BYTES }
}

fn connect_error(object: &str, errno: Errno) -> Error {
    let error = Error::os("connect", object, errno);
    match errno {
        Errno::ACCESS => error.with_remedy("a broadcast address is for sockets that ask for that (SO_BROADCAST)"),
        Errno::INVAL => error.with_remedy(INTERFACE_MISSING),
        _ => error,
    }
}

fn explain_send(error: Error, object: &str, message_bytes: usize, limit_bytes: usize) -> Error {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => Error::TooLong {
            object: object.into(),
            message_bytes,
            limit_bytes,
            remedy: Some("UDP cannot carry more: send it in fragments, or use another mechanism".into()),
        },
        Some(libc::ENOBUFS) => error.with_remedy(format!(
            "the send buffer has no room for all parts of a datagram of {message_bytes} bytes: enlarge it, up to \
             /proc/sys/net/core/wmem_max"
        )),
        Some(libc::EDESTADDRREQ) => error.with_remedy("this socket is not connected: name the receiver"),
        Some(libc::EACCES) => error.with_remedy("broadcasting is not allowed on this socket"),
        _ => explain_refusal(error),
    }
}

fn explain_refusal(error: Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => error.with_remedy("a datagram sent before found no receiver there, and is lost"),
        _ => error,
    }
}
