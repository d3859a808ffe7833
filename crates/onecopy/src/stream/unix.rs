//! Row 4, the UNIX stream socket: [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html).
//!
//! A connection carries bytes both ways, tells who is on the other side, and passes descriptors. It is named by a socket
//! file, which whoever may write it can connect to, or by an abstract name, which every process of the network namespace can
//! connect to: there the credentials of the peer are the only check.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SocketFlags, SocketType, socketpair};

use super::duplex::duplex_stream;
use crate::io::socket::Socket;
use crate::io::unix_name::{SocketFile, bind_socket, connect_socket};
use crate::sys::recvmsg::{Received, control_words};
use crate::{Deadline, Error, Result, UnixName};

/// The most descriptors that travel in one message (`SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 253;
/// Room for what other control messages an inherited socket may have been set to receive: credentials, a security label.
const OTHER_CONTROL_BYTES: usize = 512;
const CONTROL_WORDS: usize = control_words(MAX_DESCRIPTORS * size_of::<i32>()) + control_words(OTHER_CONTROL_BYTES);

/// A name that processes connect to.
///
/// ```
/// use onecopy::stream::unix::{UnixListener, UnixStream};
/// use onecopy::stream::{ByteReader, ByteWriter};
/// use onecopy::{Deadline, UnixName};
///
/// let name = UnixName::abstract_name(format!("onecopy-example-{}", std::process::id()))?;
/// let listener = UnixListener::bind(&name)?;
/// let mut client = UnixStream::connect(&name, Deadline::Never)?;
/// let mut server = listener.accept_by(Deadline::Never)?;
/// client.write_all_by(b"hello", Deadline::Never)?;
/// let mut buffer = [0; 16];
/// assert_eq!(server.read_by(&mut buffer, Deadline::Never)?, 5);
/// assert_eq!(server.peer_credentials()?.pid, std::process::id() as i32);
/// # Ok::<(), onecopy::Error>(())
/// ```
#[derive(Debug)]
pub struct UnixListener {
    _file: Option<SocketFile>,
    socket: Socket,
}

impl UnixListener {
    /// Listens at `name`. A socket file that no process holds any more is replaced; dropping the listener removes the file,
    /// unless another one has taken its place. The mode of the file is 0777 less the umask.
    ///
    /// # Errors
    ///
    /// EADDRINUSE when a process holds the name, or when the file is no socket.
    pub fn bind(name: &UnixName) -> Result<Self> {
        let object = format!("unix:{name}");
        let (fd, file) = bind_socket(SocketType::STREAM, name, &object)?;
        Ok(Self { _file: file, socket: Socket::listener(fd, object)? })
    }

    /// Takes over a listening socket that this process inherited. `object` names it in errors. Its file, if it has one, is
    /// the concern of whoever bound it.
    ///
    /// The socket becomes non-blocking, for all who share its open file description: accept(2) alone has no flag for that, and would
    /// wait beyond its deadline where another of them was faster. So who accepts there by other means has to expect EAGAIN.
    ///
    /// # Errors
    ///
    /// EBADF when `fd` is no descriptor.
    pub fn from_fd(fd: OwnedFd, object: impl Into<String>) -> Result<Self> {
        Ok(Self { _file: None, socket: Socket::listener(fd, object)? })
    }

    /// Waits until `deadline` for a process that connects.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] and [`Error::TimedOut`] when none came; EMFILE when there are too many descriptors.
    pub fn accept_by(&self, deadline: Deadline) -> Result<UnixStream> {
        let fd = self.socket.accept_by(deadline)?;
        Ok(UnixStream { socket: Socket::new(fd, self.socket.object()) })
    }
}

impl AsFd for UnixListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Who is on the other side of a connection, as the kernel says.
///
/// They are those of the moment when the other side called connect(2), listen(2) or socketpair(2): the process may have
/// changed its user, ended, or passed the socket on since then, and the pid may belong to somebody else by now. A process
/// that cannot be seen from this pid namespace has the pid 0, and a user without a number in this user namespace has the
/// overflow uid (65534, `/proc/sys/kernel/overflowuid`): neither identifies anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The process, or 0.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// One side of a connection.
///
/// Both directions are used at once by two threads through [`UnixStream::try_clone`], or through `&UnixStream`, which
/// reads and writes too. A read closes descriptors that come with the bytes: [`UnixStream::recv_with_fds_by`] takes them.
#[derive(Debug)]
pub struct UnixStream {
    socket: Socket,
}

impl UnixStream {
    /// Connects to the listener at `name`, waiting until `deadline` for one to appear and to have room for another
    /// connection.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when none appeared in time. With [`Deadline::Now`] ENOENT or ECONNREFUSED where nobody listens,
    /// and [`Error::WouldBlock`] where the queue of the listener is full. EPROTOTYPE when a socket of another type
    /// has the name; EACCES without permission to write the socket file.
    pub fn connect(name: &UnixName, deadline: Deadline) -> Result<Self> {
        let object = format!("unix:{name}");
        let fd = connect_socket(SocketType::STREAM, name, &object, deadline)?;
        Ok(Self { socket: Socket::new(fd, object) })
    }

    /// Two sockets connected to each other, closed on exec.
    ///
    /// # Errors
    ///
    /// EMFILE and ENFILE when there are too many descriptors.
    pub fn pair() -> Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|errno| Error::os("socketpair", "a new UNIX stream", errno))?;
        Ok((Self { socket: Socket::new(one, "unix pair") }, Self { socket: Socket::new(other, "unix pair") }))
    }

    /// Takes over a connected socket that this process inherited or was passed. `object` names it in errors.
    pub fn from_fd(fd: OwnedFd, object: impl Into<String>) -> Self {
        Self { socket: Socket::new(fd, object) }
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
    /// ENOTCONN when the descriptor is no connected socket.
    pub fn shutdown_write(&self) -> Result<()> {
        self.socket.shutdown_write()
    }

    /// Who is on the other side (SO_PEERCRED).
    ///
    /// # Errors
    ///
    /// ENOPROTOOPT when the descriptor is no UNIX socket.
    pub fn peer_credentials(&self) -> Result<Credentials> {
        let found = getsockopt(&self.socket, sockopt::PeerCredentials)
            .map_err(|errno| Error::os("getsockopt(SO_PEERCRED)", self.socket.object(), errno))?;
        Ok(Credentials { pid: found.pid(), uid: found.uid(), gid: found.gid() })
    }

    /// Sends `bytes` and with the first of them duplicates of `fds`; returns how many bytes went, at least one. The rest goes
    /// by [`ByteWriter::write_all_by`](super::ByteWriter::write_all_by).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for more than [`MAX_DESCRIPTORS`], or for no bytes at all, since descriptors travel with one;
    /// ETOOMANYREFS when more are in flight than RLIMIT_NOFILE allows; [`Error::WouldBlock`] and [`Error::TimedOut`]
    /// when there was no room.
    pub fn send_with_fds_by(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], deadline: Deadline) -> Result<usize> {
        self.check_passing(bytes, fds.len())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(self.invalid(format!("{} descriptors do not fit the control message", fds.len())));
        }
        self.socket.send_by(&[IoSlice::new(bytes)], &mut control, deadline).map_err(in_flight_remedy)
    }

    /// [`UnixStream::send_with_fds_by`] without a limit of time.
    ///
    /// # Errors
    ///
    /// As [`UnixStream::send_with_fds_by`].
    pub fn send_with_fds(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
        self.send_with_fds_by(bytes, fds, Deadline::Never)
    }

    /// Receives bytes and the descriptors that were sent with them, which are closed on exec; 0 bytes are the end of file. One
    /// call never joins the bytes of two messages that both carry descriptors.
    ///
    /// # Errors
    ///
    /// EMFILE when this process has no room for all descriptors: those that came were closed, and the bytes that came with
    /// them are lost, so that the connection is of no more use. [`Error::WouldBlock`] and [`Error::TimedOut`] when nothing
    /// came.
    pub fn recv_with_fds_by(&self, buffer: &mut [u8], deadline: Deadline) -> Result<(usize, Vec<OwnedFd>)> {
        let mut received = Received::default();
        let buffers = &mut [IoSliceMut::new(buffer)];
        let bytes = self.socket.recv_control_by(buffers, &mut [0; CONTROL_WORDS], false, 0, &mut received, deadline)?;
        if received.flags & libc::MSG_CTRUNC != 0 {
            return Err(self.truncated(bytes, received.fds.len()));
        }
        Ok((bytes, received.fds))
    }

    /// [`UnixStream::recv_with_fds_by`] without a limit of time.
    ///
    /// # Errors
    ///
    /// As [`UnixStream::recv_with_fds_by`].
    pub fn recv_with_fds(&self, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
        self.recv_with_fds_by(buffer, Deadline::Never)
    }

    fn check_passing(&self, bytes: &[u8], fds: usize) -> Result<()> {
        if fds > MAX_DESCRIPTORS {
            return Err(self.invalid(format!(
                "{fds} descriptors do not fit one message, whose limit is {MAX_DESCRIPTORS}: send several"
            )));
        }
        if bytes.is_empty() {
            return Err(self.invalid("descriptors travel with at least one byte of data, and there is none".into()));
        }
        Ok(())
    }

    fn truncated(&self, bytes: usize, fds: usize) -> Error {
        Error::os("recvmsg", self.socket.object(), Errno::MFILE).with_remedy(format!(
            "more descriptors were passed than this process has room for: {fds} came and were closed, and {bytes} bytes are \
             lost; raise RLIMIT_NOFILE"
        ))
    }

    fn invalid(&self, reason: String) -> Error {
        Error::Invalid { object: self.socket.object().into(), reason }
    }
}

fn in_flight_remedy(error: Error) -> Error {
    if error.raw_os_error() == Some(libc::ETOOMANYREFS) {
        return error
            .with_remedy("more descriptors wait to be received than RLIMIT_NOFILE allows: have them received first");
    }
    error
}

duplex_stream!(socket: UnixStream, &UnixStream);

impl AsFd for UnixStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
