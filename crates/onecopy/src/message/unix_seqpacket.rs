//! Row 6, the UNIX sequenced-packet socket: [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html).
//!
//! A connection like that of a UNIX stream, whose messages keep their boundaries and arrive in order, and whose end is seen.
//!
//! For recv(2) a message of length zero looks like the end: both return 0. Told apart they are by what only a message has:
//! with SO_PASSCRED set, each carries its sender's credentials. A call that leaves no room for them costs nothing more, and
//! the kernel then marks a message, and never the end, with MSG_CTRUNC. (MSG_EOR is not set on UNIX sockets.)

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::unix_packet::{PacketSocket, Wanted, pass_credentials};
use crate::io::socket::Socket;
use crate::io::unix_name::{SocketFile, bind_socket, connect_socket};
pub use crate::stream::unix::{Credentials, MAX_DESCRIPTORS};
use crate::sys::recvmsg::Received;
use crate::{Deadline, Error, Receiver, Result, Sender, UnixName};

/// A name that processes connect to.
///
/// ```
/// use onecopy::message::unix_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
/// use onecopy::{Deadline, Receiver, Sender, UnixName};
///
/// let name = UnixName::abstract_name(format!("onecopy-example-seqpacket-{}", std::process::id()))?;
/// let listener = UnixSeqpacketListener::bind(&name)?;
/// let mut client = UnixSeqpacket::connect(&name, Deadline::Never)?;
/// let mut server = listener.accept_by(Deadline::Never)?;
/// client.send(b"one message")?;
/// client.send(b"")?;
/// drop(client);
/// assert_eq!(server.recv()?.as_deref(), Some(&b"one message"[..]));
/// assert_eq!(server.recv()?.as_deref(), Some(&b""[..]));
/// assert_eq!(server.recv()?, None);
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct UnixSeqpacketListener {
    _file: Option<SocketFile>,
    socket: Socket,
}

impl UnixSeqpacketListener {
    /// Listens at `name`. A socket file that no process holds any more is replaced; dropping the listener removes the file,
    /// unless another one has taken its place. The mode of the file is 0777 less the umask.
    ///
    /// # Errors
    ///
    /// EADDRINUSE when a process holds the name, or when the file is no socket.
    pub fn bind(name: &UnixName) -> Result<Self> {
        let object = format!("unix-seqpacket:{name}");
        let (fd, file) = bind_socket(SocketType::SEQPACKET, name, &object)?;
        Ok(Self { _file: file, socket: Socket::listener(fd, object)? })
    }

    /// Waits until `deadline` for a process that connects.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when none came; EMFILE when there are too many descriptors.
    pub fn accept_by(&self, deadline: Deadline) -> Result<UnixSeqpacket> {
        UnixSeqpacket::from_fd(self.socket.accept_by(deadline)?, self.socket.object())
    }
}

impl AsFd for UnixSeqpacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One side of a connection.
#[derive(Debug)]
pub struct UnixSeqpacket {
    packet: PacketSocket,
    /// An ECONNRESET that was met before the messages that had arrived by then; it is reported after them.
    reset: Option<Error>,
}

impl UnixSeqpacket {
    /// Connects to the listener at `name`, waiting until `deadline` for one to appear and to have room for another
    /// connection.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when none appeared in time. With [`Deadline::Now`] ENOENT or ECONNREFUSED where nobody listens,
    /// and [`Error::WouldBlock`] where the queue of the listener is full. EPROTOTYPE when a socket of another type
    /// has the name; EACCES without permission to write the socket file.
    pub fn connect(name: &UnixName, deadline: Deadline) -> Result<Self> {
        let object = format!("unix-seqpacket:{name}");
        Self::from_fd(connect_socket(SocketType::SEQPACKET, name, &object, deadline)?, object)
    }

    /// Two sockets connected to each other, closed on exec.
    ///
    /// # Errors
    ///
    /// EMFILE and ENFILE when there are too many descriptors.
    pub fn pair() -> Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|errno| Error::os("socketpair", "a new pair of UNIX sequenced-packet sockets", errno))?;
        Ok((Self::from_fd(one, "unix-seqpacket pair")?, Self::from_fd(other, "unix-seqpacket pair")?))
    }

    /// Takes over a connected socket that this process inherited or was passed. `object` names it in errors.
    ///
    /// # Errors
    ///
    /// ENOTSOCK and EBADF when `fd` is no socket.
    pub fn from_fd(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
        let object = object.into();
        pass_credentials(&fd, &object)?;
        Ok(Self { packet: PacketSocket::new(fd, object, false), reset: None })
    }

    /// Another handle of the same socket, so that one thread can send while another receives. Receive with one of them only:
    /// a message that was too long for a buffer waits in the handle that found it.
    ///
    /// # Errors
    ///
    /// EMFILE when there are too many descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { packet: self.packet.try_clone()?, reset: None })
    }

    /// Ends the direction towards the other side, which receives the end after what was sent. The other direction stays.
    ///
    /// # Errors
    ///
    /// ENOTCONN when the descriptor is no connected socket.
    pub fn shutdown_write(&self) -> Result<()> {
        self.packet.socket().shutdown_write()
    }

    /// Who is on the other side (SO_PEERCRED): who called connect(2), listen(2) or socketpair(2), at that time.
    ///
    /// # Errors
    ///
    /// ENOPROTOOPT when the descriptor is no UNIX socket.
    pub fn peer_credentials(&self) -> Result<Credentials> {
        let found = getsockopt(&self.packet, sockopt::PeerCredentials)
            .map_err(|errno| Error::os("getsockopt(SO_PEERCRED)", self.packet.object(), errno))?;
        Ok(Credentials { pid: found.pid(), uid: found.uid(), gid: found.gid() })
    }

    /// Sends one message and with it duplicates of `fds`, at most [`MAX_DESCRIPTORS`].
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`]; [`Error::Invalid`] for too many; ETOOMANYREFS when more wait to be received than RLIMIT_NOFILE
    /// allows.
    pub fn send_with_fds_by(&mut self, message: &[u8], fds: &[BorrowedFd<'_>], deadline: Deadline) -> Result<()> {
        self.packet.send_by(message, fds, deadline)
    }

    /// As [`Receiver::recv_into_by`], with the descriptors that came with the message, which are closed on exec.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`]; EMFILE when this process has no room for all descriptors: those that came are closed,
    /// and the message stays first in line without them.
    pub fn recv_with_fds_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<(usize, Vec<OwnedFd>)>> {
        self.until_the_end(|packet| packet.recv_with_fds_by(buffer, is_end, deadline))
    }

    /// Asks for a send buffer of `bytes` (SO_SNDBUF) and returns the size in force: the kernel doubles the number for its
    /// administration, after it lowered it to `/proc/sys/net/core/wmem_max`. The longest message, [`Sender::limit_bytes`],
    /// follows it.
    ///
    /// # Errors
    ///
    /// None that can be foreseen.
    pub fn set_send_buffer_bytes(&self, bytes: usize) -> Result<usize> {
        self.packet.set_send_buffer_bytes(bytes)
    }

    /// When the other side closes without having received all that we sent, the kernel reports ECONNRESET before the
    /// messages that are still there for us. They come first here, then the error, then the end.
    fn until_the_end<T>(
        &mut self,
        mut receive: impl FnMut(&mut PacketSocket) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        loop {
            match receive(&mut self.packet) {
                Ok(None) => return self.reset.take().map_or(Ok(None), Err),
                Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => {
                    self.reset =
                        Some(error.with_remedy("the other side closed without receiving all that was sent to it"));
                }
                other => return other,
            }
        }
    }
}

/// Whether a call that stored no bytes met the end: a message would have credentials.
fn is_end(received: &Received) -> bool {
    received.flags & libc::MSG_CTRUNC == 0 && received.credentials.is_none()
}

impl Sender for UnixSeqpacket {
    /// Sends one message, waiting while the send buffer is full.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] above [`Sender::limit_bytes`]; EPIPE or ECONNRESET, and never a SIGPIPE, when the other side is gone
    /// or receives no more.
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.packet.send_by(message, &[], deadline)
    }

    /// The size of the send buffer (SO_SNDBUF) less 32 bytes, at most 4 MiB.
    fn limit_bytes(&self) -> Option<usize> {
        self.packet.limit_bytes()
    }

    fn object(&self) -> &str {
        self.packet.object()
    }
}

impl Receiver for UnixSeqpacket {
    /// Receives one message; `None` when the other side closed, shut its direction down, or died. Descriptors that come with
    /// the message are closed: [`UnixSeqpacket::recv_with_fds_by`] takes them.
    ///
    /// # Errors
    ///
    /// As the trait says; ECONNRESET, once and after the last message, when the other side closed or died without having
    /// received all that was sent to it.
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.until_the_end(|packet| packet.recv_by(buffer, Wanted::Bytes, is_end, deadline))
    }

    fn object(&self) -> &str {
        self.packet.object()
    }
}

impl AsFd for UnixSeqpacket {
    /// The socket, for poll(2). A message that a too small buffer left waiting is in this process and does not show there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.packet.as_fd()
    }
}
