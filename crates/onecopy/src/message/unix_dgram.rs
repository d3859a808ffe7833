//! Row 5, the UNIX datagram socket: [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html).
//!
//! Unlike UDP, it loses nothing: a sender whose receiver has more than `/proc/sys/net/unix/max_dgram_qlen` messages waiting
//! waits too.
//! Messages of one sender arrive in order; those of several, in the order in which they were sent. There is no connection: a
//! receiver is not told when a sender ends, and what waits for a receiver that dies is lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, getpeername, sendto, socketpair};

use super::unix_packet::{PacketSocket, Wanted, pass_credentials};
use crate::io::socket::send_flags;
use crate::io::unix_name::{SocketFile, bind_to, connect_socket, connect_to, new_socket, socket_address};
use crate::io::wait::Backoff;
pub use crate::stream::unix::{Credentials, MAX_DESCRIPTORS};
use crate::{Deadline, Error, Receiver, Result, Sender, UnixName, tally};

/// A UNIX datagram socket: it receives under the name that it is bound to, and sends to the one that it is connected to or to
/// any.
///
/// ```
/// use onecopy::message::unix_dgram::UnixDatagram;
/// use onecopy::{Deadline, Receiver, Sender, UnixName};
///
/// let name = UnixName::abstract_name(format!("onecopy-example-dgram-{}", std::process::id()))?;
/// let mut receiver = UnixDatagram::bind(&name)?;
/// let mut sender = UnixDatagram::connect(&name, Deadline::Never)?;
/// sender.send(b"one message")?;
/// let mut buffer = [0; 64];
/// let (len, from) = receiver.recv_with_credentials_by(&mut buffer, Deadline::Never)?;
/// assert_eq!((&buffer[..len], from.pid), (&b"one message"[..], std::process::id() as i32));
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct UnixDatagram {
    file: Option<Arc<SocketFile>>,
    packet: PacketSocket,
    /// Whether it was connected; the kernel takes a connection apart when the receiver closes.
    connected: bool,
}

impl UnixDatagram {
    /// A socket that receives what is sent to `name`. A socket file that no process holds any more is replaced; dropping the
    /// socket removes the file, unless another one has taken its place. The mode of the file is 0777 less the umask, and who
    /// may write it may send.
    ///
    /// # Errors
    ///
    /// EADDRINUSE when a process holds the name, or when the file is no socket.
    pub fn bind(name: &UnixName) -> Result<Self> {
        let object = format!("unix-dgram:{name}");
        let fd = new_socket(SocketType::DGRAM, &object)?;
        // Before the name: the kernel notes the sender of a message when it is sent.
        pass_credentials(&fd, &object)?;
        let file = bind_to(&fd, name, &object)?;
        Ok(Self { packet: PacketSocket::new(fd, object, true), connected: false, file: file.map(Arc::new) })
    }

    /// A socket that sends to `name`, waiting until `deadline` for a receiver to appear. It has no name of its own, so nobody
    /// can answer: see [`UnixDatagram::connect_from`].
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when none appeared in time; with [`Deadline::Now`] ENOENT or ECONNREFUSED where nobody receives.
    /// EPROTOTYPE when a socket of another type has the name; EACCES without permission to write the socket file; EPERM
    /// when the receiver is itself connected to somebody else.
    pub fn connect(name: &UnixName, deadline: Deadline) -> Result<Self> {
        let object = format!("unix-dgram:{name}");
        let fd = connect_socket(SocketType::DGRAM, name, &object, deadline)?;
        Ok(Self { packet: PacketSocket::new(fd, object, true), connected: true, file: None })
    }

    /// A socket that sends to `name` from a name of its own, `own`, to which answers come; it then receives from there only.
    ///
    /// # Errors
    ///
    /// As [`UnixDatagram::bind`] of `own` and [`UnixDatagram::connect`] to `name`.
    pub fn connect_from(own: &UnixName, name: &UnixName, deadline: Deadline) -> Result<Self> {
        let object = format!("unix-dgram:{name}");
        let fd = new_socket(SocketType::DGRAM, &object)?;
        pass_credentials(&fd, &object)?;
        let file = bind_to(&fd, own, &format!("unix-dgram:{own}"))?;
        connect_to(&fd, name, &object, deadline)?;
        Ok(Self { packet: PacketSocket::new(fd, object, true), connected: true, file: file.map(Arc::new) })
    }

    /// Two sockets connected to each other, closed on exec.
    ///
    /// # Errors
    ///
    /// EMFILE and ENFILE when there are too many descriptors.
    pub fn pair() -> Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(|errno| Error::os("socketpair", "a new pair of UNIX datagram sockets", errno))?;
        Ok((Self::from_fd(one, "unix-dgram pair")?, Self::from_fd(other, "unix-dgram pair")?))
    }

    /// Takes over a socket that this process inherited or was passed. `object` names it in errors.
    ///
    /// # Errors
    ///
    /// ENOTSOCK and EBADF when `fd` is no socket.
    pub fn from_fd(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
        let object = object.into();
        pass_credentials(&fd, &object)?;
        let connected = getpeername(&fd).is_ok();
        Ok(Self { packet: PacketSocket::new(fd, object, true), connected, file: None })
    }

    /// Sends one message to `to`, whatever this socket is connected to: the way to answer [`UnixDatagram::recv_from_by`].
    ///
    /// Where the receiver is full, the kernel wakes a sender without a deadline; for one with a deadline nothing tells when
    /// there is room, so it asks again every few milliseconds.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`]; ENOENT and ECONNREFUSED where nobody receives.
    pub fn send_to_by(&mut self, message: &[u8], to: &UnixName, deadline: Deadline) -> Result<()> {
        let object = format!("unix-dgram:{to}");
        let address = socket_address(to, &object)?;
        self.packet.check_piece(message, &object)?;
        let mut backoff = Backoff::new();
        loop {
            match sendto(&self.packet, message, send_flags(deadline), &address) {
                Ok(bytes) => {
                    tally::count_kernel(bytes);
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => backoff.pause(deadline, "send", &object)?,
                Err(errno) => {
                    let error = Error::os("sendto", &object, errno);
                    return Err(self.packet.explain_send(error, message, &object));
                }
            }
        }
    }

    /// As [`Receiver::recv_into_by`], with the name of the sender, `None` for one without a name. A name proves nothing: see
    /// [`UnixDatagram::recv_with_credentials_by`].
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`].
    pub fn recv_from_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<(usize, Option<UnixName>)> {
        let len = self.packet.recv_by(buffer, Wanted::Bytes, |_| false, deadline)?.unwrap_or_default();
        Ok((len, self.packet.sender()))
    }

    /// As [`Receiver::recv_into_by`], with the process, user and group that sent the message, as the kernel noted them when it
    /// was sent (SCM_CREDENTIALS). A process with CAP_SETUID or CAP_SETGID may have named others. The process may have ended
    /// since.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`]; [`Error::Unsupported`] when another call met the message before this one was
    /// ever used, and left it in line because its buffer was too small. The kernel tells who sent a message only once, so it
    /// stays in line for a call that does not ask.
    pub fn recv_with_credentials_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<(usize, Credentials)> {
        let len = self.packet.recv_by(buffer, Wanted::Credentials, |_| false, deadline)?.unwrap_or_default();
        if let Some(credentials) = self.packet.credentials() {
            return Ok((len, credentials));
        }
        self.packet.put_back(&buffer[..len]);
        let reason =
            "who sent the next message is not known, since a call that did not ask met it first: receive it so";
        Err(Error::Unsupported { object: self.packet.object().into(), reason: reason.into() })
    }

    /// Sends one message and with it duplicates of `fds`, at most [`MAX_DESCRIPTORS`].
    ///
    /// # Errors
    ///
    /// As [`Sender::send_by`]; [`Error::Invalid`] for too many; ETOOMANYREFS when more wait to be received than RLIMIT_NOFILE
    /// allows.
    pub fn send_with_fds_by(&mut self, message: &[u8], fds: &[BorrowedFd<'_>], deadline: Deadline) -> Result<()> {
        self.packet.send_by(message, fds, deadline).map_err(|error| self.explain_refusal(error))
    }

    /// As [`Receiver::recv_into_by`], with the descriptors that came with the message, which are closed on exec.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_into_by`]; EMFILE when this process has no room for all descriptors: those that came are closed,
    /// and the message stays first in line without them.
    pub fn recv_with_fds_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<(usize, Vec<OwnedFd>)> {
        self.packet.recv_with_fds_by(buffer, |_| false, deadline).map(Option::unwrap_or_default)
    }

    /// Another handle of the same socket, so that one thread can send while another receives. Receive with one of them only:
    /// a message that was too long for a buffer waits in the handle that found it.
    ///
    /// # Errors
    ///
    /// EMFILE when there are too many descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { packet: self.packet.try_clone()?, connected: self.connected, file: self.file.clone() })
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

    /// After the first ECONNREFUSED the kernel takes the connection apart and says ENOTCONN.
    fn explain_refusal(&self, error: Error) -> Error {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => error.with_remedy("the receiver closed its socket; what waited there is lost"),
            Some(libc::ENOTCONN) if self.connected => Error::PeerGone {
                object: self.packet.object().into(),
                detail: "the receiver closed its socket: connect again".into(),
            },
            Some(libc::ENOTCONN) => error.with_remedy("this socket is not connected: name the receiver"),
            _ => error,
        }
    }
}

impl Sender for UnixDatagram {
    /// Sends one message to the socket that this one is connected to, waiting while it is full.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] above [`Sender::limit_bytes`]; ECONNREFUSED when the receiver is gone, then and later an error for
    /// which [`Error::is_peer_gone`] holds: a new receiver of the same name needs a new [`UnixDatagram::connect`].
    fn send_by(&mut self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.packet.send_by(message, &[], deadline).map_err(|error| self.explain_refusal(error))
    }

    /// The size of the send buffer (SO_SNDBUF) less 32 bytes, at most 4 MiB.
    fn limit_bytes(&self) -> Option<usize> {
        self.packet.limit_bytes()
    }

    fn object(&self) -> &str {
        self.packet.object()
    }
}

impl Receiver for UnixDatagram {
    /// Receives one message. Never `None`: datagrams have no end, and a sender that dies leaves no sign. Descriptors that come
    /// with the message are closed: [`UnixDatagram::recv_with_fds_by`] takes them.
    fn recv_into_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
        self.packet.recv_by(buffer, Wanted::Bytes, |_| false, deadline)
    }

    fn object(&self) -> &str {
        self.packet.object()
    }
}

impl AsFd for UnixDatagram {
    /// The socket, for poll(2). A message that a too small buffer left waiting is in this process and does not show there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.packet.as_fd()
    }
}
